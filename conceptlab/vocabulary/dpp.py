"""Choose items that are good and differ: the mode of a determinantal point process, greedily.

The kernel is that of Kulesza and Taskar (2012), "Determinantal point processes
for machine learning", section 3.1: quality times similarity. The search is
Algorithm 1 of Chen, Zhang and Zhou (2018), "Fast greedy MAP inference for
determinantal point process".
"""

from __future__ import annotations

__all__ = ["DPPSelector"]

from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator

from conceptlab.arrays import ArrayLike, as_floats, as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Real, Rules, Whole

_TIE = 1e-6  # unit rows in float32 have squared lengths that differ by rounding only
_RULES = Rules(n_select=Whole(1), start=OneOf("diverse", "central"), jitter=Real(least=0))
_STARTS, _NUMBERS = 8, 1 << 16  # starts, and entries of the factors of all of them together
_WHOLE = 1024  # items whose whole kernel is made
_GAIN = 1e-9  # an exchange must raise the log-determinant by more than rounding


class DPPSelector(BaseEstimator):
    """Select the items whose kernel has a large determinant.

    The kernel of items i and j is ``L_ij = q_i (e_i · e_j + jitter [i = j]) q_j``:
    the determinant of a set is large when its items have quality q and point in
    different directions. Greedy search adds the item
    that raises the determinant most; exchanges then swap chosen for other
    items while that raises it further.

    Parameters
    ----------
    n_select : int
        Number of items M to choose.
    exchange : bool
        Whether to improve the greedy set by swaps, the best first, until none
        raises the determinant.
    start : {"diverse", "central"}
        First item of the greedy search. "diverse" tries those that are least like the others
        (up to eight, as far as they cost little) and keeps the largest determinant; "central"
        takes the one most like all others, of largest quality, which is a poor start for a
        determinant and a good one where outliers must not come first.
    jitter : float
        Added to the squared lengths of the rows; 1e-5 is what the published
        classifier uses. With 0 no more items than independent directions can be
        chosen.

    Attributes
    ----------
    selected_ : ndarray of shape (n_select,), int64
        Places in `E`, in the order of choice.
    log_det_ : float
        Logarithm of the determinant of the kernel (with jitter) of the chosen
        items.
    gains_ : ndarray of shape (n_select,), float64
        What each greedy step added to `log_det_`.
    n_exchanges_ : int
        Swaps made.
    n_features_in_ : int
        d.

    Notes
    -----
    With all qualities equal, every first item is equally good; the published
    code then takes whichever rounding favours. From the item most similar to all
    greedy search reaches 0.7 of the largest determinant on small draws, from the
    best of a few unlike ones 0.99. Ties are broken in an order that depends on the
    vectors only, so the chosen set does not depend on the order of the rows.

    All is computed in float64. A greedy run costs O(M n (d + M)) and the rows of
    the kernel are made when they are needed.

    Examples
    --------
    >>> E = np.array([[1.0, 0.0], [0.99, 0.141], [0.0, 1.0]])
    >>> sorted(DPPSelector(2).fit(E).selected_.tolist())
    [0, 2]
    >>> DPPSelector(1).fit(E, quality=[1.0, 1.0, 3.0]).selected_
    array([2])
    """

    def __init__(
        self,
        n_select: int = 50,
        *,
        exchange: bool = False,
        start: Literal["diverse", "central"] = "diverse",
        jitter: float = 1e-5,
    ) -> None:
        self.n_select = n_select
        self.exchange = exchange
        self.start = start
        self.jitter = jitter

    def fit(self, E: ArrayLike, quality: Any = None) -> DPPSelector:
        """Choose among the rows of `E`.

        Parameters
        ----------
        E : array-like of shape (n, d)
            Embeddings, as a rule of length one. Their length counts as quality.
        quality : array-like of shape (n,), optional
            q, above zero; ones by default.

        Returns
        -------
        DPPSelector

        Raises
        ------
        InputError
            Fewer items than `n_select`, or with ``jitter=0`` fewer independent
            ones (``CL-INPUT-MANY``); wrong rank, shape or range; NaN.
        """
        vectors = _checked_rows(E)
        n = len(vectors)
        weights = _checked_quality(quality, n)
        _RULES.check(self)
        if self.n_select > n:
            raise InputError(
                f"n_select={self.n_select} items were asked for, but there are n_samples={n}. "
                "Choose fewer, or compose more candidates.",
                code="CL-INPUT-MANY",
            )
        order = canonical_order(vectors, weights)
        # Sorted first and widened after: copies of this size cost as much as the search.
        ordered = np.take(vectors, order, axis=0).astype(np.float64, copy=False)
        if weights is not None:
            weights = weights[order]
        size, jitter = int(self.n_select), float(self.jitter)
        several = self.start == "diverse"
        # Several runs read the whole kernel, one reads the rows that it needs.
        kernel = ordered @ ordered.T if several and n <= _WHOLE else None
        chosen, gains = greedy_map(ordered, size, jitter, weights, kernel=kernel)
        for item in _unlike(ordered, size, weights, kernel) if several else ():
            other, added = greedy_map(ordered, size, jitter, weights, first=item, kernel=kernel)
            if len(added) > len(gains) or added.sum() > gains.sum() + _GAIN:
                chosen, gains = other, added
        if len(chosen) < self.n_select:
            raise InputError(
                f"n_select={self.n_select} items were asked for, but only {len(chosen)} of the "
                f"{n} point in independent directions. Choose fewer, or set jitter above 0.",
                code="CL-INPUT-MANY",
            )
        self.gains_ = gains
        self.log_det_ = float(self.gains_.sum())
        self.n_exchanges_ = 0
        if self.exchange:
            chosen, self.n_exchanges_, self.log_det_ = exchanged(
                ordered, chosen, float(self.jitter), self.log_det_, weights
            )
        self.selected_ = order[chosen]
        self.n_features_in_ = vectors.shape[1]
        return self


