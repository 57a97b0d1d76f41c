"""Measures of a bottleneck: do outputs mean their names, and how many concepts decide."""

from __future__ import annotations

__all__ = [
    "auc_matrix",
    "completeness",
    "contributing_concepts",
    "name_fidelity",
    "number_of_contributing_concepts",
]

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from conceptlab.arrays import ArrayLike, as_floats, as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import Real

_CELLS = 1 << 22


def auc_matrix(scores: ArrayLike, concepts: ArrayLike) -> np.ndarray:
    """Rank samples by every score and compare with every concept.

    Parameters
    ----------
    scores : array-like of shape (n, p)
    concepts : array-like of shape (n, q)
        Booleans, or numbers of two values of which the larger means present.

    Returns
    -------
    ndarray of shape (p, q), float64
        Area under the ROC curve of score i for concept j: the probability that
        a sample with the concept scores higher than one without, ties by half.

    Raises
    ------
    InputError
        Other values (``CL-INPUT-LABELS``), a concept that all samples or none
        have (``CL-INPUT-FEW``), other lengths, NaN.

    Examples
    --------
    >>> auc_matrix([[0.1], [0.4], [0.3], [0.9]], [[0], [1], [0], [1]])
    array([[1.]])
    """
    S, present = as_matrix(scores, "scores"), as_presence(concepts)
    check_rows(S, present)
    _check_both_kinds(present)
    n_with = present.sum(axis=0).astype(np.float64)
    sums = rankdata(S, axis=0).T @ present.astype(np.float64)
    areas: np.ndarray = (sums - n_with * (n_with + 1) / 2) / (n_with * (len(S) - n_with))
    return areas


def name_fidelity(activations: ArrayLike, concepts: ArrayLike) -> np.ndarray:
    """Tell how well output j ranks samples by the concept that it is named after.

    Parameters
    ----------
    activations : array-like of shape (n, k)
    concepts : array-like of shape (n, k)
        The true concepts; see :func:`auc_matrix`.

    Returns
    -------
    ndarray of shape (k,), float64
        Area under the ROC curve of output j for concept j. 0.5 is chance: the
        name says nothing about the number.

    Examples
    --------
    >>> name_fidelity([[0.1, 3.0], [0.4, 2.0]], [[0, 0], [1, 1]])
    array([1., 0.])
    """
    A, present = as_matrix(activations, "activations"), as_presence(concepts)
    check_rows(A, present, same_columns=True)
    _check_both_kinds(present)
    return paired_auc(A, present)


