"""Reference-free scores that look about each hole, and at what is new inside it."""

from __future__ import annotations

__all__ = ["Deviation", "context_deviation", "removal_coherence", "segment_colours"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from conceptlab.arrays import ArrayLike, as_floats, as_numpy, as_tensor, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import Rules, Whole
from unlearning.removal.masks import as_masks
from unlearning.removal.removers.opencv import require

_RULES = Rules(side=Whole(32))
_NESTED, _SAME = 0.9, 0.8  # of a segment inside another; of two that are one
_NEAR = 6  # pixels between neighbours
_FEW = 5  # cells that either side of a window must exceed


@dataclass(frozen=True)
class Deviation:
    """How far fills depart from what is about them, image by image; lower is better.

    Attributes
    ----------
    total : numpy.ndarray of shape (n,), float64
        CFD, the sum of the two below.
    context : numpy.ndarray of shape (n,), float64
        One minus the cosine of hole and surroundings, in [0, 2].
    hallucination : numpy.ndarray of shape (n,), float64
        The same of segments that lie in the hole alone and of what reaches into it from
        outside, by area; 0 where there is no such segment.

    Examples
    --------
    >>> Deviation(np.array([0.3]), np.array([0.2]), np.array([0.1])).context
    array([0.2])
    """

    total: np.ndarray
    context: np.ndarray
    hallucination: np.ndarray


def context_deviation(
    images: ArrayLike,
    masks: ArrayLike,
    maps: ArrayLike,
    *,
    segments: Callable[[np.ndarray], Any] | None = None,
) -> Deviation:
    """Compare each hole with its surroundings, and new things in it with what they lie beside.

    Parameters
    ----------
    images : array-like of shape (n, 3, H, W), floats in [0, 1]
        After the removal.
    masks : array-like of shape (n, 1, H, W), bool
        The holes.
    maps : array-like of shape (n, c, h, w)
        A feature map of each image; published are the patches of DINOv2.
    segments : callable, optional
        From one image (3, H, W) to numbers of its segments (H, W), or a list of masks, such as
        those of SAM; :func:`segment_colours` by default.

    Returns
    -------
    Deviation

    Raises
    ------
    InputError
        Arrays that do not fit; segments of another size.

    Notes
    -----
    Yu et al., *OmniPaint*, ICCV 2025 (arXiv 2503.08677), CFD = d_context + d_hallucination.
    The first compares the hole with the rest of its bounding box, grown by a third on
    every side. For the second, segments wholly in the hole are compared with the part in the
    hole of those segments beside them that reach over its rim, weighted by area. Holes in several
    pieces are scored piece by piece and averaged.

    What differs from the published score: segments are those of colours unless you give
    SAM's, features of regions are averages of `maps` by the area that a region covers of each
    cell, where the authors encode every segment anew on white, and no class token is added.

    Examples
    --------
    >>> mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    >>> mask[..., 8:24, 8:24] = True
    >>> image = torch.full((1, 3, 32, 32), 0.5)
    >>> found = context_deviation(image, mask, image, segments=lambda x: np.zeros((32, 32), int))
    >>> bool(abs(found.total) < 1e-6)
    True
    """
    pictures, holes = as_tensor(images).detach(), as_masks(masks)
    features = as_tensor(maps).detach().double().cpu()
    _check(pictures, holes, features)
    find = segment_colours if segments is None else segments
    rows = []
    for picture, hole, values in zip(as_numpy(pictures), holes[:, 0], features, strict=True):
        regions = _segments(find(picture), hole.shape)
        pieces = [_deviation(piece, regions, values) for piece in _pieces(as_numpy(hole))]
        rows.append(np.mean(pieces, axis=0))
    context, hallucination = np.array(rows).T
    return Deviation(context + hallucination, context, hallucination)


def segment_colours(image: np.ndarray) -> np.ndarray:
    """Cut a picture into regions of alike colour (Felzenszwalb and Huttenlocher 2004).

    Parameters
    ----------
    image : numpy.ndarray of shape (3, H, W), floats in [0, 1]
        One picture.

    Returns
    -------
    numpy.ndarray of shape (H, W), int64
        The number of each pixel's region.

    Raises
    ------
    DependencyError
        If scikit-image is missing (``CL-DEPENDENCY-MISSING``).
    InputError
        For what is no picture.

    Examples
    --------
    >>> image = np.zeros((3, 64, 64), np.float32)
    >>> image[:, :, 32:] = 1
    >>> numbers = segment_colours(image)
    >>> bool(numbers[0, 0] != numbers[0, -1])
    True
    """
    cut = require("skimage.segmentation", "scikit-image").felzenszwalb
    image = as_floats(image, "image")
    if image.ndim != 3:
        raise InputError(f"image must be (3, H, W), got {image.shape}.", code="CL-INPUT-RANK")
    check_finite(image, "image")
    least = max(image.shape[1] * image.shape[2] // 200, 20)
    return np.asarray(cut(image, scale=100, sigma=0.8, min_size=least, channel_axis=0))


def removal_coherence(
    images: ArrayLike,
    masks: ArrayLike,
    feature_map: Callable[[torch.Tensor], Any],
    *,
    side: int = 448,
) -> np.ndarray:
    """Compare features inside and outside the hole window by window (RC-S).

    Parameters
    ----------
    images : array-like of shape (n, 3, H, W), floats in [0, 1]
        After the removal.
    masks : array-like of shape (n, 1, H, W), bool
        The holes.
    feature_map : callable
        From images (m, 3, side, side) to maps (m, c, h, w); published are the patches of DINOv2
        at 448 pixels, 32 by 32.
    side : int
        To which squares about the holes are brought.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        In (0, 1], higher is better; NaN where no window has enough cells on either side.

    Raises
    ------
    InputError
        Arrays that do not fit; maps of fewer than 8 by 8 cells (``CL-INPUT-SHAPE``).

    Notes
    -----
    Li et al., *PROVE*, 2026 (arXiv 2605.14534). Of each piece of the hole with at least
    200 pixels (or as many as the largest has) a square, grown by a third, is encoded. Windows of a
    quarter of its side move by an eighth. In a window with more than five cells on either side
    these are compared by MMD² with a Gaussian kernel of width 10 on unit vectors, times 1000;
    a window wholly in the hole is compared with all cells outside. The score is
    exp(-mean / 3), averaged over pieces.

    The constants are those of the authors' code. Windows have at least four cells a side, so
    that coarser maps than theirs can be told. A kernel as wide as that sees little but the mean
    of the features.

    Examples
    --------
    >>> mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    >>> mask[..., 8:24, 8:24] = True
    >>> def colours(images):
    ...     return torch.nn.functional.adaptive_avg_pool2d(images, 16)
    >>> removal_coherence(torch.full((1, 3, 32, 32), 0.5), mask, colours, side=64)
    array([1.])
    """
    _RULES.check({"side": side})
    pictures, holes = as_tensor(images).detach(), as_masks(masks)
    _check(pictures, holes, None)
    found = np.full(len(pictures), np.nan)
    for number, (picture, hole) in enumerate(zip(pictures, holes, strict=True)):
        pieces = _pieces(as_numpy(hole[0]))
        largest = max((piece.sum() for piece in pieces), default=0)
        squares = [_square(piece) for piece in pieces if piece.sum() >= min(200, int(largest))]
        if not squares:
            continue
        cuts = [(slice(y, y + length), slice(x, x + length)) for y, x, length in squares]
        shown = [
            functional.interpolate(
                picture[None, :, rows, columns], (side, side), mode="bilinear", align_corners=False
            )
            for rows, columns in cuts
        ]
        with torch.no_grad():
            maps = as_tensor(feature_map(torch.cat(shown))).detach().double().cpu()
        _check_maps(maps, len(squares), least=8)
        scores = [
            _coherence(values, hole[:, rows, columns])
            for values, (rows, columns) in zip(maps, cuts, strict=True)
        ]
        told = [score for score in scores if not math.isnan(score)]
        found[number] = np.mean(told) if told else np.nan
    return found


def _deviation(
    hole: np.ndarray, regions: list[np.ndarray], values: torch.Tensor
) -> tuple[float, float]:
    """Give both terms for one piece of a hole."""
    from scipy.ndimage import maximum_filter

    rows, columns = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
    box = np.zeros_like(hole)
    margins = (len(range(rows[0], rows[-1] + 1)) // 3, len(range(columns[0], columns[-1] + 1)) // 3)
    box[
        max(rows[0] - margins[0], 0) : rows[-1] + 1 + margins[0],
        max(columns[0] - margins[1], 0) : columns[-1] + 1 + margins[1],
    ] = True
    around = box & ~hole
    context = _apart(hole, around, values) if around.any() else math.nan
    inside = [region for region in regions if not (region & ~hole).any()]
    across = [
        region & hole for region in regions if (region & ~hole).any() and (region & hole).any()
    ]
    total = sum(int(region.sum()) for region in inside)
    hallucination = 0.0
    for region in inside:
        near = maximum_filter(region, size=2 * _NEAR + 1)
        beside = [part for part in across if (part & near).any()]
        if beside:
            share = int(region.sum()) / total
            hallucination += share * _apart(region, np.logical_or.reduce(beside), values)
    return context, hallucination


def _apart(one: np.ndarray, other: np.ndarray, values: torch.Tensor) -> float:
    """Give one minus the cosine of two regions' features."""
    unit = functional.normalize(values, dim=0)
    both = torch.from_numpy(np.stack([one, other])).double()
    share = functional.adaptive_avg_pool2d(both[None], (unit.shape[1], unit.shape[2]))[0]
    means = torch.einsum("rhw,chw->rc", share, unit)
    return 1.0 - float(functional.cosine_similarity(means[0], means[1], dim=0))


def _segments(found: Any, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Read a map of numbers, or masks, of which those that lie in a larger one are left out."""
    if not isinstance(found, list | tuple):
        numbers = as_numpy(found)
        _same(numbers.shape, shape)
        return [numbers == number for number in np.unique(numbers)]
    kept: list[np.ndarray] = []
    for mask in sorted((as_numpy(m) > 0 for m in found), key=lambda m: -int(m.sum())):
        _same(mask.shape, shape)
        area = int(mask.sum())
        common = [(int((mask & other).sum()), int((mask | other).sum())) for other in kept]
        if area and not any(c > _NESTED * area or c > _SAME * u for c, u in common):
            kept.append(mask)
    return kept


def _same(found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if tuple(found) != tuple(shape):
        raise InputError(
            f"segments must have the picture's size {tuple(shape)}, got {tuple(found)}.",
            code="CL-INPUT-SHAPE",
        )


def _pieces(hole: np.ndarray) -> list[np.ndarray]:
    """Cut a hole into its connected pieces."""
    from scipy.ndimage import label

    numbers, n = label(hole)
    return [numbers == number for number in range(1, n + 1)]


def _square(hole: np.ndarray) -> tuple[int, int, int]:
    """Give (y, x, side) of the square about a hole, grown by a third as far as the picture goes."""
    spans = [np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0)]
    size = max(int(span[-1] - span[0]) + 1 for span in spans)
    middles = [(span[0] + span[-1] + 1) / 2 for span in spans]
    starts = [round(middle - size / 2) for middle in middles]
    ends = [n - (start + size) for start, n in zip(starts, hole.shape, strict=True)]
    more = max(min(round(size / 3), *starts, *ends, size // 2), 0)
    side = min(size + 2 * more, *hole.shape)
    y, x = (
        int(np.clip(start - more, 0, length - side))
        for start, length in zip(starts, hole.shape, strict=True)
    )
    return y, x, side


def _coherence(values: torch.Tensor, hole: torch.Tensor) -> float:
    """Give the score of one square from its map (c, h, w) and its hole (1, side, side)."""
    grid = values.shape[1:]
    inside = functional.adaptive_max_pool2d(hole[None].double(), grid)[0, 0] > 0
    unit = functional.normalize(values, dim=0)
    size = max(max(grid) // 4, 4)
    step = max(size // 2, 1)
    outside = unit[:, ~inside].T
    found = []
    for y in range(0, grid[0] - size + 1, step):
        for x in range(0, grid[1] - size + 1, step):
            window = inside[y : y + size, x : x + size]
            cells = unit[:, y : y + size, x : x + size]
            n, m = int(window.sum()), int((~window).sum())
            if n > _FEW and m > _FEW:
                found.append(_mmd(cells[:, window].T, cells[:, ~window].T))
            elif not m and len(outside):
                found.append(_mmd(cells[:, window].T, outside))
    return math.exp(-max(float(np.mean(found)), 0.0) / 3) if found else math.nan


def _mmd(X: torch.Tensor, Y: torch.Tensor) -> float:
    """Give 1000 MMD² of a Gaussian kernel of width 10, all pairs counted."""
    means = [
        float(torch.exp(-torch.cdist(a, b).square() / 200).mean())
        for a, b in ((X, X), (Y, Y), (X, Y))
    ]
    return 1000 * (means[0] + means[1] - 2 * means[2])


def _check(pictures: torch.Tensor, holes: torch.Tensor, maps: torch.Tensor | None) -> None:
    fits = pictures.ndim == 4 and pictures.shape[-2:] == holes.shape[-2:]
    if not fits or len(pictures) != len(holes):
        raise InputError(
            f"images have shape {tuple(pictures.shape)} for masks of {tuple(holes.shape)}; "
            "expected (n, 3, H, W) and (n, 1, H, W).",
            code="CL-INPUT-SHAPE",
        )
    empty = ~holes.flatten(1).any(dim=1)
    if bool(empty.any()):
        raise InputError(
            f"Mask {int(empty.nonzero()[0])} is empty, so there is no hole to look at.",
            code="CL-INPUT-EMPTY",
        )
    if maps is not None:
        _check_maps(maps, len(holes), least=1)


def _check_maps(maps: torch.Tensor, n: int, *, least: int) -> None:
    if maps.ndim != 4 or len(maps) != n or min(maps.shape[-2:]) < least:
        raise InputError(
            f"The feature map has shape {tuple(maps.shape)} for {n} pictures; expected (n, "
            f"channels, height, width) with at least {least} by {least} cells.",
            code="CL-INPUT-SHAPE",
        )
