"""How well maps point at objects whose place is known."""

from __future__ import annotations

__all__ = ["energy_pointing", "pointing_game"]


import numpy as np

from conceptlab.arrays import ArrayLike, as_floats, as_numpy
from conceptlab.errors import InputError


def energy_pointing(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """Measure the share of a map's positive energy inside the object.

    The energy-based pointing game of Wang et al., *Score-CAM*, CVPR workshops
    2020, equation 9.

    Parameters
    ----------
    maps : array-like of shape (..., height, width)
        Such as (n, k, height, width). Negative values do not count.
    masks : array-like of shape (..., height, width), bool
        Broadcast against `maps`: one mask for each image, (n, 1, height, width),
        or one for each image and concept. (n, height, width) beside maps of four
        axes is read as (n, 1, height, width).

    Returns
    -------
    numpy.ndarray of shape (...)
        In [0, 1]; NaN where the map has no positive value.

    Examples
    --------
    >>> float(energy_pointing([[3.0, 1.0], [0.0, -5.0]], [[True, False], [False, True]]))
    0.75
    """
    values, inside = _matched(maps, masks)
    energy = np.maximum(values, 0)
    total = energy.sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (energy * inside).sum((-2, -1)) / total
    return np.asarray(np.where(total > 0, share, np.nan))


def pointing_game(maps: ArrayLike, masks: ArrayLike, *, tolerance: int = 0) -> np.ndarray:
    """Tell whether the largest value of a map lies on the object.

    Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016.

    Parameters
    ----------
    maps, masks : array-like
        As for :func:`energy_pointing`.
    tolerance : int
        Pixels by which the point may miss the object, along rows or columns.

    Returns
    -------
    numpy.ndarray of shape (...), float64
        1.0 or 0.0; NaN for constant maps, which point nowhere.

    Examples
    --------
    >>> masks = np.zeros((2, 4, 4), dtype=bool)
    >>> masks[0, :2] = True
    >>> maps = np.zeros((2, 4, 4))
    >>> maps[:, 0, 1] = 1.0
    >>> pointing_game(maps, masks)
    array([1., 0.])
    """
    values, inside = _matched(maps, masks)
    flat = values.reshape(*values.shape[:-2], -1)
    place = flat.argmax(-1)
    constant = flat.max(-1) == flat.min(-1)
    if tolerance > 0:
        from scipy.ndimage import maximum_filter

        size = [1] * (inside.ndim - 2) + [2 * tolerance + 1] * 2
        inside = maximum_filter(inside.astype(np.uint8), size=size) > 0
    hit = np.take_along_axis(inside.reshape(*inside.shape[:-2], -1), place[..., None], -1)[..., 0]
    return np.asarray(np.where(constant, np.nan, hit.astype(np.float64)))


def _matched(maps: ArrayLike, masks: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values = as_floats(maps, "maps")
    inside = as_numpy(masks).astype(bool)
    if values.ndim < 2 or inside.ndim < 2 or values.shape[-2:] != inside.shape[-2:]:
        raise InputError(
            f"Maps {values.shape} and masks {inside.shape} must end in the same height and width. "
            "Resize one of them.",
            code="CL-INPUT-SHAPE",
        )
    if values.ndim == 4 and inside.ndim == 3:
        inside = inside[:, None]
    try:
        shape = np.broadcast_shapes(values.shape, inside.shape)
    except ValueError as error:
        raise InputError(
            f"Maps {values.shape} and masks {inside.shape} do not belong together: expected one "
            "mask for each image, or for each image and concept.",
            code="CL-INPUT-SHAPE",
        ) from error
    return np.broadcast_to(values, shape), np.broadcast_to(inside, shape)