def paired_auc(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Give the diagonal of :func:`auc_matrix`: score j for concept j, (k,)."""
    n_with = present.sum(axis=0).astype(np.float64)
    sums = (rankdata(scores, axis=0) * present).sum(axis=0)
    areas: np.ndarray = (sums - n_with * (n_with + 1) / 2) / (n_with * (len(scores) - n_with))
    return areas


def number_of_contributing_concepts(
    activations: ArrayLike, coef: ArrayLike, *, share: float = 0.95
) -> float:
    """Count the concepts that make up most of a logit (NCC).

    For every sample and class: the fewest concepts whose contributions
    ``|W_cj a_j|`` sum up to `share` of all, then the mean.

    Parameters
    ----------
    activations : array-like of shape (n, k)
    coef : array-like of shape (K, k)
        Weights on the activations.
    share : float
        In (0, 1]. With 1 and activations without zeros it is the number of
        effective concepts (NEC).

    Returns
    -------
    float

    References
    ----------
    M-CBM, ICLR 2026: the number of contributing concepts.

    Examples
    --------
    >>> number_of_contributing_concepts([[1.0, 1.0, 1.0]], [[10.0, 1.0, 0.1], [1.0, 0.0, 0.0]])
    1.5
    """
    return float(contributing_concepts(activations, coef, share=share).mean())


def contributing_concepts(
    activations: ArrayLike, coef: ArrayLike, *, share: float = 0.95
) -> np.ndarray:
    """Count for each row, as the mean over classes, (n,); see the mean of it above."""
    A, W = as_matrix(activations, "activations"), np.abs(as_matrix(coef, "coef"))
    if A.shape[1] != W.shape[1]:
        raise InputError(
            f"coef has {W.shape[1]} columns for {A.shape[1]} concepts of activations.",
            code="CL-INPUT-SHAPE",
        )
    Real(above=0, most=1).check("share", share)
    total = np.zeros(len(A))
    for weights in W:  # over the weights that are not zero: a sparse head has few
        used = np.flatnonzero(weights)
        step = max(1, _CELLS // max(1, len(used)))
        for start in range(0, len(A) if len(used) else 0, step):
            parts = np.abs(A[start : start + step, used]) * weights[used]
            rows = slice(start, start + len(parts))
            if share == 1:
                total[rows] += (parts > 0).sum(axis=1)
                continue
            sums = np.cumsum(-np.sort(-parts, axis=1), axis=1)
            whole = sums[:, -1:]
            total[rows] += (sums < share * whole).sum(axis=1) + (whole[:, 0] > 0)
    return total / len(W)


def completeness(accuracy: float, reference: float, chance: float) -> float:
    """Tell what share of a model's accuracy above chance the concepts keep.

    Parameters
    ----------
    accuracy : float
        Through the concepts.
    reference : float
        Without the bottleneck.
    chance : float
        Of a predictor that sees nothing.

    Returns
    -------
    float
        1 for concepts that lose nothing, 0 for chance; NaN where the
        reference is no better than chance.

    References
    ----------
    Yeh et al., On Completeness-aware Concept-based Explanations in Deep Neural
    Networks, NeurIPS 2020, definition 3.1.

    Examples
    --------
    >>> round(completeness(0.8, 0.9, 0.1), 3)
    0.875
    """
    return (accuracy - chance) / (reference - chance) if reference > chance else float("nan")


def as_matrix(values: ArrayLike, name: str) -> np.ndarray:
    """Give a finite float64 matrix, or say what is wrong with it."""
    matrix = as_floats(values, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(
            f"{name} must be a matrix with at least one row and column, got shape {matrix.shape}.",
            code="CL-INPUT-RANK" if matrix.ndim != 2 else "CL-INPUT-EMPTY",
        )
    check_finite(matrix, name)
    return matrix


def as_presence(concepts: ArrayLike, names: Sequence[str] | None = None) -> np.ndarray:
    """Give booleans (n, q) for concepts of two values."""
    given = as_numpy(concepts)
    if given.ndim == 2 and given.dtype == bool:
        return given
    matrix = as_matrix(given, "concepts")
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    strange = ~((matrix == low) | (matrix == high)).all(axis=0)
    if strange.any():
        j = int(np.flatnonzero(strange)[0])
        who = f"{names[j]!r}" if names is not None else f"in column {j}"
        raise InputError(
            f"The true concept {who} has {len(np.unique(matrix[:, j]))} values; expected two, "
            "absent and present. Say where it begins, for example concepts > 0.5.",
            code="CL-INPUT-LABELS",
        )
    # One value alone: 0 (or False) is absent, anything above is present.
    present: np.ndarray = np.where(low == high, matrix > 0, matrix == high)
    return present


def _check_both_kinds(present: np.ndarray) -> None:
    constant = present.all(axis=0) | ~present.any(axis=0)
    if constant.any():
        places = np.flatnonzero(constant)
        raise InputError(
            f"{len(places)} concept(s) are the same in all {len(present)} samples, at column(s) "
            f"{places[:5].tolist()}: nothing can be ranked. Leave them out, or take more samples.",
            code="CL-INPUT-FEW",
        )


def check_rows(A: np.ndarray, B: np.ndarray, *, same_columns: bool = False) -> None:
    """Raise an error unless two matrices have as many rows (and columns)."""
    if len(A) != len(B) or (same_columns and A.shape != B.shape):
        raise InputError(
            f"Outputs have shape {A.shape} and true concepts {B.shape}; expected one row a sample"
            + (" and one column a concept in both." if same_columns else " in both."),
            code="CL-INPUT-SHAPE",
        )
