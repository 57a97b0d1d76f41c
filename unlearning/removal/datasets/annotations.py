"""Files of annotations, checked before the code in C that draws their masks sees them."""

from __future__ import annotations

__all__ = ["check_segmentation", "mask_of", "open_annotations"]

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
    "images": {"id": int | str, "file_name": str, "height": int, "width": int},
    "categories": {"id": int | str, "name": str},
    "annotations": {"id": int | str, "image_id": int | str, "category_id": int | str},
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
    twice = _repeated(category["name"] for category in data["categories"])
    if twice is not None:
        _refuse(f"{path} has two categories named {twice[:60]!r}. Merge them, or rename one.")
    for name in _TABLES:  # the library would keep the last of them
        twice = _repeated(row["id"] for row in data[name])
        if twice is not None:
            _refuse(
                f"{path} has two {name} of the id {twice!r:.40}. Number them again, so that each "
                "has an id of its own."
            )
    twice = _repeated(image["file_name"] for image in data["images"])
    if twice is not None:  # one of them may look free of what the other shows
        _refuse(
            f"{path} has two images of the file {twice[:80]!r}. Put their annotations together."
        )
    data = _numbered(path, data)
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints as it goes
        coco.createIndex()
    return coco


def _repeated(ids: Iterable[Any]) -> Any:
    seen = set()
    for one in ids:
        if one in seen:
            return one
        seen.add(one)
    return None


def _numbered(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Check what annotations refer to, and put numbers in the place of ids that are texts."""
    ids = {
        name: {row["id"]: row["id"] for row in data[name]}
        if all(isinstance(row["id"], int) for row in data[name])
        else {row["id"]: number for number, row in enumerate(data[name])}
        for name in ("images", "categories")
    }
    found = []
    for row in data["annotations"]:
        for field, name in (("image_id", "images"), ("category_id", "categories")):
            if row[field] not in ids[name]:
                _refuse(
                    f"{path}: annotation {row['id']!r:.40} has the {field} {row[field]!r:.40}, "
                    f"which is none of the ids of {name}. Numbers and texts differ: 1 is not '1'."
                )
        image, category = ids["images"][row["image_id"]], ids["categories"][row["category_id"]]
        found.append({**row, "image_id": image, "category_id": category})
    tables = {name: [{**row, "id": ids[name][row["id"]]} for row in data[name]] for name in ids}
    return {**data, **tables, "annotations": found}


def check_segmentation(image: Mapping[str, Any], annotation: Mapping[str, Any]) -> None:
    """Raise a ValueError where an annotation has no mask: boxes, lines, points, no numbers.

    Parameters
    ----------
    image, annotation : dict
        Rows of the file.
    """
    shape = annotation.get("segmentation")
    height, width = image["height"], image["width"]
    if isinstance(shape, list):
        _check_polygons(shape, 2 * max(height, width))
    elif isinstance(shape, dict):
        _check_run_lengths(shape, height, width)
    else:
        raise ValueError("segmentation must be polygons or run-lengths")


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
    try:
        check_segmentation(image, annotation)
        return np.asarray(coco.annToMask(annotation), dtype=bool)
    except Exception as error:  # of the library: several kinds
        _refuse(
            f"Annotation {annotation['id']!r:.40} of image {image['file_name']!r:.80} has no mask "
            f"that can be read: {error}. Leave such images out with skip_invalid=True.",
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
