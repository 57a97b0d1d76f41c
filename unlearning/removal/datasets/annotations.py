"""Files of annotations, checked before the code in C that draws their masks sees them."""

from __future__ import annotations

__all__ = ["mask_of", "open_annotations"]

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from conceptlab.errors import InputError
from conceptlab.io.reading import read_plain_file, strict_json
from unlearning.removal.removers.opencv import require

FILE_LIMIT = 2**33
LONGEST_SIDE = 2**15
_TABLES: dict[str, dict[str, Any]] = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int | str, "image_id": int, "category_id": int},
}


def open_annotations(path: Path) -> Any:
    """Read instance annotations in the format of COCO.

    Parameters
    ----------
    path : pathlib.Path
        The JSON file.

    Returns
    -------
    pycocotools.coco.COCO

    Raises
    ------
    InputError
        Missing, no JSON, or without what is needed; pictures outside their folder; two
        categories of one name (``CL-INPUT-FILE``).
    DependencyError
        Without pycocotools.
    """
    COCO = require("pycocotools.coco", "pycocotools").COCO
    try:
        data = strict_json(read_plain_file(path, limit=FILE_LIMIT))
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror or error}.", error)
    except ValueError as error:
        _refuse(f"{path} is no JSON: {error}.", error)
    missing = [
        n for n in _TABLES if not isinstance(data, dict) or not isinstance(data.get(n), list)
    ]
    if missing:
        _refuse(
            f"{path} lacks the lists {', '.join(missing)}; expected instance annotations in COCO's "
            "format."
        )
    for name, fields in _TABLES.items():
        _check_table(path, name, data[name], fields)
    for image in data["images"]:
        _check_image(path, image)
    names = [category["name"] for category in data["categories"]]
    if len(set(names)) < len(names):
        twice = next(n for place, n in enumerate(names) if n in names[:place])
        _refuse(f"{path} has two categories named {twice[:60]!r}. Merge them, or rename one.")
    known = {image["id"] for image in data["images"]}
    for annotation in data["annotations"]:
        if annotation["image_id"] not in known:
            _refuse(
                f"{path}: annotation {annotation['id']!r:.40} is of image "
                f"{annotation['image_id']!r:.40}, which is not listed."
            )
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints as it goes
        coco.createIndex()
    return coco


def mask_of(coco: Any, annotation: Mapping[str, Any]) -> np.ndarray:
    """Draw the mask of an annotation.

    Parameters
    ----------
    coco : pycocotools.coco.COCO
        From :func:`open_annotations`.
    annotation : dict
        With ``segmentation``: polygons, or run-lengths.

    Returns
    -------
    ndarray of shape (height, width), bool

    Raises
    ------
    InputError
        A segmentation that is not in the format (``CL-INPUT-FILE``).
    """
    image = coco.imgs[annotation["image_id"]]
    height, width = image["height"], image["width"]
    shape = annotation.get("segmentation")
    try:
        if isinstance(shape, list):
            _check_polygons(shape, 2 * max(height, width))
        elif isinstance(shape, dict):
            _check_run_lengths(shape, height, width)
        else:
            raise ValueError("segmentation must be polygons or run-lengths")
        return np.asarray(coco.annToMask(annotation), dtype=bool)
    except Exception as error:  # of the library: several kinds
        _refuse(
            f"Annotation {annotation['id']!r:.40} of image {image['file_name']!r:.80} has no mask "
            f"that can be read: {error}.",
            error,
        )


def _check_table(path: Path, name: str, rows: list[Any], fields: Mapping[str, Any]) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            _refuse(f"{path}: {name}[{number}] is a {type(row).__name__}, expected a table.")
        for field, kind in fields.items():
            if not isinstance(row.get(field), kind) or isinstance(row[field], bool):
                what = repr(row[field])[:40] if field in row else "nothing"
                _refuse(f"{path}: {name}[{number}] has {what} as {field!r}.")


def _check_image(path: Path, image: Mapping[str, Any]) -> None:
    name = image["file_name"]
    place = PurePosixPath(name.replace("\\", "/"))
    if not name or place.is_absolute() or ".." in place.parts or "\0" in name or ":" in name[:2]:
        _refuse(f"{path} names the picture {name[:80]!r}, which lies outside its folder.")
    if (
        not 1
        <= min(image["height"], image["width"])
        <= max(image["height"], image["width"])
        <= LONGEST_SIDE
    ):
        _refuse(
            f"{path}: image {image['id']!r:.40} is {image['height']} × {image['width']} pixels; "
            f"sides of 1 to {LONGEST_SIDE} are read."
        )


def _check_polygons(polygons: list[Any], farthest: int) -> None:
    if not polygons:
        raise ValueError("segmentation is empty")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon must be a list of x, y, x, y, ... of three points or more")
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in polygon):
            raise ValueError("a polygon must hold finite numbers")
        # Memory is taken for every pixel of an outline, also of those far outside.
        if max(map(abs, polygon)) > farthest:
            raise ValueError("a polygon lies far outside the image")


def _check_run_lengths(shape: Mapping[str, Any], height: int, width: int) -> None:
    if shape.get("size") != [height, width]:
        raise ValueError(f"its size is {shape.get('size')!r:.40}, the image's [{height}, {width}]")
    counts = shape.get("counts")
    if isinstance(counts, str):
        return  # the library checks that they add up
    if not isinstance(counts, list) or not _add_up(counts, height * width):
        raise ValueError(f"its counts are no lengths that add up to {height * width}")


def _add_up(counts: Iterable[Any], total: int) -> bool:
    return all(type(n) is int and 0 <= n <= total for n in counts) and sum(counts) == total


def _refuse(message: str, error: Exception | None = None) -> NoReturn:
    raise InputError(message, code="CL-INPUT-FILE") from error
