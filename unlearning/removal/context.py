"""Choose comparison images whose surroundings are like those of the removed objects."""

from __future__ import annotations

__all__ = ["ContextCheck", "context_descriptor", "context_self_check", "match_context"]

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_floats, check_finite
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, numpy_generator
from unlearning.distances.fid import FewRowsWarning, frechet
from unlearning.removal.masks import as_masks


def context_descriptor(images: torch.Tensor, masks: ArrayLike) -> np.ndarray:
    """Describe what lies outside the masks: the mean colour.

    Parameters
    ----------
    images : Tensor of shape (n, 3, H, W), in [0, 1]
        The pictures.
    masks : array-like of shape (n, 1, H, W), bool
        What must not count.

    Returns
    -------
    ndarray of shape (n, 3), float64

    Notes
    -----
    It holds context and no texture on purpose: what a fill changes must not be matched on.
    """
    outside = (~as_masks(masks, like=images)).double()
    total = outside.sum(dim=(2, 3)).clamp_min(1)
    return np.asarray(((images.double() * outside).sum(dim=(2, 3)) / total).numpy())


def match_context(descriptors: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Assign to each image one of the pool, so that all descriptors together lie closest.

    Parameters
    ----------
    descriptors : ndarray of shape (n, q)
        Of the images with the class, outside their masks.
    pool : ndarray of shape (m, q)
        Of the images without, made with holes of the same kind; m at least n. Four times
        n leaves room to choose.

    Returns
    -------
    ndarray of shape (n,), int64
        Different places in the pool.

    Raises
    ------
    InputError
        If the pool is smaller than the set (``CL-INPUT-FEW``).

    Examples
    --------
    >>> match_context(np.array([[0.0], [1.0]]), np.array([[0.9], [5.0], [0.2]])).tolist()
    [2, 0]
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    rows, others = (as_floats(part, "descriptors") for part in (descriptors, pool))
    for part in (rows, others):
        if part.ndim != 2:
            raise InputError(
                f"Descriptors must be matrices, a row for each image, got shape {part.shape}.",
                code="CL-INPUT-RANK",
            )
        check_finite(part, "descriptors")
    if len(others) < len(rows):
        raise InputError(
            f"{len(rows)} images cannot be matched to {len(others)} without the class. Use "
            "fewer images with it, or match=False.",
            code="CL-INPUT-FEW",
        )
    spread = others.std(axis=0)
    spread[spread == 0] = 1
    cost = cdist(rows / spread, others / spread, "sqeuclidean")
    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


@dataclass(frozen=True)
class ContextCheck:
    """Whether matching itself makes or hides differences.

    Attributes
    ----------
    distance : float
        FID of one part of the class-free images to images matched to it.
    null : float
        What it should be: the bias of two samples of one law.
    ratio : float
        ``distance / null``; near 1 when matching is sound, below it when it matches on
        more than context.
    """

    distance: float
    null: float
    ratio: float


def context_self_check(
    descriptors: np.ndarray, features: np.ndarray, *, random_state: RandomState = 0
) -> ContextCheck:
    """Match class-free images to class-free images, with holes cut in both.

    Parameters
    ----------
    descriptors : ndarray of shape (m, q)
        Of class-free images, made with holes of the kind that removals have.
    features : ndarray of shape (m, d)
        Their features.
    random_state : int, RandomState, Generator or None
        Of the split.

    Returns
    -------
    ContextCheck
    """
    order = numpy_generator(random_state).permutation(len(features))
    few, many = np.sort(order[: len(order) // 4]), np.sort(order[len(order) // 4 :])
    chosen = many[match_context(descriptors[few], descriptors[many])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewRowsWarning)  # one law is what is asked for
        found = frechet(features[few], features[chosen])
    return ContextCheck(found.distance, found.null_bias, found.distance / found.null_bias)


def borrowed_masks(masks: ArrayLike, n: int, rng: np.random.Generator) -> torch.Tensor:
    """Give n masks drawn from those that there are."""
    holes = as_masks(masks)
    return holes[torch.from_numpy(rng.integers(len(holes), size=n))]
