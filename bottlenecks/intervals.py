"""Intervals of shares, differences and areas, and the rank of a figure among random ones."""

from __future__ import annotations

__all__ = [
    "auc_intervals",
    "mean_interval",
    "paired_interval",
    "rank_p_value",
    "weighted_quantiles",
    "wilson_interval",
]

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import norm, rankdata

from conceptlab.arrays import ArrayLike
from conceptlab.seeds import numpy_generator

Interval = tuple[float, float]


def wilson_interval(n_right: float, n: int, confidence: float = 0.95) -> Interval:
    """Give the score interval of Wilson (1927) for a share.

    Parameters
    ----------
    n_right, n : int
        Successes, and trials.
    confidence : float
        Level.

    Returns
    -------
    low, high : float
        Inside [0, 1], also where all trials end alike.

    Examples
    --------
    >>> [round(v, 3) for v in wilson_interval(90, 100)]
    [0.826, 0.945]
    """
    z = float(norm.ppf((1 + confidence) / 2))
    share, weight = n_right / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the normal interval of a mean over rows.

    Parameters
    ----------
    values : ndarray of shape (n,)
    confidence : float

    Returns
    -------
    low, high : float
    """
    values = np.asarray(values, dtype=np.float64)
    z = float(norm.ppf((1 + confidence) / 2))
    half = z * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean() - half), float(values.mean() + half)


def paired_interval(
    figure: Callable[[np.ndarray], np.ndarray],
    n: int,
    confidence: float = 0.95,
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Give the percentile interval of a figure over rows that are drawn again.

    Parameters
    ----------
    figure : callable
        (n_bootstrap, n) how often each row was drawn, -> (n_bootstrap,) the figure. All its
        parts see the same rows, so it is paired.
    n : int
        Rows.
    confidence : float
    n_bootstrap, seed : int

    Returns
    -------
    low, high : float
    """
    counts = numpy_generator(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    values = figure(counts)
    share = (1 - confidence) / 2
    low, high = (
        np.nanquantile(values, [share, 1 - share])
        if not np.isnan(values).all()
        else (
            np.nan,
            np.nan,
        )
    )
    return float(low), float(high)


def auc_intervals(
    scores: np.ndarray, present: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, Interval]:
    """Give intervals of areas under ROC curves, and of their mean, after DeLong et al. (1988).

    Parameters
    ----------
    scores : ndarray of shape (n, k)
        Score j ranks rows for concept j.
    present : ndarray of shape (n, k), bool
        Both kinds in every column.
    confidence : float

    Returns
    -------
    each : ndarray of shape (k, 2)
        Low and high, cut to [0, 1].
    mean : (float, float)
        Of the mean area; that the areas share rows is counted.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c = rng.random((200, 1)) < 0.5
    >>> each, mean = auc_intervals(c + rng.normal(size=c.shape), c)
    >>> bool(each[0, 0] < 0.76 < each[0, 1]), bool(np.allclose(each[0], mean))
    (True, True)
    """
    n, k = scores.shape
    z = float(norm.ppf((1 + confidence) / 2))
    parts = np.zeros((n, k))  # what each row adds to the area, less its mean
    areas = np.zeros(k)
    for j in range(k):
        on = present[:, j]
        m, rest = int(on.sum()), int((~on).sum())
        whole = rankdata(scores[:, j])
        above = (whole[on] - rankdata(scores[on, j])) / rest
        below = 1 - (whole[~on] - rankdata(scores[~on, j])) / m
        areas[j] = above.mean()
        parts[on, j] = (above - areas[j]) / np.sqrt(m * max(m - 1, 1))
        parts[~on, j] = (below - areas[j]) / np.sqrt(rest * max(rest - 1, 1))
    half = z * np.sqrt((parts**2).sum(axis=0))
    each = np.clip(np.stack([areas - half, areas + half], axis=1), 0, 1)
    spread = z * float(np.sqrt((parts.mean(axis=1) ** 2).sum()))
    mean = float(areas.mean())
    return each, (max(0.0, mean - spread), min(1.0, mean + spread))


def rank_p_value(value: float, null: np.ndarray) -> float:
    """Give the share of random draws, this value included, that reach it.

    Parameters
    ----------
    value : float
    null : ndarray of shape (m,)

    Returns
    -------
    float
        At least 1 / (m + 1); NaN without draws or value.

    Examples
    --------
    >>> rank_p_value(0.9, np.linspace(0.1, 0.5, 39))
    0.025
    """
    if not len(null) or np.isnan(value):
        return float("nan")
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))


def weighted_quantiles(
    values: np.ndarray, levels: Sequence[float], weights: np.ndarray | None = None
) -> np.ndarray:
    """Give quantiles of columns over weighted rows.

    Parameters
    ----------
    values : ndarray of shape (n, k)
    levels : sequence of m float
    weights : ndarray of shape (n,), optional
        At least 0; a row of weight 2 is as good as two rows. Without, values between two
        neighbours are interpolated; with, the first value whose rows reach the level is taken.

    Returns
    -------
    ndarray of shape (k, m)

    Examples
    --------
    >>> rows = np.array([[1.0], [2.0], [9.0]])
    >>> weighted_quantiles(rows, (0.5,)), weighted_quantiles(rows, (0.5,), np.array([1, 0, 2]))
    (array([[2.]]), array([[9.]]))
    """
    if weights is None:
        return np.quantile(values, levels, axis=0).T
    order = np.argsort(values, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0) / weights.sum()
    found = np.empty((values.shape[1], len(levels)))
    for place, level in enumerate(levels):
        first = (reached >= level - 1e-12).argmax(axis=0)
        found[:, place] = values[order[first, np.arange(values.shape[1])], range(values.shape[1])]
    return found
