"""Is the class still to be seen where it was? By an image–text encoder."""

from __future__ import annotations

__all__ = ["Presence", "presence", "region_crops"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from conceptlab.arrays import ArrayLike, as_floats
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState
from unlearning.distances.statistics import auc, resample_counts
from unlearning.removal.masks import as_masks
from unlearning.removal.removers.controls import box


@dataclass(frozen=True)
class Presence:
    """How present a class is in the holes, against places where it never was.

    Attributes
    ----------
    auc : float
        Probability that a hole looks more of the class than a class-free place: 0.5 for a
        perfect removal, 1 while the object is there, below 0.5 for over-cleaned.
    low, high : float
        Bootstrap interval.
    removed_share : float
        (AUC of the originals - auc) / (AUC of the originals - 0.5); NaN when the originals
        are not told from class-free places.
    residue_rate : float
        Share of holes above the 95 % quantile of class-free places, minus 0.05.
    p_equivalence : float
        Two one-sided bootstrap tests that the AUC is off one half by the margin or more.
    gone : bool
        Whether the AUC is proved to lie within the margin of one half, at 5 %.
    margin : float
        The margin.

    Examples
    --------
    >>> found = presence(np.arange(20.0) / 10, np.arange(20.0) / 10, n_bootstrap=10)
    >>> found.auc
    0.5
    """

    auc: float
    low: float
    high: float
    removed_share: float
    residue_rate: float
    p_equivalence: float
    gone: bool
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON values."""
        return asdict(self)


def presence(
    scores: Any,
    reference: Any,
    originals: Any = None,
    *,
    margin: float = 0.05,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    random_state: RandomState = 0,
) -> Presence:
    """Judge how much of a class is left, from zero-shot scores.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Cosine to the class text of crops around the holes.
    reference : array-like of shape (m,)
        The same of class-free crops at places and sizes like the holes'.
    originals : array-like of shape (n,), optional
        The same of the crops before removal.
    margin : float
        How far from one half still counts as gone.
    confidence : float
        Level of the interval.
    n_bootstrap : int
        Bootstrap samples over both sets of images.
    random_state : int, RandomState, Generator or None
        Of the bootstrap.

    Returns
    -------
    Presence

    Notes
    -----
    A gate, not a ranking: once the object is gone all removers tie. That it is gone needs
    an equivalence test; a large p-value of a difference proves nothing.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = presence(rng.normal(size=4000), rng.normal(size=4000), rng.normal(3, 1, 4000))
    >>> found.gone, found.removed_share > 0.95
    (True, True)
    """
    if not 0 < margin < 0.5:
        raise InputError(f"margin must lie in (0, 0.5), got {margin}.", code="CL-INPUT-RANGE")
    first, second = (as_floats(part, "scores") for part in (scores, reference))
    value = float(auc(first, second))
    draws = auc(
        first,
        second,
        resample_counts(len(first), n_bootstrap, random_state),
        resample_counts(len(second), n_bootstrap, np.random.default_rng([7, _seed(random_state)])),
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    p = (1 + max((draws <= 0.5 - margin).sum(), (draws >= 0.5 + margin).sum())) / (1 + n_bootstrap)
    share = float("nan")
    if originals is not None:
        before = float(auc(originals, second))
        if before > 0.55:
            share = (before - value) / (before - 0.5)
    return Presence(
        auc=value,
        low=float(low),
        high=float(high),
        removed_share=share,
        residue_rate=float((first > np.quantile(second, 0.95)).mean() - 0.05),
        p_equivalence=float(p),
        gone=bool(p < 0.05),
        margin=margin,
    )


def _seed(random_state: RandomState) -> int:
    return int(random_state) if isinstance(random_state, int | np.integer) else 0


def region_crops(
    images: torch.Tensor,
    masks: ArrayLike,
    *,
    scale: float = 2.0,
    least: float = 0.25,
    size: int | Sequence[int] | None = None,
) -> torch.Tensor:
    """Cut a square around each mask and bring it to one size.

    Parameters
    ----------
    images : Tensor of shape (n, 3, H, W), in [0, 1]
        What to cut from.
    masks : array-like of shape (n, 1, H, W), bool
        Where; they need not belong to the same images.
    scale : float
        Side of the square in sides of the mask's box.
    least : float
        Least side in shares of the picture's shorter side.
    size : int or (int, int), optional
        Height and width of the answer; the picture's own by default.

    Returns
    -------
    Tensor of shape (n, 3, *size)
        Squares are moved, not cut, where they would leave the picture.
    """
    holes = as_masks(masks, like=images)
    height, width = images.shape[-2:]
    target = (height, width) if size is None else (size, size) if isinstance(size, int) else size
    out = images.new_empty(len(images), 3, *target)
    for i in range(len(images)):
        top, left, bottom, right = box(holes[i])
        side = max(scale * max(bottom - top, right - left), least * min(height, width))
        side = min(round(side), height, width)
        y = min(max(round((top + bottom - side) / 2), 0), height - side)
        x = min(max(round((left + right - side) / 2), 0), width - side)
        part = images[i : i + 1, :, y : y + side, x : x + side]
        out[i] = functional.interpolate(
            part, size=tuple(target), mode="bicubic", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    return out
