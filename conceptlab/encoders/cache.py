"""Embeddings kept on disk, so that no image is encoded twice.

Every row has a key: the hash of the encoder's fingerprint, of the settings
(normalisation, templates, precision) and of the content of that very image or
text. So another model, another crop or a changed file is never answered with
old vectors; subsets, folds, other orders and data that have grown find what
is there; and an interrupted run goes on after its last whole shard.
"""

from __future__ import annotations

__all__ = ["EmbeddingCache", "EmbeddingCacheWarning", "as_cache"]

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from conceptlab.datasets.images import image_source
from conceptlab.datasets.sources import Images
from conceptlab.errors import CheckpointError, InputError
from conceptlab.io.files import atomic_write
from conceptlab.io.reading import check_plain_file, is_utf8
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint

_FORMAT = "1"


class EmbeddingCacheWarning(UserWarning):
    """A shard of an embedding cache was damaged and is computed again."""


class EmbeddingCache:
    """A folder of embeddings, keyed by encoder, settings and data.

    Several processes may share it. A damaged shard is computed again, with an
    :class:`EmbeddingCacheWarning`: nothing in it is irreplaceable.

    Parameters
    ----------
    folder : path-like
        Made on the first write.
    shard_size : int
        Rows a shard; an interrupted run loses at most one.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from conceptlab.encoders import CallableEncoder
    >>> cache = EmbeddingCache(tempfile.mkdtemp() + "/embeddings")
    >>> encoder = CallableEncoder(lambda x: x.mean(dim=(2, 3)), fingerprint="mean colour")
    >>> images = np.zeros((5, 3, 4, 4), dtype=np.uint8)
    >>> encoder.encode_image(images, normalize=False, cache=cache).shape, len(cache)
    ((5, 3), 1)
    """

    def __init__(self, folder: str | os.PathLike[str], *, shard_size: int = 1024) -> None:
        if isinstance(shard_size, bool) or shard_size < 1:
            raise InputError(
                f"shard_size must be at least 1, got {shard_size!r}.", code="CL-INPUT-RANGE"
            )
        if not is_utf8(folder):
            raise CheckpointError(
                f"The name {os.fspath(folder)!a} is no UTF-8, and safetensors opens no such files. "
                "Choose another folder for the cache.",
                code="CL-CHECKPOINT-TARGET",
            )
        self.folder = Path(folder)
        self.shard_size = int(shard_size)

    def encode_image(
        self, encoder: Any, images: Images, *, progress: Progress = None, **options: Any
    ) -> Any:
        """Encode images with any encoder through the cache.

        Parameters
        ----------
        encoder : Encoder
            Also one that knows of no cache itself.
        images : array-like of images
            See :func:`conceptlab.datasets.as_image_batch`.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`; one step is one shard.
        **options
            Of ``encoder.encode_image``; all but ``batch_size`` enter the key.

        Returns
        -------
        array of shape (n, d)
            Of the kind of `images`.
        """
        if getattr(encoder, "takes_cache", False):
            return encoder.encode_image(images, cache=self, progress=progress, **options)
        source = image_source(images)
        settings = {"what": "image", **{k: v for k, v in options.items() if k != "batch_size"}}

        def rows(indices: Sequence[int], report: Progress) -> torch.Tensor:
            part = source.take(indices)
            return torch.as_tensor(encoder.encode_image(part, progress=report, **options))

        keys = source.digests(0, len(source))
        found = self.rows(encoder.fingerprint, settings, keys, rows, progress=progress)
        return source.kind.restore(found)

    def rows(
        self,
        space: str,
        settings: dict[str, Any],
        keys: Sequence[bytes],
        compute: Callable[[Sequence[int], Progress], torch.Tensor],
        *,
        progress: Progress = None,
    ) -> torch.Tensor:
        """Give a row for each key, from disk where it is and from `compute` where not.

        Parameters
        ----------
        space : str
            Fingerprint of the encoder.
        settings : dict
            JSON values of all that changes the rows.
        keys : sequence of n bytes
            sha256 of what each row comes from.
        compute : callable
            ``compute(indices, progress)`` gives a row for each index into `keys`.
        progress : bool, callable or None
            One step is one shard that is computed.

        Returns
        -------
        Tensor of shape (n, d), float32, on the CPU
        """
        if not keys:
            raise InputError("There is nothing to encode.", code="CL-INPUT-EMPTY")
        folder = self.folder / space[:16] / fingerprint(_FORMAT, space, settings)[:16]
        unique = {key: index for index, key in enumerate(keys)}
        place = {key: row for row, key in enumerate(unique)}
        out, missing = self._stored(folder, place)
        todo = [key for key in place if key in missing]
        starts = range(0, len(todo), self.shard_size)
        for start in track(starts, description="embeddings", progress=progress, unit="shard"):
            part = todo[start : start + self.shard_size]
            values = compute([unique[key] for key in part], False if len(starts) > 1 else progress)
            values = values.detach().to("cpu", torch.float32).contiguous()
            self._write(folder, part, values)
            if out is None:
                out = values.new_empty((len(place), values.shape[1]))
            out[[place[key] for key in part]] = values
        if out is None:
            raise RuntimeError("no row was found or computed")
        return out if len(place) == len(keys) else out[[place[key] for key in keys]]

    def __len__(self) -> int:
        return sum(1 for _ in self._files())

    @property
    def nbytes(self) -> int:
        """Size on disk in bytes."""
        return sum(path.stat().st_size for path in self._files())

    def clear(self) -> None:
        """Remove all shards."""
        for path in list(self._files()):
            path.unlink(missing_ok=True)
        for folder in [*self.folder.glob("*/*"), *self.folder.glob("*")]:
            with contextlib.suppress(OSError):  # something else lies there
                folder.rmdir()

    def prune(self, max_bytes: int) -> int:
        """Remove the shards that were written longest ago until the rest fits.

        Returns
        -------
        int
            Number of shards removed.
        """
        files = sorted(self._files(), key=lambda path: path.stat().st_mtime)
        total, removed = sum(path.stat().st_size for path in files), 0
        for path in files:
            if total <= max_bytes:
                break
            total -= path.stat().st_size
            path.unlink(missing_ok=True)
            removed += 1
        return removed

    def __repr__(self) -> str:
        return f"EmbeddingCache({str(self.folder)!r})"

    def __sklearn_clone__(self) -> EmbeddingCache:
        return self

    def _files(self) -> Iterator[Path]:
        return self.folder.glob("*/*/*.safetensors")

    def _stored(
        self, folder: Path, place: dict[bytes, int]
    ) -> tuple[torch.Tensor | None, set[bytes]]:
        """Read all rows that are on disk; give them with the keys that are not."""
        missing = set(place)
        out: torch.Tensor | None = None
        for path in sorted(folder.glob("*.safetensors")) if os.path.isdir(folder) else ():
            if not missing:
                break
            wanted = [(row, key) for row, key in enumerate(self._keys(path)) if key in missing]
            values = self._values(path) if wanted else None
            if values is None or (out is not None and values.shape[1] != out.shape[1]):
                continue
            if out is None:
                out = torch.empty((len(place), values.shape[1]))
            found = [place[key] for _, key in wanted]
            out[found] = torch.from_numpy(values[[row for row, _ in wanted]])
            missing.difference_update(key for _, key in wanted)
        return out, missing

    def _keys(self, path: Path) -> list[bytes]:
        try:
            check_plain_file(path)
            with safe_open(path, framework="numpy") as file:
                return [bytes(key) for key in file.get_tensor("keys")]
        except (SafetensorError, OSError, ValueError) as error:
            self._discard(path, str(error))
            return []

    def _values(self, path: Path) -> np.ndarray | None:
        try:
            with safe_open(path, framework="numpy") as file:
                expected = (file.metadata() or {}).get("sha256")
                keys, values = file.get_tensor("keys"), file.get_tensor("embeddings")
        except (SafetensorError, OSError, ValueError) as error:
            self._discard(path, str(error))
            return None
        if _sha256(keys, values) != expected:
            self._discard(path, "its sha256 is not the one it was written with")
            return None
        return np.asarray(values)

    def _discard(self, path: Path, why: str) -> None:
        if os.path.exists(path):  # another process may have removed it
            warnings.warn(
                f"The cached embeddings {path} are damaged ({why}); they are computed again.",
                EmbeddingCacheWarning,
                stacklevel=6,
            )
            path.unlink(missing_ok=True)

    def _write(self, folder: Path, keys: list[bytes], rows: torch.Tensor) -> None:
        values = rows.numpy()
        joined = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
        digest = _sha256(joined, values)
        content = save_tensors(
            {"embeddings": values, "keys": joined}, metadata={"sha256": digest, "format": _FORMAT}
        )
        name = hashlib.sha256(joined.tobytes()).hexdigest()[:32]
        atomic_write(folder / f"{name}.safetensors", content)


def _sha256(keys: np.ndarray, values: np.ndarray) -> str:
    hasher = hashlib.sha256(np.ascontiguousarray(keys).tobytes())
    hasher.update(f"{values.dtype.name}:{values.shape}:".encode())
    hasher.update(np.ascontiguousarray(values).tobytes())
    return hasher.hexdigest()


def as_cache(cache: EmbeddingCache | str | os.PathLike[str]) -> EmbeddingCache:
    """Give an :class:`EmbeddingCache` for itself or for a folder.

    Raises
    ------
    InputError, CheckpointError
        If `cache` is neither, or is a file.
    """
    if isinstance(cache, EmbeddingCache):
        return cache
    if not isinstance(cache, str | os.PathLike):
        raise InputError(
            f"cache must be a folder or an EmbeddingCache, got {type(cache).__name__}.",
            code="CL-INPUT-TYPE",
        )
    if os.path.isfile(cache):
        raise CheckpointError(
            f"{cache} is a file; a cache is a folder. Choose another path.",
            code="CL-CHECKPOINT-TARGET",
        )
    return EmbeddingCache(cache)
