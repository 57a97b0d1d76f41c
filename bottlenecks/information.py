"""Mutual information of discrete and continuous variables."""

from __future__ import annotations

__all__ = ["equal_bins", "mutual_information", "pairwise_information", "plug_in", "variable"]

from typing import Any

import numpy as np
from scipy.special import xlogy
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from bottlenecks.measures import as_matrix
from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, draw_seed

_CELLS, _COLUMNS = 1 << 23, 64  # indicators of a block of columns
_DISCRETE = 20  # at most so many different values count as categories


def mutual_information(
    a: Any, b: Any, *, n_neighbors: int = 3, random_state: RandomState = 0
) -> float:
    """Estimate the mutual information of two variables in nats.

    Variables of at most 20 different values are discrete. Two discrete ones
    are counted (plug-in); otherwise the distances to nearest neighbours tell
    (Kraskov et al. 2004; Ross 2014 where one is discrete), as in scikit-learn.

    Parameters
    ----------
    a, b : array-like of shape (n,)
        Numbers, or labels of any kind.
    n_neighbors : int
        For continuous variables.
    random_state : optional
        Of the tiny noise that parts equal values.

    Returns
    -------
    float
        At least 0. The plug-in estimate is too large by about
        ``(r - 1)(s - 1) / 2n`` for r and s values.

    References
    ----------
    Kraskov, Stögbauer and Grassberger, Estimating mutual information, 2004.
    Ross, Mutual Information between Discrete and Continuous Data Sets, 2014.

    Examples
    --------
    >>> round(mutual_information([0, 0, 1, 1], ["x", "x", "y", "y"]), 4)  # one bit
    0.6931
    """
    x, x_codes = variable(a, "a")
    y, y_codes = variable(b, "b")
    if len(x) != len(y):
        raise InputError(
            f"a and b have {len(x)} and {len(y)} values; expected equally many.",
            code="CL-INPUT-SHAPE",
        )
    seed = draw_seed(random_state)
    if x_codes is not None and y_codes is not None:
        return plug_in(x_codes, y_codes)
    if len(x) <= n_neighbors:
        raise InputError(
            f"{n_neighbors} neighbours need more than {len(x)} samples.", code="CL-INPUT-FEW"
        )
    if x_codes is None and y_codes is None:
        return float(
            mutual_info_regression(x[:, None], y, n_neighbors=n_neighbors, random_state=seed)[0]
        )
    continuous, codes = (x, y_codes) if x_codes is None else (y, x_codes)
    found = mutual_info_classif(
        continuous[:, None],
        codes,
        discrete_features=False,
        n_neighbors=n_neighbors,
        random_state=seed,
    )
    return float(found[0])


def variable(values: ArrayLike, name: str, *, discrete: bool = False) -> tuple[np.ndarray, Any]:
    """Give values, and their codes from 0 on where they are discrete."""
    array = as_numpy(values)
    if array.ndim != 1 or not len(array):
        raise InputError(
            f"{name} must be one value a sample, got shape {array.shape}.", code="CL-INPUT-RANK"
        )
    if array.dtype.kind == "f":
        as_matrix(array[:, None], name)  # NaN
    distinct, codes = np.unique(array, return_inverse=True)
    if discrete or array.dtype.kind not in "fiu" or len(distinct) <= _DISCRETE:
        return array, codes
    return array.astype(np.float64), None


def plug_in(a: np.ndarray, b: np.ndarray) -> float:
    """Count the information of codes (n,) and (n,), each from 0 on."""
    r, s = int(a.max()) + 1, int(b.max()) + 1
    joint = np.bincount(a * s + b, minlength=r * s).reshape(r, s) / len(a)
    alone = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None, :]
    return max(0.0, float(xlogy(joint, joint).sum() - xlogy(joint, alone).sum()))


def equal_bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Cut into bins of equally many samples; equal values stay together."""
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= _DISCRETE:
        return np.asarray(codes)
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins))
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]


def pairwise_information(A: np.ndarray, n_bins: int) -> np.ndarray:
    """Normalised information of all pairs of columns, (k, k), zeros on the diagonal.

    Blocks of columns at a time: indicators of two blocks and their joint table are all that is
    held, beside one byte or two for each entry of `A`.
    """
    n, k = A.shape
    kind = np.uint8 if n_bins <= 256 else np.uint16
    codes = np.stack([equal_bins(a, n_bins).astype(kind) for a in A.T])
    sizes = codes.max(axis=1).astype(np.int64) + 1
    entropy = np.array([-xlogy(p, p).sum() for p in (np.bincount(c) / n for c in codes)])
    found = np.zeros((k, k))
    step = max(1, min(_COLUMNS, _CELLS // n))
    blocks = [range(i, min(i + step, k)) for i in range(0, k, step)]
    for i, left in enumerate(blocks):
        hot = _indicators(codes[left.start : left.stop], sizes[left.start : left.stop])
        for right in blocks[i:]:
            own = right is left
            other = (
                hot
                if own
                else _indicators(codes[right.start : right.stop], sizes[right.start : right.stop])
            )
            found[left.start : left.stop, right.start : right.stop] = _block(
                hot, sizes[left.start : left.stop], other, sizes[right.start : right.stop]
            )
    upper = np.triu(found, 1)
    found = upper + upper.T
    scale = np.sqrt(entropy[:, None] * entropy[None, :])
    shares = np.divide(found, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.asarray(np.maximum(shares, 0.0))


def _indicators(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Give columns of zeros and ones, one for each value of each variable, (n, sum of sizes)."""
    n = codes.shape[1]
    hot = np.zeros((n, int(sizes.sum())), dtype=np.float32)
    starts = np.cumsum(sizes) - sizes
    for start, values in zip(starts, codes, strict=True):
        hot[np.arange(n), start + values.astype(np.int64)] = 1
    return hot


def _block(a: np.ndarray, a_sizes: np.ndarray, b: np.ndarray, b_sizes: np.ndarray) -> np.ndarray:
    # Counts are whole numbers below 2^24, so float32 holds them exactly.
    joint = (a.T @ b).astype(np.float64) / len(a)
    p, q = a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64)
    terms = xlogy(joint, joint) - xlogy(joint, p[:, None] * q[None, :])
    rows, columns = np.cumsum(a_sizes) - a_sizes, np.cumsum(b_sizes) - b_sizes
    return np.asarray(np.add.reduceat(np.add.reduceat(terms, rows, axis=0), columns, axis=1))
