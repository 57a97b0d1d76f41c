"""Finished removals on disk, one picture a file, so that a stopped run goes on."""

from __future__ import annotations

__all__ = ["RemovalCache"]

import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np

from conceptlab.datasets.pictures import decode, file_bytes
from conceptlab.errors import InputError
from conceptlab.io.files import atomic_write


class RemovalCache:
    """A folder of removed images, keyed by remover, image, hole and seed.

    The files are PNG and can be looked at. One that is damaged is made again.

    Parameters
    ----------
    folder : path-like
        Made on the first write.

    Examples
    --------
    >>> import tempfile
    >>> cache = RemovalCache(tempfile.mkdtemp())
    >>> cache.put("telea", "ab12", np.zeros((3, 4, 4), dtype=np.uint8))
    >>> cache.get("telea", "ab12").shape, cache.get("telea", "cd34")
    ((3, 4, 4), None)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def get(self, remover: str, key: str) -> np.ndarray | None:
        """Give the image (3, H, W) uint8 that a `remover` wrote under `key`, or None."""
        path = self._path(remover, key)
        try:
            picture = np.asarray(decode(file_bytes(path), str(path)))
        except InputError:
            return None
        return np.ascontiguousarray(np.moveaxis(picture, 2, 0))

    def put(self, remover: str, key: str, image: np.ndarray) -> None:
        """Write an `image` (3, H, W) uint8 of a `remover` under `key`.

        Another process may do the same.
        """
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(np.moveaxis(image, 0, 2)).save(stream, format="PNG")
        atomic_write(self._path(remover, key), stream.getvalue(), durable=False)

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("*/*.png"))

    def __repr__(self) -> str:
        return f"RemovalCache({str(self.folder)!r})"

    def _path(self, remover: str, key: str) -> Path:
        # Names of any kind make folders that people can read and that never collide.
        plain = re.sub(r"[^A-Za-z0-9+-]+", "_", remover)[:40]
        digest = hashlib.sha256(remover.encode()).hexdigest()[:8]
        return self.folder / f"{plain}-{digest}" / f"{key[:40]}.png"
