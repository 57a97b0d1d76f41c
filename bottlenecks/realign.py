"""What the other concepts become when one is set: their conditional mean."""

from __future__ import annotations

__all__ = ["Realigner", "residual_covariance"]

import numpy as np
from sklearn.covariance import ledoit_wolf

from bottlenecks.targets import Target

_ROWS, _MOST = 4096, 1024


def residual_covariance(
    A: np.ndarray, target: Target, weight: np.ndarray | None = None
) -> np.ndarray | None:
    """Estimate how activations err together: their covariance within classes, (k, k).

    The covariance over all rows says which concepts go together in the world, and the
    activations of a row know that already. What a true concept tells beyond them is its error,
    and errors are shared: of rows of one class (of one set of labels, or what is left beside a
    linear fit of numbers) concepts are nearly alike, so that their activations differ by it.

    Parameters
    ----------
    A : ndarray of shape (n, k), float64
    target : Target
    weight : ndarray of shape (n,), optional

    Returns
    -------
    ndarray, or None
        Correlations are shrunk after Ledoit and Wolf. None for more than 1024 concepts.
    """
    if A.shape[1] > _MOST:
        return None
    if len(A) > _ROWS:
        some = np.arange(0, len(A), -(-len(A) // _ROWS))
        A, target = A[some], target.take(some)
        weight = None if weight is None else weight[some]
    share = np.full(len(A), 1.0) if weight is None else weight / weight.mean()
    root = np.sqrt(share)[:, None]
    if target.kind == "values":
        D = root * np.column_stack([np.ones(len(A)), target.values])
        left = root * A - D @ np.linalg.lstsq(D, root * A, rcond=None)[0]
    else:
        codes = target.values
        if target.kind == "labels":
            codes = np.unique(target.values, axis=0, return_inverse=True)[1].ravel()
        size = np.bincount(codes, weights=share)
        sums = np.zeros((len(size), A.shape[1]))
        np.add.at(sums, codes, share[:, None] * A)
        left = root * (A - (sums / size[:, None])[codes])
    scale = np.sqrt((left**2).mean(axis=0))
    safe = np.where(scale > 0, scale, 1.0)
    correlation, _ = ledoit_wolf(left / safe, assume_centered=True)
    found: np.ndarray = correlation * safe[:, None] * safe
    return found


class Realigner:
    """Sets concepts of rows one by one, and moves the others to their conditional mean.

    With Σ the covariance and the concepts S of a row set by δ from where they were, the others
    move by Σ_·S Σ_SS⁻¹ δ. One concept more takes one column of a Cholesky factor of Σ, in the
    order of that row, so nothing is solved twice.

    Parameters
    ----------
    coef : ndarray of shape (K, k)
    covariance : ndarray of shape (k, k), or None
        None leaves the others where they are.

    References
    ----------
    Vandenhirtz et al., Stochastic Concept Bottleneck Models, NeurIPS 2024, section 3.3
    (conditional mean of the concepts that are not set).
    """

    def __init__(self, coef: np.ndarray, covariance: np.ndarray | None) -> None:
        self.coef, self.covariance = coef, covariance
        self.factors: list[np.ndarray] = []

    def set(
        self, A: np.ndarray, L: np.ndarray, at: np.ndarray, j: np.ndarray, values: np.ndarray
    ) -> None:
        """Set A[at, j] to `values`, in place; logits L follow."""
        step = values - A[at, j]
        if self.covariance is None:
            L[at] += step[:, None] * self.coef.T[j]
            A[at, j] = values
            return
        column = self.covariance[j]
        for factor in self.factors:
            column = column - factor[at] * factor[at, j][:, None]
        own = np.maximum(column[np.arange(len(j)), j], 0.0)
        usable = own > 1e-10 * self.covariance[j, j]
        safe = np.where(usable, own, 1.0)[:, None]
        column = np.where(usable[:, None], column, 0.0)
        moved = column / safe * step[:, None]
        moved[np.arange(len(j)), j] = step
        factor = np.zeros(A.shape)
        factor[at] = column / np.sqrt(safe)
        self.factors.append(factor)
        A[at] += moved
        L[at] += moved @ self.coef.T
        A[at, j] = values
