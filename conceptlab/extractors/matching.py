"""Which concept of one fit is which of another, and how stable concepts are over fits."""

from __future__ import annotations

__all__ = ["match_concepts", "stability"]

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from conceptlab.arrays import ArrayLike, as_floats, check_finite
from conceptlab.errors import InputError


def match_concepts(
    W1: ArrayLike, W2: ArrayLike, *, signed: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the rows of two concept matrices so that the sum of cosines is largest.

    Parameters
    ----------
    W1 : array-like of shape (k1, p)
        First concepts.
    W2 : array-like of shape (k2, p)
        Second concepts.
    signed : bool, default=True
        Whether opposite directions are different concepts; False takes absolute cosines (PCA,
        ICA, whose signs are arbitrary).

    Returns
    -------
    order : numpy.ndarray of shape (k1,)
        ``W2[order[j]]`` is the partner of ``W1[j]``; -1 where k1 > k2 leaves none.
    cosines : numpy.ndarray of shape (k1,)
        Cosine of each pair, in [-1, 1] (in [0, 1] for ``signed=False``); 0 without partner. A
        row of zeros has cosine 0 with all.

    Raises
    ------
    InputError
        If the numbers of features differ, or an entry is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> match_concepts(np.eye(3), np.eye(3)[[2, 0, 1]])
    (array([1, 2, 0]), array([1., 1., 1.]))
    """
    first, second = _unit_rows(W1, "W1"), _unit_rows(W2, "W2")
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"W1 has {first.shape[1]} features and W2 has {second.shape[1]}: only concepts of the "
            "same layer can be matched.",
            code="CL-INPUT-FEATURES",
        )
    similarity = first @ second.T
    if not signed:
        similarity = abs(similarity)
    rows, columns = linear_sum_assignment(-similarity)
    order = np.full(len(first), -1)
    cosines = np.zeros(len(first))
    order[rows] = columns
    cosines[rows] = similarity[rows, columns].clip(-1, 1)
    return order, cosines


def stability(components: Sequence[Any], *, signed: bool = True) -> float:
    """Average the cosines of matched concepts over all pairs of fits.

    Parameters
    ----------
    components : sequence of arrays (k, p)
        Concepts of at least two fits (other seeds, bootstraps, folds).
    signed : bool, default=True
        As in :func:`match_concepts`.

    Returns
    -------
    float
        1 where every fit finds the same concepts.

    Raises
    ------
    InputError
        With fewer than two fits.

    Examples
    --------
    >>> import numpy as np
    >>> stability([np.eye(3), np.eye(3)[::-1]])
    1.0
    """
    fits = list(components)
    if len(fits) < 2:
        raise InputError(
            f"Stability compares fits: at least 2 are needed, got {len(fits)}.",
            code="CL-INPUT-FEW",
        )
    return float(
        np.mean([match_concepts(a, b, signed=signed)[1].mean() for a, b in combinations(fits, 2)])
    )


def _unit_rows(W: ArrayLike, name: str) -> np.ndarray:
    rows = as_floats(W, "W")
    if rows.ndim != 2 or not rows.size:
        raise InputError(
            f"{name} must be a matrix (k, p) of concepts, got shape {rows.shape}.",
            code="CL-INPUT-RANK",
        )
    check_finite(rows, name)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
