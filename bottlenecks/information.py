"""Mutual information of discrete and continuous variables."""

from __future__ import annotations

__all__ = ["mutual_information", "one_hot", "pairwise_information", "plug_in", "variable"]

from typing import Any

import numpy as np
from scipy.special import xlogy
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from bottlenecks.measures import as_matrix
from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, draw_seed

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
        return plug_in(one_hot(x_codes), one_hot(y_codes))
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


def variable(values: Any, name: str, *, discrete: bool = False) -> tuple[np.ndarray, Any]:
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


def one_hot(codes: np.ndarray) -> np.ndarray:
    """Give indicators (n, r) of codes 0 ... r - 1."""
    return np.eye(int(codes.max()) + 1)[codes]


def plug_in(a: np.ndarray, b: np.ndarray) -> float:
    """Count the information of indicators (n, r) and (n, s)."""
    joint = a.T @ b / len(a)
    alone = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None, :]
    return max(0.0, float(xlogy(joint, joint).sum() - xlogy(joint, alone).sum()))


def _bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Cut into bins of equally many samples; equal values stay together."""
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= _DISCRETE:
        return np.asarray(codes)
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins))
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]


def pairwise_information(A: np.ndarray, n_bins: int) -> np.ndarray:
    """Normalised information of all pairs of columns, (k, k), zeros on the diagonal."""
    columns = [one_hot(_bins(a, n_bins)) for a in A.T]
    sizes = [column.shape[1] for column in columns]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    hot = np.concatenate(columns, axis=1)
    joint = hot.T @ hot / len(A)
    p = np.diag(joint)
    terms = xlogy(joint, joint) - xlogy(joint, p[:, None] * p[None, :])
    information = np.add.reduceat(np.add.reduceat(terms, starts, axis=0), starts, axis=1)
    entropy = np.add.reduceat(-xlogy(p, p), starts)
    scale = np.sqrt(entropy[:, None] * entropy[None, :])
    found = np.divide(information, scale, out=np.zeros_like(scale), where=scale > 0)
    np.fill_diagonal(found, 0.0)
    return np.asarray(np.maximum(found, 0.0))
