"""Fréchet distance in the space of named concepts, split exactly by concept."""

from __future__ import annotations

__all__ = ["ConceptShift", "concept_fid"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError, unknown_name
from unlearning.distances.features import Features, feature_pair
from unlearning.distances.rows import check_pair

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ConceptShift:
    """What removed images have too much or too little of.

    Attributes
    ----------
    names : tuple of str
        The concepts.
    target : str or None
        The one that was to be removed.
    distance : float
        Fréchet distance over all concepts.
    contributions : ndarray of shape (k,), float64
        Not negative; they add up to `distance`.
    shift : ndarray of shape (k,), float64
        Mean of the removed images minus that of the comparison set: above 0 for what is
        left or hallucinated, below 0 for what is lost. Their squares add up to |m1 - m2|².
    removal : float
        Fréchet distance in the target alone; NaN without target.
    collateral : float
        Fréchet distance in all the other concepts.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = concept_fid(rng.normal(size=(50, 2)), rng.normal(size=(50, 2)), ["red", "star"])
    >>> found.names, found.contributions.shape
    (('red', 'star'), (2,))
    """

    names: tuple[str, ...]
    target: str | None
    distance: float
    contributions: np.ndarray
    shift: np.ndarray
    removal: float
    collateral: float

    def to_frame(self) -> pd.DataFrame:
        """Tabulate the concepts, the largest contribution first.

        Returns
        -------
        pandas.DataFrame
            Columns ``concept``, ``shift``, ``contribution``, ``share`` and ``target``.
        """
        import pandas as pd

        frame = pd.DataFrame(
            {
                "concept": self.names,
                "shift": self.shift,
                "contribution": self.contributions,
                "share": self.contributions / max(self.distance, 1e-300),
                "target": [name == self.target for name in self.names],
            }
        )
        return frame.sort_values("contribution", ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        return (
            f"ConceptShift({len(self.names)} concepts, distance {self.distance:.4g}, removal "
            f"{self.removal:.4g}, collateral {self.collateral:.4g})"
        )


def concept_fid(
    X: ArrayLike,
    Y: ArrayLike,
    names: Sequence[str],
    *,
    target: str | None = None,
    standardize: bool = True,
) -> ConceptShift:
    """Compute the Fréchet distance of concept scores and what each concept brings to it.

    Parameters
    ----------
    X : array-like of shape (n, k), or Features
        Concept scores of removed images, such as ``bank.score(features)``.
    Y : array-like of shape (m, k), or Features
        The same of the comparison set.
    names : sequence of str
        The k concepts.
    target : str, optional
        The concept that was removed.
    standardize : bool
        Whether scores are divided by their standard deviation in Y, so that concepts
        count alike.

    Returns
    -------
    ConceptShift

    Raises
    ------
    InputError
        Shapes that do not fit the names, or a target that is none of them.

    Notes
    -----
    The distance is E|x - y|² under the optimal coupling of the two normal laws, whose
    cross-covariance is F1 (P Qᵀ) F2ᵀ for factors C = F Fᵀ and F1ᵀ F2 = P S Qᵀ. A sum over
    coordinates is in it already: concept i brings (m1 - m2)_i² + C1_ii + C2_ii - 2
    cov(x_i, y_i), which is an expected square and so never negative. With k far below n
    few images are enough.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.normal(size=(500, 3))
    >>> X = rng.normal(size=(500, 3)) + np.array([0.0, 2.0, 0.0])
    >>> found = concept_fid(X, Y, ["red", "star", "grass"], target="star")
    >>> found.to_frame().concept[0], bool(np.isclose(found.contributions.sum(), found.distance))
    ('star', True)
    """
    first, second = (part.rows for part in feature_pair(X, Y))
    check_pair(first, second)
    labels = tuple(str(name) for name in names)
    if len(labels) != first.shape[1]:
        raise InputError(
            f"{len(labels)} names for {first.shape[1]} concept scores.", code="CL-INPUT-SHAPE"
        )
    if target is not None and target not in labels:
        raise unknown_name("concept", target, labels)
    if standardize:
        spread = second.std(dim=0)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        first, second = first / spread, second / spread
    shift = first.mean(dim=0) - second.mean(dim=0)
    contributions = _split(first, second)
    rest = [i for i, name in enumerate(labels) if name != target]
    only = [i for i, name in enumerate(labels) if name == target]
    return ConceptShift(
        names=labels,
        target=target,
        distance=float(contributions.sum()),
        contributions=contributions.numpy(),
        shift=shift.numpy(),
        removal=float(_split(first[:, only], second[:, only]).sum()) if only else float("nan"),
        collateral=float(_split(first[:, rest], second[:, rest]).sum()) if rest else 0.0,
    )


def _split(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    first, second = Features(X).statistics, Features(Y).statistics
    F, G = first.factor(), second.factor()
    own = first.covariance_.diagonal() + second.covariance_.diagonal()
    if F.shape[1] and G.shape[1]:
        P, _, Q = torch.linalg.svd(F.T @ G, full_matrices=False)
        own = own - 2 * ((F @ P) * (G @ Q.T)).sum(dim=1)
    return (first.mean_ - second.mean_).square() + own.clamp_min(0)
