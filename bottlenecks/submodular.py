"""Choose concepts that tell classes apart and cover what was proposed: submodular, lazy greedy."""

from __future__ import annotations

__all__ = ["SubmodularSelector", "class_similarity", "concept_discriminability"]

import heapq
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from bottlenecks.measures import as_matrix
from conceptlab.arrays import ArrayLike, as_floats, as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from conceptlab.zeroshot.labels import checked_labels


def class_similarity(scores: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Average concept scores over the images of each class.

    Parameters
    ----------
    scores : array-like of shape (n_images, n_concepts)
    y : array-like of shape (n_images,)

    Returns
    -------
    ndarray of shape (K, n_concepts), float64
        Rows in the order of the sorted classes.

    Examples
    --------
    >>> class_similarity([[1.0, 0.0], [0.5, 0.0], [0.0, 2.0]], ["a", "a", "b"])
    array([[0.75, 0.  ],
           [0.  , 2.  ]])
    """
    S = as_matrix(scores, "scores")
    classes, codes = np.unique(checked_labels(y, S), return_inverse=True)
    sums = np.zeros((len(classes), S.shape[1]))
    np.add.at(sums, codes, S)
    means: np.ndarray = sums / np.bincount(codes)[:, None]
    return means


def concept_discriminability(similarity: Any) -> np.ndarray:
    """Measure what each concept tells about the class.

    With ``p_jc`` the similarity of concept j to class c, normalised so that
    every class sums to 1/K over the concepts:
    ``D(j) = Σ_c p_jc log(K p_jc / Σ_c' p_jc')``. The sum over j is the mutual
    information of class and concept under p.

    Parameters
    ----------
    similarity : array-like of shape (K, n)
        Non-negative, such as :func:`class_similarity` of scores clipped at 0.

    Returns
    -------
    ndarray of shape (n,), float64
        At least 0; 0 for a concept that is equally strong in all classes.

    Raises
    ------
    InputError
        Negative values (``CL-INPUT-NEGATIVE``), or a class without any
        similarity (``CL-INPUT-ZERO``).

    References
    ----------
    Yang et al., Language in a Bottle: Language Model Guided Concept Bottlenecks
    for Interpretable Image Classification, CVPR 2023, equation 4.

    Examples
    --------
    >>> concept_discriminability([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]).round(4)
    array([0.    , 0.1733, 0.1733])
    """
    P = as_matrix(similarity, "similarity")
    if (P < 0).any():
        raise InputError(
            f"similarity must be >= 0, the smallest entry is {P.min():.4g}. Clip or shift it, for "
            "example np.maximum(similarity, 0).",
            code="CL-INPUT-NEGATIVE",
        )
    totals = P.sum(axis=1, keepdims=True)
    if (totals == 0).any():
        raise InputError(
            f"Class number {int(np.flatnonzero(totals[:, 0] == 0)[0])} has no similarity to any "
            "concept. Leave it out.",
            code="CL-INPUT-ZERO",
        )
    P = P / totals / len(P)
    whole = P.sum(axis=0)
    ratio = np.divide(len(P) * P, whole, out=np.ones_like(P), where=(P > 0) & (whole > 0))
    found: np.ndarray = np.maximum((P * np.log(ratio)).sum(axis=0), 0.0)
    return found


class SubmodularSelector(BaseEstimator):
    """Select concepts that are discriminative and together cover all candidates.

    In every group (the candidates that were proposed for a class) the set A of
    `n_select` candidates is chosen that greedily maximises
    ``w_1 Σ_{j in A} D(j) + w_2 Σ_s max(0, max_{j in A} e_s · e_j)``,
    where s goes over all candidates of the group. The function is monotone and
    submodular, so greedy search reaches at least 1 - 1/e of its maximum.

    Parameters
    ----------
    n_select : int
        Candidates to choose in each group; smaller groups are taken whole.
    weights : tuple of two floats
        w_1 of discriminability and w_2 of coverage, at least 0.
    normalize : bool
        Divide both terms by their value for the whole group, so that weights
        mean the same for any number of candidates. False is the published sum,
        whose weights are such as ``(1e7, 0.1)``.

    Attributes
    ----------
    selected_ : ndarray of int64
        Places in `E`; group after group, in the order of choice.
    gains_ : ndarray of float64
        What each choice added; never rising within a group.
    groups_ : ndarray
        Group of each choice.
    n_evaluations_ : int
        Gains that were computed; plain greedy search needs about `n_select`
        times the number of candidates.
    n_features_in_ : int

    Notes
    -----
    Lazy greedy search keeps old gains as upper bounds and computes anew only
    what may still be the best; it makes the choices of plain greedy search,
    of equal gains the first candidate. Memory is quadratic in the size of the
    largest group.

    References
    ----------
    Yang et al., Language in a Bottle, CVPR 2023, section 3.2 (LaBo).
    Minoux, Accelerated greedy algorithms for maximizing submodular set
    functions, 1978.

    Examples
    --------
    >>> E = np.array([[1.0, 0.0], [0.99, 0.14], [0.0, 1.0], [0.1, 0.99]])
    >>> SubmodularSelector(2).fit(E).selected_
    array([1, 2])
    >>> SubmodularSelector(2).fit(E, discriminability=[9.0, 0.0, 0.0, 1.0]).selected_
    array([0, 3])
    """

    def __init__(
        self,
        n_select: int = 50,
        *,
        weights: tuple[float, float] = (1.0, 1.0),
        normalize: bool = True,
    ) -> None:
        self.n_select = n_select
        self.weights = weights
        self.normalize = normalize

    def fit(
        self, E: ArrayLike, discriminability: Any = None, groups: ArrayLike | None = None
    ) -> SubmodularSelector:
        """Choose among the rows of `E`.

        Parameters
        ----------
        E : array-like of shape (n, d)
            Embeddings of the candidates, as a rule of length one.
        discriminability : array-like of shape (n,), optional
            D, at least 0; see :func:`concept_discriminability`. Zeros by default.
        groups : array-like of shape (n,), optional
            Class that each candidate was proposed for; one group by default.

        Returns
        -------
        SubmodularSelector

        Raises
        ------
        InputError
            Numbers out of range, shapes that do not fit, NaN.
        """
        vectors = as_matrix(E, "E")
        n = len(vectors)
        Whole(1).check("n_select", self.n_select)
        try:
            w = np.asarray(self.weights, dtype=np.float64)
        except (TypeError, ValueError):
            w = np.empty(0)
        if w.shape != (2,) or not np.isfinite(w).all() or (w < 0).any():
            raise InputError(
                f"weights must be two numbers of at least 0, got {self.weights!r}.",
                code="CL-INPUT-RANGE",
            )
        D = np.zeros(n) if discriminability is None else _checked_quality(discriminability, n)
        labels = np.zeros(n, dtype=np.int64) if groups is None else as_numpy(groups)
        if labels.shape != (n,):
            raise InputError(
                f"groups must name one group for each of the {n} candidates, got shape "
                f"{labels.shape}.",
                code="CL-INPUT-SHAPE",
            )
        selected, gains, evaluations = [], [], 0
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            cover = np.maximum(vectors[members] @ vectors[members].T, 0.0)
            quality, cover = self._terms(D[members], cover, w)
            chosen, added, count = lazy_greedy(quality, cover, min(self.n_select, len(members)))
            selected.append(members[chosen])
            gains.append(added)
            evaluations += count
        self.selected_ = np.concatenate(selected).astype(np.int64)
        self.gains_ = np.concatenate(gains)
        self.groups_ = labels[self.selected_]
        self.n_evaluations_ = evaluations
        self.n_features_in_ = int(vectors.shape[1])
        return self

    def _terms(
        self, D: np.ndarray, cover: np.ndarray, w: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        whole = np.array([D.sum(), cover.max(axis=1).sum()])
        scale = np.where(whole > 0, whole, 1.0) if self.normalize else np.ones(2)
        return w[0] / scale[0] * D, w[1] / scale[1] * cover


def lazy_greedy(
    quality: np.ndarray, cover: np.ndarray, n_select: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Maximise ``Σ_{j in A} quality_j + Σ_s max_{j in A} cover_sj`` greedily.

    Parameters
    ----------
    quality : ndarray of shape (n,)
        At least 0.
    cover : ndarray of shape (n, n)
        At least 0.
    n_select : int
        At most n.

    Returns
    -------
    chosen : ndarray of shape (n_select,), int64
    gains : ndarray of shape (n_select,), float64
    n_evaluations : int
    """
    columns = np.ascontiguousarray(cover.T)
    covered = np.zeros(len(cover))

    def gain(j: int) -> float:
        return float(quality[j] + np.maximum(columns[j] - covered, 0.0).sum())

    # (minus gain, candidate, number of choices at which it was computed)
    heap = [(-gain(j), j, 0) for j in range(len(quality))]
    heapq.heapify(heap)
    chosen: list[int] = []
    gains: list[float] = []
    evaluations = len(heap)
    while len(chosen) < n_select:
        value, j, computed_at = heap[0]
        if computed_at == len(chosen):
            heapq.heappop(heap)
            chosen.append(j)
            gains.append(-value)
            np.maximum(covered, columns[j], out=covered)
        else:
            heapq.heapreplace(heap, (-gain(j), j, len(chosen)))
            evaluations += 1
    return np.array(chosen, dtype=np.int64), np.array(gains), evaluations


def _checked_quality(values: ArrayLike, n: int) -> np.ndarray:
    D = as_floats(values, "values")
    if D.shape != (n,):
        raise InputError(
            f"discriminability must hold one number for each of the {n} candidates, got shape "
            f"{D.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(D, "discriminability")
    if (D < 0).any():
        place = int(np.flatnonzero(D < 0)[0])
        raise InputError(
            f"discriminability must be >= 0, got {D[place]:.4g} at index {place}.",
            code="CL-INPUT-NEGATIVE",
        )
    return D
