"""A folder of images with a folder of masks for each class."""

from __future__ import annotations

__all__ = ["MaskFolder"]

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from conceptlab.datasets.folder import IMAGE_SUFFIXES, warn_passed_over
from conceptlab.datasets.images import as_image_batch
from conceptlab.datasets.pictures import file_bytes, open_picture, picture_size
from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from unlearning.removal.datasets.base import RemovalDataset
from unlearning.removal.datasets.coco import fit_mask
from unlearning.removal.masks import mask_of_picture


class MaskFolder(RemovalDataset):
    """Images, mask images, and the true removals where there are any.

    ::

        data/images/001.jpg             all images, with and without the classes
        data/masks/dog/001.png          not black where image 001 has a dog
        data/truth/dog/001.png          optional: image 001 without the dog

    An image without a mask file for a class, or with a black one, does not show the class.
    A mask is black and one other value or colour, of any kind of picture; other values are
    an error that names them. All pictures are upright, as EXIF's orientation says.

    Parameters
    ----------
    path : path-like
        The folder.
    size : int
        Side in pixels that everything is brought to.

    Raises
    ------
    InputError
        Without those folders, a mask without an image, two pictures of one name
        (``CL-INPUT-NAMES``), a mask of another size than its image (``CL-INPUT-SHAPE``), or
        with grey values (``CL-INPUT-RANGE``).

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
        Whole(1).check("size", size)
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
        found = [self._mask(name, int(i)) for i in ids]
        return np.stack(found)[:, None] if found else np.zeros((0, 1, *self.size), bool)

    def truth(self, name: str, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Read the true removals, (n, 3, H, W) float32 in [0, 1]."""
        self.check_class(name)
        files = [self._truth[name][self._stems[int(i)]] for i in ids]
        for i, file in zip(ids, files, strict=True):
            image = self._files[self._stems[int(i)]]
            found, expected = (picture_size(file_bytes(p), str(p)) for p in (file, image))
            if found != expected:
                raise InputError(
                    f"{file} is {found[0]} × {found[1]} pixels, its image {expected[0]} × "
                    f"{expected[1]} (width × height, upright as EXIF says). Bring it to that size.",
                    code="CL-INPUT-SHAPE",
                )
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
            image, file = self._files[stem], self._masks[name][stem]
            expected = picture_size(file_bytes(image), str(image))
            picture = open_picture(file_bytes(file), str(file))
            found = picture.size
            if found != expected:
                raise InputError(
                    f"{file} is {found[0]} × {found[1]} pixels, its image {expected[0]} × "
                    f"{expected[1]} (width × height, upright as EXIF says). Resize or turn it, by "
                    "nearest neighbour.",
                    code="CL-INPUT-SHAPE",
                )
            self._fitted[key] = fit_mask(mask_of_picture(picture, str(file)), self.size)
        return self._fitted[key]


def _pictures(folder: Path) -> dict[str, Path]:
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is no folder.", code="CL-INPUT-FILE")
    found: dict[str, Path] = {}
    left = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            left.append(path.name)
            continue
        if path.stem in found:
            raise InputError(
                f"{folder} has {found[path.stem].name} and {path.name}. Images and masks find each "
                "other by their names without the suffix, so these must differ: rename one.",
                code="CL-INPUT-NAMES",
            )
        found[path.stem] = path
    warn_passed_over(folder, left)
    if not found:
        raise InputError(f"{folder} holds no images.", code="CL-INPUT-EMPTY")
    return found