def _checked_rows(E: ArrayLike) -> np.ndarray:
    vectors = as_numpy(E)
    if vectors.ndim != 2:
        raise InputError(
            f"E must have the axes (items, features), got shape {vectors.shape}.",
            code="CL-INPUT-RANK",
        )
    if vectors.dtype.kind not in "fiub" or not vectors.size:
        raise InputError(
            f"E must hold numbers for at least one item, got shape {vectors.shape} and dtype "
            f"{vectors.dtype}.",
            code="CL-INPUT-EMPTY" if not vectors.size else "CL-INPUT-TYPE",
        )
    if vectors.dtype.kind != "f":
        vectors = vectors.astype(np.float64)
    check_finite(vectors, "E")
    return vectors


def _checked_quality(quality: Any, n: int) -> np.ndarray | None:
    """Give ``2 log q``, or None where all qualities are one."""
    if quality is None:
        return None
    q = as_floats(quality, "quality")
    if q.shape != (n,):
        raise InputError(
            f"quality must hold one number for each of the {n} items, got shape {q.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(q, "quality")
    if (q <= 0).any():
        place = int(np.flatnonzero(q <= 0)[0])
        raise InputError(
            f"quality must be above 0, got {q[place]:g} at index {place}. Use for example "
            "exp(margin).",
            code="CL-INPUT-RANGE",
        )
    return 2 * np.log(q)


def canonical_order(vectors: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sort rows by their values, so that what follows cannot depend on their order.

    Returns
    -------
    ndarray of shape (n,), int64
        A permutation; equal rows keep their order.
    """
    first = vectors[:, 0]
    order = np.argsort(first, kind="stable")
    if len(first) > 1 and (np.diff(first[order]) == 0).any():
        rows = vectors if weights is None else np.column_stack([vectors, weights])
        rows = np.ascontiguousarray(rows + 0.0)  # -0.0, which has other bytes, becomes 0.0
        keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
        order = np.argsort(keys, kind="stable")
    return order.astype(np.int64)


def greedy_map(
    vectors: np.ndarray,
    n_select: int,
    jitter: float = 1e-5,
    weights: np.ndarray | None = None,
    *,
    first: int | None = None,
    kernel: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run greedy MAP by an incremental Cholesky factor.

    The factor is that of the kernel without qualities, whose conditional
    variances are those of the full kernel divided by q²; so qualities of any
    spread cost no precision.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), float64
        Rows e.
    n_select : int
        Items to choose.
    jitter : float
        Added to the squared lengths.
    weights : ndarray of shape (n,), optional
        ``2 log q``.
    first : int, optional
        Item to begin with; by default the one of largest quality, of those the one most
        similar to all.
    kernel : ndarray of shape (n, n), optional
        ``vectors @ vectors.T``, where it is known.

    Returns
    -------
    chosen : ndarray of int64
        At most `n_select`; fewer when the rest lies in the span of the chosen.
    gains : ndarray of float64
        Logarithm of the conditional variance of each item when it was chosen.
    """
    n = len(vectors)
    squares = np.einsum("ij,ij->i", vectors, vectors)
    variance = squares + jitter
    floor = np.finfo(np.float64).eps * n * float(variance.max())
    factor, work = np.empty((n_select, n)), np.empty(n)
    chosen = np.empty(n_select, dtype=np.int64)
    gains = np.empty(n_select)
    item = _first(vectors, variance, weights) if first is None else first
    for step in range(n_select):
        if step:
            item = _best(variance, weights, floor)
        gain = float(variance[item])
        if gain <= floor:
            return chosen[:step], gains[:step]
        chosen[step] = item
        gains[step] = np.log(gain) + (0.0 if weights is None else weights[item])
        row = factor[step]
        if kernel is None:
            np.dot(vectors, vectors[item], out=row)
        else:
            np.copyto(row, kernel[item])
        row[item] += jitter
        if step:
            np.dot(factor[:step, item], factor[:step], out=work)
            row -= work
        row *= 1 / np.sqrt(gain)
        np.multiply(row, row, out=work)
        variance -= work
        variance[item] = -np.inf
    return chosen, gains


def _best(variance: np.ndarray, weights: np.ndarray | None, floor: float) -> int:
    if weights is None:
        return int(variance.argmax())
    open_to = variance > floor
    if not open_to.any():
        return int(variance.argmax())
    score = np.full(len(variance), -np.inf)
    score[open_to] = np.log(variance[open_to]) + weights[open_to]
    return int(score.argmax())


def _unlike(
    vectors: np.ndarray, size: int, weights: np.ndarray | None, kernel: np.ndarray | None
) -> list[int]:
    """Give the items of quality that are least like the others, as far as they cost little."""
    n = len(vectors)
    count = min(n, max(1, min(_STARTS, _NUMBERS // (n * size))))
    squares = np.einsum("ij,ij->i", vectors, vectors)
    squares = np.maximum(squares, np.finfo(np.float64).tiny)
    if kernel is None:
        unit = vectors / np.sqrt(squares)[:, None]
        likeness = np.einsum("ij,ij->i", unit @ (unit.T @ unit), unit)  # sums of squared cosines
    else:
        likeness = np.einsum("ij,ij,j->i", kernel, kernel, 1 / squares) / squares
    score = np.log(squares) - np.log(likeness)
    if weights is not None:
        score = score + weights
    # Rounding must not decide between equal ones.
    return [int(i) for i in np.argsort(-np.round(score, 9), kind="stable")[:count]]


def _first(vectors: np.ndarray, variance: np.ndarray, weights: np.ndarray | None) -> int:
    """Give the item of largest quality; of those the one most similar to all."""
    if weights is None:
        best = np.flatnonzero(variance >= variance.max() * (1 - _TIE))
    else:
        score = np.log(np.maximum(variance, np.finfo(np.float64).tiny)) + weights
        best = np.flatnonzero(score >= score.max() - _TIE)
    if len(best) == 1:
        return int(best[0])
    scale = None if weights is None else np.exp((weights - weights.max()) / 2)
    total = vectors.sum(axis=0) if scale is None else scale @ vectors
    sums = (vectors @ total)[best]
    return int(best[np.flatnonzero(sums >= sums.max() - _TIE * np.abs(sums).max())[0]])


def exchanged(
    vectors: np.ndarray,
    chosen: np.ndarray,
    jitter: float,
    log_det: float,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, int, float]:
    """Swap chosen for other items, the best swap first, while the determinant grows.

    With ``B`` the inverse of the kernel of the chosen, ``w = B L_Sj`` and ``s_j``
    the conditional variance of j, putting j in the place of i multiplies the
    determinant by ``B_ii s_j + w_i²``, and by ``(q_j / q_i)²`` for the qualities.

    Returns
    -------
    chosen : ndarray of int64
    n_exchanges : int
    log_det : float
    """
    chosen = chosen.copy()
    worth = np.zeros(len(vectors)) if weights is None else weights
    squares = np.einsum("ij,ij->i", vectors, vectors) + jitter
    size = len(chosen)
    count = 0
    while True:
        inverse = np.linalg.inv(_kernel(vectors[chosen], jitter))
        cross = vectors[chosen] @ vectors.T
        solved = inverse @ cross
        rest = squares - np.einsum("ij,ij->j", cross, solved)
        ratio = np.diag(inverse)[:, None] * rest + solved**2
        gain = np.log(np.maximum(ratio, np.finfo(np.float64).tiny))
        gain += worth - worth[chosen][:, None]
        gain[:, chosen] = -np.inf
        out, best = np.unravel_index(int(gain.argmax()), gain.shape)
        if size == len(vectors) or gain[out, best] <= _GAIN:
            return chosen, count, log_det
        trial = chosen.copy()
        trial[out] = best
        sign, value = np.linalg.slogdet(_kernel(vectors[trial], jitter))
        value = float(value + worth[trial].sum())
        if sign <= 0 or value <= log_det:  # what looked like a gain was rounding
            return chosen, count, log_det
        chosen, log_det, count = trial, value, count + 1


def _kernel(rows: np.ndarray, jitter: float) -> np.ndarray:
    kernel = rows @ rows.T
    kernel[np.diag_indices(len(rows))] += jitter
    return kernel
