"""Splits that cannot overlap: copies and groups stay together, and a check for splits of others."""

from __future__ import annotations

__all__ = ["Splits", "check_disjoint", "split_rows"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bottlenecks.measures import as_matrix
from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, numpy_generator
from conceptlab.zeroshot.labels import checked_labels


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows for fitting, choosing and measuring; no row, copy or group is in two of them.

    Attributes
    ----------
    train, valid, test : ndarray of int64
        Sorted places of rows.
    n_copies : int
        Rows that equal an earlier one to the bit, and went where it went.

    Examples
    --------
    >>> from bottlenecks import split_rows
    >>> splits = split_rows(np.arange(40.0).reshape(20, 2), np.arange(20) % 2, random_state=0)
    >>> len(splits.train) + len(splits.valid) + len(splits.test)
    20
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    n_copies: int

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.train, self.valid, self.test))

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} train, {len(self.valid)} valid, {len(self.test)} test"
        return f"Splits({sizes}; {self.n_copies} copies kept together)"


def split_rows(
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    groups: ArrayLike | None = None,
    random_state: RandomState = 0,
) -> Splits:
    """Split rows once, so that parts are disjoint by construction.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Rows that are equal to the bit go to the same part.
    y : array-like of shape (n,), optional
        Classes, whose shares are kept as far as whole groups allow.
    fractions : three floats
        Of train, valid and test, at least 0, of sum 1.
    groups : array-like of shape (n,), optional
        Rows of one group (a patient, a film, augmentations of an image) go to
        the same part.
    random_state : optional

    Returns
    -------
    Splits

    Raises
    ------
    InputError
        Fractions that are none, lengths that do not fit, or a part that should
        get rows and gets none (``CL-INPUT-FEW``).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(50, 3))
    >>> split_rows(np.vstack([X, X]), random_state=0)
    Splits(60 train, 20 valid, 20 test; 50 copies kept together)
    """
    rows = as_matrix(X, "X")
    n = len(rows)
    try:
        shares = np.asarray(fractions, dtype=np.float64)
    except (TypeError, ValueError):
        shares = np.empty(0)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise InputError(
            f"fractions must be three numbers of at least 0 that sum to 1, got {fractions!r}.",
            code="CL-INPUT-RANGE",
        )
    labels = (
        np.zeros(n, dtype=int)
        if y is None
        else np.unique(checked_labels(y, rows), return_inverse=True)[1]
    )
    same = _copies(rows)
    clusters = same
    if groups is not None:
        given = as_numpy(groups)
        if given.shape != (n,):
            raise InputError(
                f"groups must name one group for each of the {n} rows, got shape {given.shape}.",
                code="CL-INPUT-SHAPE",
            )
        clusters = _joined(same, np.unique(given, return_inverse=True)[1])
    part = _assigned(clusters, labels, shares, numpy_generator(random_state))
    found = [np.flatnonzero(part == p) for p in range(3)]
    empty = [
        name
        for name, rows_of, share in zip(("train", "valid", "test"), found, shares, strict=True)
        if share > 0 and not len(rows_of)
    ]
    if empty:
        raise InputError(
            f"There are {len(np.unique(clusters))} rows or groups that differ, and none is left "
            f"for {' and '.join(empty)}. Take more rows, or fraction 0 for that part.",
            code="CL-INPUT-FEW",
        )
    train, valid, test = found
    return Splits(train, valid, test, n - len(np.unique(same)))


def check_disjoint(*parts: Any) -> None:
    """Raise an error if a row of one part is in another, equal to the bit.

    Parameters
    ----------
    *parts : array-like of shape (n, d)
        Such as the features of a training and a test set.

    Raises
    ------
    InputError
        Says how many rows are shared, and the first (``CL-INPUT-LABELS``).

    Examples
    --------
    >>> check_disjoint(np.eye(3)[:2], np.eye(3)[2:])
    """
    matrices = [as_matrix(part, f"part {i}") for i, part in enumerate(parts)]
    widths = {matrix.shape[1] for matrix in matrices}
    if len(widths) > 1:
        raise InputError(
            f"The parts have {sorted(widths)} features; expected one number.",
            code="CL-INPUT-FEATURES",
        )
    same = _copies(np.concatenate(matrices))
    codes = np.split(same, np.cumsum([len(matrix) for matrix in matrices])[:-1])
    for i in range(len(codes)):
        for j in range(i + 1, len(codes)):
            shared = np.isin(codes[j], codes[i])
            if shared.any():
                raise InputError(
                    f"{int(shared.sum())} of {len(shared)} rows of part {j} are also in part {i}, "
                    f"the first at index {int(np.flatnonzero(shared)[0])}. Measure on rows that "
                    "were not fitted: split_rows gives parts that cannot overlap.",
                    code="CL-INPUT-LABELS",
                )


def _copies(rows: np.ndarray) -> np.ndarray:
    """Number rows so that equal ones have one number."""
    packed = np.ascontiguousarray(rows + 0.0)  # -0.0 becomes 0.0, which has other bytes
    keys = packed.view(np.dtype((np.void, packed.dtype.itemsize * packed.shape[1]))).ravel()
    return np.asarray(np.unique(keys, return_inverse=True)[1])


def _joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number rows so that those tied by either numbering, over any steps, have one number."""
    n_a, n_b = int(a.max()) + 1, int(b.max()) + 1
    links = coo_matrix((np.ones(len(a)), (a, n_a + b)), shape=(n_a + n_b, n_a + n_b))
    return np.asarray(connected_components(links, directed=False)[1][a])


def _assigned(
    clusters: np.ndarray, labels: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Give the part of every row: clusters of each class in random order, cut by rows."""
    _, first, codes = np.unique(clusters, return_index=True, return_inverse=True)
    sizes = np.bincount(codes)
    label = labels[first]
    part = np.empty(len(sizes), dtype=np.int64)
    for value in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == value))
        # The middle of each cluster falls into one of three pieces of the line of rows.
        middle = np.cumsum(sizes[members]) - sizes[members] / 2
        part[members] = np.searchsorted(
            np.cumsum(shares)[:2] * sizes[members].sum(), middle, side="right"
        )
    return part[codes]
