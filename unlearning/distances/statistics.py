"""Intervals and comparisons: the bootstrap over images, paired over removers."""

from __future__ import annotations

__all__ = ["Comparison", "auc", "compare", "frechet_replicates", "resample_counts", "tied_ranks"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import as_floats
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, numpy_generator
from unlearning.distances.features import Features
from unlearning.distances.linalg import congruence, gram


def resample_counts(n: int, n_bootstrap: int, random_state: RandomState = 0) -> np.ndarray:
    """Draw how often each of n rows is taken by each bootstrap sample.

    Parameters
    ----------
    n : int
        Rows.
    n_bootstrap : int
        Samples.
    random_state : int, RandomState, Generator or None
        Of the draws.

    Returns
    -------
    ndarray of shape (n_bootstrap, n), float64
        Rows sum to n.
    """
    rng = numpy_generator(random_state)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float64)


def frechet_replicates(sets: Sequence[Any], Y: Any, V: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Compute the Fréchet distance of several sets to one, for every bootstrap sample.

    Parameters
    ----------
    sets : sequence of array-like of shape (n, d), or of Features
        Features of each remover's images, row by row of the same originals.
    Y : array-like of shape (m, d), or Features
        Features of the comparison set.
    V : ndarray of shape (b, n)
        Counts of the sets' rows, the same for all sets: the bootstrap is paired.
    W : ndarray of shape (b, m)
        Counts of the comparison set's rows.

    Returns
    -------
    ndarray of shape (len(sets), b), float64

    Notes
    -----
    A bootstrap sample has the bias of its size on top of the bias of the sample that it
    is drawn from. Intervals are therefore made by reflection about the estimate, which
    takes one bias away again; in differences of removers the biases cancel.
    """
    rows = [Features.of(X, "sets").rows for X in sets]
    other = Features.of(Y, "Y").rows
    # Features are centred for the digits' sake; distances do not see it.
    centre = other.mean(dim=0)
    rows, other = [X - centre for X in rows], other - centre
    out = np.empty((len(rows), len(V)))
    for b in range(len(V)):
        v, w = torch.from_numpy(V[b]).to(other), torch.from_numpy(W[b]).to(other)
        taken, kept = v > 0, w > 0
        B = _rows(other[kept], w[kept])
        second = _half(*B)
        for k, X in enumerate(rows):
            A = _rows(X[taken], v[taken])
            out[k, b] = _distance(A, B, second)
    return out


def _rows(X: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the weighted mean, and rows whose product is the unbiased covariance."""
    n = w.sum()
    mean = (w @ X) / n
    return mean, (X - mean) * (w / (n - 1)).sqrt()[:, None]


def _half(mean: torch.Tensor, rows: torch.Tensor) -> torch.Tensor | None:
    """Give the Cholesky factor of the covariance, or None where there are too few rows."""
    if len(rows) <= 1.2 * rows.shape[1]:
        return None
    lower, info = torch.linalg.cholesky_ex(gram(rows))
    return None if int(info) else lower


def _distance(
    A: tuple[torch.Tensor, torch.Tensor],
    B: tuple[torch.Tensor, torch.Tensor],
    lower: torch.Tensor | None,
) -> float:
    traces = A[1].square().sum() + B[1].square().sum()
    if lower is None:
        cross = torch.linalg.svdvals(A[1] @ B[1].T).sum()
    elif len(A[1]) <= A[1].shape[1]:
        cross = torch.linalg.svdvals(A[1] @ lower).sum()
    else:
        values = torch.linalg.eigvalsh(congruence(lower, gram(A[1])))
        cross = values.clamp_min(0).sqrt().sum()
    return max(float((A[0] - B[0]).square().sum() + traces - 2 * cross), 0.0)


def auc(
    scores: Any, reference: Any, V: np.ndarray | None = None, W: np.ndarray | None = None
) -> Any:
    """Compute the probability that a score exceeds a reference score, ties one half.

    Parameters
    ----------
    scores, reference : array-like of shape (n,)
        The numbers of entries may differ.
    V, W : ndarray of shape (b, n), optional
        Bootstrap counts of both; then the answer has shape (b,).

    Returns
    -------
    float or ndarray of shape (b,)

    Examples
    --------
    >>> auc([1.0, 2.0], [0.0, 1.0])
    0.875
    """
    first, second = (as_floats(part, "scores") for part in (scores, reference))
    if first.ndim != 1 or second.ndim != 1 or not len(first) or not len(second):
        raise InputError(
            f"AUC compares two lists of scores, got shapes {first.shape} and {second.shape}.",
            code="CL-INPUT-RANK",
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("AUC of scores with NaN or infinity.", code="CL-INPUT-NONFINITE")
    order = np.sort(second)
    below = np.searchsorted(order, first, side="left")
    upto = np.searchsorted(order, first, side="right")
    if V is None or W is None:
        return float((below + upto).mean() / (2 * len(second)))
    ranked = np.argsort(second, kind="stable")
    cumulative = np.concatenate([np.zeros((len(W), 1)), np.cumsum(W[:, ranked], axis=1)], axis=1)
    mass = (cumulative[:, below] + cumulative[:, upto]) / 2
    return (V * mass).sum(axis=1) / (V.sum(axis=1) * W.sum(axis=1))


@dataclass(frozen=True)
class Comparison:
    """The difference of two removers in one score.

    Attributes
    ----------
    difference : float
        First minus second.
    low, high : float
        Bootstrap interval of it.
    tied : bool
        Whether the interval holds 0.
    """

    difference: float
    low: float
    high: float
    tied: bool


def compare(
    values: np.ndarray, replicates: np.ndarray, *, confidence: float = 0.95
) -> list[list[Comparison]]:
    """Compare every pair of removers.

    Parameters
    ----------
    values : ndarray of shape (r,)
        A score of each remover.
    replicates : ndarray of shape (r, b)
        Its bootstrap replicates, column by column from the same images.
    confidence : float
        Level of each interval.

    Returns
    -------
    list of r lists of r Comparison
        The interval is the reflected one, 2 d - q(1 - a/2) to 2 d - q(a/2); where
        replicates do not differ, as of a remover with itself, it is [d, d].

    Examples
    --------
    >>> found = compare(np.array([1.0, 3.0]), np.array([[0.9, 1.1], [2.9, 3.1]]))
    >>> round(found[0][1].difference, 2), found[0][1].tied
    (-2.0, False)
    """
    tail = (1 - confidence) / 2
    table = []
    for i in range(len(values)):
        row = []
        for j in range(len(values)):
            difference = float(values[i] - values[j])
            low, high = np.quantile(replicates[i] - replicates[j], [tail, 1 - tail])
            low, high = float(2 * difference - high), float(2 * difference - low)
            low, high = min(low, high), max(low, high)
            row.append(Comparison(difference, low, high, bool(low <= 0 <= high)))
        table.append(row)
    return table


def tied_ranks(table: Sequence[Sequence[Comparison]], *, lower_is_better: bool) -> np.ndarray:
    """Give each remover the rank that the comparisons can prove.

    Parameters
    ----------
    table : list of lists of Comparison
        From :func:`compare`.
    lower_is_better : bool
        Direction of the score.

    Returns
    -------
    ndarray of shape (r,), int64
        One more than the number of removers that are surely better; equal ranks are ties.
    """
    sign = 1 if lower_is_better else -1
    better = [sum(not c.tied and sign * c.difference > 0 for c in row) for row in table]
    return 1 + np.array(better, dtype=np.int64)
