"""COCO-format annotations: a JSON file and a folder of images."""

from __future__ import annotations

__all__ = ["CocoRemovals"]

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.datasets.images import as_image_batch
from conceptlab.datasets.pictures import decode, file_bytes
from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from unlearning.removal.datasets.annotations import check_segmentation, mask_of, open_annotations
from unlearning.removal.datasets.base import RemovalDataset

if TYPE_CHECKING:
    from PIL.Image import Image


class CocoRemovals(RemovalDataset):
    """Images and instance masks in the format of COCO.

    Images are scaled until the shorter side is `size` and cropped at the centre, and
    masks with them.

    Parameters
    ----------
    annotations : path-like
        JSON with ``images``, ``annotations`` and ``categories``; polygons and
        run-lengths.
    folder : path-like
        The images, by their ``file_name``.
    size : int
        Side in pixels that everything is brought to.
    classes : sequence of str, optional
        Categories to remove; all by default.
    skip_invalid : bool
        Whether images are left out of a class, with a warning that counts them, that have
        an annotation of it without a mask (a box alone, a line, a point). They are an error
        otherwise. They are never taken for images without the class.

    Attributes
    ----------
    left_out : dict of str to int
        For each class the annotations without a mask, with `skip_invalid`.

    Raises
    ------
    InputError
        A file that is missing or is not in the format, with an id twice, or that names
        pictures outside `folder` (``CL-INPUT-FILE``); a picture of another size than the file
        says (``CL-INPUT-SHAPE``); a class that is no category.
    DependencyError
        Without pycocotools.

    Notes
    -----
    Lin et al. 2014. An image with a crowd region of a class is never taken for one without
    the class, and the crowd region is part of the mask.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> box = [[0, 0, 16, 0, 16, 16, 0, 16]]  # a polygon
    >>> cat = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": box, "area": 256}
    >>> cat |= {"bbox": [0, 0, 16, 16], "iscrowd": 0}
    >>> pictures = [{"id": i, "file_name": f"{i}.png", "height": 32, "width": 32} for i in (1, 2)]
    >>> names = [{"id": 7, "name": "cat"}]
    >>> content = {"images": pictures, "annotations": [cat], "categories": names}
    >>> n_characters = Path("cats.json").write_text(json.dumps(content))
    >>> for i in (1, 2):
    ...     Image.new("RGB", (32, 32)).save(f"{i}.png")
    >>> data = CocoRemovals("cats.json", ".", size=32)
    >>> data.with_class("cat").tolist(), tuple(data.masks("cat", [1]).shape)
    ([1], (1, 1, 32, 32))
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        size: int = 256,
        classes: Sequence[str] | None = None,
        skip_invalid: bool = False,
    ) -> None:
        Whole(16).check("size", size)
        self.folder = Path(folder)
        if not os.path.isdir(self.folder):
            raise InputError(f"{self.folder} is no folder of images.", code="CL-INPUT-FILE")
        self._coco = open_annotations(Path(annotations))
        names = {c["name"]: int(c["id"]) for c in self._coco.dataset["categories"]}
        self.name = Path(annotations).stem
        self.size = (size, size)
        self.class_names = tuple(names)
        for name in classes or ():
            self.check_class(name)
        self.concepts = tuple(names)
        self._categories = names
        self.class_names = tuple(classes) if classes else tuple(names)
        self._masks: dict[tuple[str, int], np.ndarray] = {}
        checked = self.class_names if skip_invalid else ()
        self._invalid = {name: self._without_mask(name) for name in checked}
        self.left_out = {name: len(ids) for name, ids in self._invalid.items() if ids}
        if self.left_out:
            counts = ", ".join(f"{name} {n}" for name, n in self.left_out.items())
            warnings.warn(
                f"{annotations}: annotations without a mask that can be read ({counts}); their "
                "images are left out of these classes.",
                stacklevel=2,
            )

    def with_class(self, name: str, *, min_area: float = 0.0, max_area: float = 1.0) -> np.ndarray:
        """Give the images that hold the class within these shares of the area, (n,) int64."""
        self.check_class(name)
        found = []
        left = set(self._invalid.get(name, ()))
        for index in sorted(self._coco.getImgIds(catIds=[self._categories[name]])):
            if index in left:
                continue
            kinds = self._annotations(name, index)
            if all(a.get("iscrowd") or a.get("ignore") for a in kinds):
                continue
            share = float(self._mask(name, index).mean())
            if share > 0 and min_area <= share <= max_area:
                found.append(index)
        return np.array(found, dtype=np.int64)

    def without_class(self, name: str) -> np.ndarray:
        """Give the images without any instance or crowd of the class, (n,) int64."""
        self.check_class(name)
        holds = set(self._coco.getImgIds(catIds=[self._categories[name]]))
        return np.array(sorted(set(self._coco.getImgIds()) - holds), dtype=np.int64)

    def images(self, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Read images, (n, 3, H, W) float32 in [0, 1]."""
        return as_image_batch([self._picture(int(i)) for i in ids], size=self.size)

    def masks(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Give the union of the masks of all instances of the class, (n, 1, H, W) bool."""
        self.check_class(name)
        found = [self._mask(name, int(i)) for i in ids]
        return np.stack(found)[:, None] if found else np.zeros((0, 1, *self.size), bool)

    def label(self, index: int) -> str:
        """Give the file's name."""
        return str(self._coco.loadImgs(int(index))[0]["file_name"])

    def _picture(self, index: int) -> Image:
        info = self._coco.loadImgs(index)[0]
        file = self.folder / info["file_name"]
        if not os.path.isfile(file):
            raise InputError(
                f"{file} is named by the annotations and is not there.", code="CL-INPUT-FILE"
            )
        picture = decode(file_bytes(file), str(file))
        if picture.size != (info["width"], info["height"]):
            raise InputError(
                f"{file} is {picture.width} × {picture.height} pixels (width × height, upright as "
                f"EXIF says), and the annotations say {info['width']} × {info['height']}. Annotate "
                "the picture as it is shown, or take the file that was annotated.",
                code="CL-INPUT-SHAPE",
            )
        return picture

    def _without_mask(self, name: str) -> list[int]:
        """Give the image of each annotation of a class that has no mask."""
        found = []
        for number in self._coco.getAnnIds(catIds=[self._categories[name]]):
            annotation = self._coco.anns[number]
            try:
                check_segmentation(self._coco.imgs[annotation["image_id"]], annotation)
            except ValueError:
                found.append(annotation["image_id"])
        return found

    def _annotations(self, name: str, index: int) -> list[dict[str, Any]]:
        ids = self._coco.getAnnIds(imgIds=[index], catIds=[self._categories[name]])
        return list(self._coco.loadAnns(ids))

    def _mask(self, name: str, index: int) -> np.ndarray:
        key = (name, index)
        if key not in self._masks:
            info = self._coco.loadImgs(index)[0]
            union = np.zeros((info["height"], info["width"]), dtype=bool)
            for annotation in self._annotations(name, index):
                union |= mask_of(self._coco, annotation)
            self._masks[key] = np.packbits(fit_mask(union, self.size))
        flat = np.unpackbits(self._masks[key], count=self.size[0] * self.size[1])
        return flat.reshape(self.size).astype(bool)


def fit_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale and crop a mask (h, w) as :func:`as_image_batch` does with its image.

    A pixel of the answer belongs to the hole when any part of it does, so that no rim of the
    object stays outside by rounding.

    Parameters
    ----------
    mask : ndarray of shape (h, w), bool
        At the image's own size.
    size : (int, int)
        Height and width of the answer.

    Returns
    -------
    ndarray of shape (height, width), bool
    """
    from PIL import Image

    picture = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    shown = as_image_batch([picture], size=size)[0, 0]
    return np.asarray((shown > 0.02).numpy())
