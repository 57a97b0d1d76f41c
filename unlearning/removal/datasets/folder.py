"""A folder of images with a folder of masks for each class."""

from __future__ import annotations

__all__ = ["MaskFolder"]

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from conceptlab.datasets.folder import IMAGE_SUFFIXES
from conceptlab.datasets.images import as_image_batch
from conceptlab.datasets.pictures import file_bytes, open_picture
from conceptlab.errors import InputError
from unlearning.removal.datasets.base import RemovalDataset
from unlearning.removal.datasets.coco import fit_mask

if TYPE_CHECKING:
    from PIL.Image import Image


class MaskFolder(RemovalDataset):
    """Images, mask images, and the true removals where there are any.

    ::

        data/images/001.jpg             all images, with and without the classes
        data/masks/dog/001.png          white where image 001 has a dog
        data/truth/dog/001.png          optional: image 001 without the dog

    An image without a mask file for a class, or with a black one, does not show the class.

    Parameters
    ----------
    path : path-like
        The folder.
    size : int
        Side in pixels that everything is brought to.

    Raises
    ------
    InputError
        Without those folders, a mask without an image, or a mask of another size than its
        image.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> for folder in ("photos/images", "photos/masks/dog"):
    ...     Path(folder).mkdir(parents=True)
    >>> for name in ("001", "002"):  # a dog on the left of the first
    ...     Image.new("RGB", (32, 32)).save(f"photos/images/{name}.png")
    >>> mask = np.zeros((32, 32), dtype=np.uint8)
    >>> mask[:, :16] = 255
    >>> Image.fromarray(mask).save("photos/masks/dog/001.png")
    >>> data = MaskFolder("photos", size=16)
    >>> data.with_class("dog").tolist(), data.without_class("dog").tolist()
    ([0], [1])
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 256) -> None:
        root = Path(path)
        self.name = root.name
        self.size = (size, size)
        self._files = _pictures(root / "images")
        self._stems = list(self._files)
        if not os.path.isdir(root / "masks"):
            raise InputError(
                f"{root} has no folder masks/CLASS with mask images.", code="CL-INPUT-FILE"
            )
        folders = sorted(p for p in (root / "masks").iterdir() if p.is_dir())
        if not folders:
            raise InputError(
                f"{root / 'masks'} holds no folders; make one for each class.",
                code="CL-INPUT-EMPTY",
            )
        self.class_names = tuple(p.name for p in folders)
        self.concepts = self.class_names
        self._masks = {p.name: _pictures(p) for p in folders}
        self._truth = {
            name: _pictures(root / "truth" / name)
            for name in self.class_names
            if os.path.isdir(root / "truth" / name)
        }
        self.has_truth = set(self._truth) == set(self.class_names)
        for name, masks in self._masks.items():
            for stem in masks:
                if stem not in self._files:
                    raise InputError(
                        f"{masks[stem]} has no image of that name in {root / 'images'}.",
                        code="CL-INPUT-FILE",
                    )
                if name in self._truth and stem not in self._truth[name]:
                    raise InputError(
                        f"{root / 'truth' / name} lacks {stem}; give all true removals of a "
                        "class, or none.",
                        code="CL-INPUT-FILE",
                    )
        self._fitted: dict[tuple[str, int], np.ndarray] = {}

    def with_class(self, name: str, *, min_area: float = 0.0, max_area: float = 1.0) -> np.ndarray:
        """Give the images that hold the class within these shares of the area, (n,) int64."""
        self.check_class(name)
        shares = {i: self._mask(name, i).mean() for i in self._masked(name)}
        return np.array(
            [i for i, s in shares.items() if s > 0 and min_area <= s <= max_area], dtype=np.int64
        )

    def without_class(self, name: str) -> np.ndarray:
        """Give the images without a mask, or with a black one, (n,) int64."""
        self.check_class(name)
        shown = {i for i in self._masked(name) if self._mask(name, i).any()}
        return np.array([i for i in range(len(self._stems)) if i not in shown], dtype=np.int64)

    def images(self, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Read images, (n, 3, H, W) float32 in [0, 1]."""
        return as_image_batch([self._files[self._stems[int(i)]] for i in ids], size=self.size)

    def masks(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Give the masks, (n, 1, H, W) bool."""
        self.check_class(name)
        return np.stack([self._mask(name, int(i)) for i in ids])[:, None]

    def truth(self, name: str, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Read the true removals, (n, 3, H, W) float32 in [0, 1]."""
        files = [self._truth[name][self._stems[int(i)]] for i in ids]
        return as_image_batch(files, size=self.size)

    def label(self, index: int) -> str:
        """Give the file's name."""
        return self._files[self._stems[int(index)]].name

    def _masked(self, name: str) -> list[int]:
        return [i for i, stem in enumerate(self._stems) if stem in self._masks[name]]

    def _mask(self, name: str, index: int) -> np.ndarray:
        key = (name, index)
        if key not in self._fitted:
            stem = self._stems[index]
            expected = _open(self._files[stem], pixels=False).size
            picture = _open(self._masks[name][stem])
            found = picture.size
            mask = np.asarray(picture.convert("L")) > 127
            if found != expected:
                raise InputError(
                    f"{self._masks[name][stem]} is {found[0]} × {found[1]} pixels, its image "
                    f"{expected[0]} × {expected[1]} (width × height). Resize it, by nearest "
                    "neighbour.",
                    code="CL-INPUT-SHAPE",
                )
            self._fitted[key] = fit_mask(mask, self.size)
        return self._fitted[key]


def _open(file: Path, *, pixels: bool = True) -> Image:
    return open_picture(file_bytes(file), str(file), pixels=pixels)


def _pictures(folder: Path) -> dict[str, Path]:
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is no folder.", code="CL-INPUT-FILE")
    found = {
        p.stem: p
        for p in sorted(folder.iterdir())
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    }
    if not found:
        raise InputError(f"{folder} holds no images.", code="CL-INPUT-EMPTY")
    return found
