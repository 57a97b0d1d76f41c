"""Concept Matrix Search: classify by comparing rows of concept scores, without training."""

from __future__ import annotations

__all__ = ["NORMALIZATIONS", "RULES", "ConceptMatrixSearch"]

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from bottlenecks.search_use import SearchUse
from conceptlab import ConceptBank
from conceptlab.arrays import (
    ArrayLike,
    as_numpy,
    as_tensor,
    check_features,
    like_input,
    resolve_device,
)
from conceptlab.bank.core import SIMILARITIES, Similarity
from conceptlab.bank.form import BANK_FORM
from conceptlab.errors import InputError, unknown_name
from conceptlab.io.objects import SavedEstimator
from conceptlab.zeroshot.labels import checked_labels

RULES = ("similarity", "cubed", "max")
NORMALIZATIONS = ("none", "row", "column", "center")
_EPS = 1e-8  # of the published row and column division
_CELLS = 1 << 22  # scores held at a time by the rules without a closed form: 32 MB


class ConceptMatrixSearch(SearchUse, SavedEstimator, ClassifierMixin, BaseEstimator):
    """Give every image the class whose concept scores are most like its own.

    The rows of V are the concept scores of the images, the rows of T those of
    the classes. Both are normalised in one way, then compared:

    - ``"similarity"``: argmax over c of the cosine of V_i and T_c. It is
      computed as a cosine under the metric ``G = CᵀC`` of the concept vectors
      C, so V is never built: O(M d²) once and O(d² + K d) an image;
    - ``"cubed"``: the same with all entries of V and T cubed;
    - ``"max"``: the strongest concept of the image, then the class that has
      most of it.

    The last two need V, and see a few rows of it at a time.

    Parameters
    ----------
    bank : ConceptBank, optional
        The M concepts. None means that the columns of X are concept scores.
    class_vectors : ConceptBank, mapping, array of shape (K, d), or None
        One vector for every class in the space of X, such as the text
        embeddings of the class names; the names of a bank and the keys of a
        mapping are the labels, those of an array 0 to K - 1. None takes the
        mean of the labelled rows.
    rule : {"similarity", "cubed", "max"}
        How rows are compared.
    normalize : {"none", "row", "column", "center"}
        Nothing; division by the sum of the row plus 1e-8; by the sum of the
        column plus 1e-8; subtraction of the mean of the column. Columns of V
        are summed over the rows of fit, those of T over the classes.
    similarity : {"affine", "dot", "cosine"}
        How X and class vectors are scored on the bank; see
        :meth:`conceptlab.ConceptBank.score`.
    device : str or torch.device
        See :func:`conceptlab.arrays.resolve_device`.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Labels, sorted.
    concept_names_ : tuple of M str
    class_vectors_ : ndarray of shape (K, d), float64
    class_scores_ : ndarray of shape (K, M), float64
        T after normalisation.
    concept_maps_ : ndarray of shape (M, d + 1), float64
        V is (x, 1) times this, transposed; row division apart.
    metric_factor_ : ndarray of shape (r, d + 1), float64
        R with RᵀR = G for these maps; r is the smaller of M and d + 1.
    projection_ : ndarray of shape (K, d + 1), float64
        The cosine is (x, 1) times this, over the length of R (x, 1).
    row_sum_ : ndarray of shape (d + 1,), float64, or None
        Gives the sum of a row of V where rows are divided by it.
    n_features_in_ : int
        d.

    Raises
    ------
    InputError
        In fit: no labels and no class vectors, fewer than two classes, no X
        for ``"column"`` or ``"center"``, shapes that do not fit.
    SpaceMismatchError
        Concepts and classes that come from two encoders.

    Notes
    -----
    Ties go to the first class, and to the first concept in ``"max"``; scores
    within 1e-12 of the largest (relative to it) are ties, so that rounding
    decides nothing. Images and classes without any score are as far from all.

    Row division changes ``"similarity"`` only where a row's sum is negative:
    it then turns the sign of all scores. Column division is unstable where
    sums are near zero, as they are for centred scores. If the concepts form a
    tight frame, ``CᵀC = αI``, the rule ``"similarity"`` is plain zero-shot
    classification. All is computed in float64 where the device has it.

    References
    ----------
    Semenov et al., Sparse Concept Bottleneck Models: Gumbel Tricks in
    Contrastive Learning, 2024 (arXiv 2404.03323), section on Concept Matrix
    Search. Division by columns and the cubed rule are in its released code;
    centring and the closed form are ours.

    Examples
    --------
    >>> from conceptlab import ConceptBank
    >>> concepts = ConceptBank(np.eye(3), ["round", "red", "furry"], space=None)
    >>> classes = {"apple": [1.0, 1.0, 0.0], "kitten": [0.2, 0.0, 1.0]}
    >>> model = ConceptMatrixSearch(concepts, classes, normalize="none").fit()
    >>> model.predict(np.array([[0.9, 0.4, 0.1], [0.1, 0.0, 0.7]])).tolist()
    ['apple', 'kitten']
    """

    _forms = (BANK_FORM,)

    def __init__(
        self,
        bank: ConceptBank | None = None,
        class_vectors: Any = None,
        *,
        rule: Literal["similarity", "cubed", "max"] = "similarity",
        normalize: Literal["none", "row", "column", "center"] = "center",
        similarity: Similarity = "affine",
        device: str | torch.device = "auto",
    ) -> None:
        self.bank = bank
        self.class_vectors = class_vectors
        self.rule = rule
        self.normalize = normalize
        self.similarity = similarity
        self.device = device

    # -- fit ----------------------------------------------------------------------
    def fit(self, X: Any = None, y: Any = None) -> ConceptMatrixSearch:
        """Score the classes on the concepts.

        Parameters
        ----------
        X : array-like of shape (n, d), optional
            Rows that column sums and means are taken over; they need no labels
            where class vectors are given.
        y : array-like of shape (n,), optional
            Labels. Needed where `class_vectors` is None; else not used.

        Returns
        -------
        ConceptMatrixSearch
        """
        self._check_options()
        matrix = None if X is None else check_features(self, X, reset=True)
        if matrix is not None:
            self._check_width(matrix.shape[1], "X has")
        rows = None if matrix is None else self._rows(as_numpy(matrix).astype(np.float64))
        self.classes_, self.class_vectors_ = self._classes(rows, matrix, y)
        d = self.class_vectors_.shape[1]
        if matrix is not None and matrix.shape[1] != d:
            raise InputError(
                f"X has {matrix.shape[1]} features, but the class vectors have {d}. Encode images "
                "and classes with the same encoder.",
                code="CL-INPUT-FEATURES",
            )
        self.n_features_in_ = d
        self.concept_names_ = self._concept_names(d)
        self._prepare(rows)
        return self

    def _check_options(self) -> None:
        for name, known in (
            ("rule", RULES),
            ("normalize", NORMALIZATIONS),
            ("similarity", SIMILARITIES),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        resolve_device(self.device)
        if self.bank is not None and not isinstance(self.bank, ConceptBank):
            raise InputError(
                f"bank must be a ConceptBank or None, got {type(self.bank).__name__}.",
                code="CL-INPUT-TYPE",
            )

    def _check_width(self, width: int, who: str) -> None:
        if self.bank is not None and width != self.bank.n_features:
            raise InputError(
                f"{who} {width} features, but the vectors of the bank have length "
                f"{self.bank.n_features}. Encode with the encoder that the bank was made with.",
                code="CL-INPUT-FEATURES",
            )

    def _classes(self, rows: np.ndarray | None, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Give labels, sorted, and their vectors."""
        if self.class_vectors is None:
            return self._class_means(rows, X, y)
        given = self.class_vectors
        if isinstance(given, ConceptBank):
            if self.bank is not None:
                self.bank.check_space(given)
            labels, vectors = np.array(given.names), np.asarray(given.vectors, dtype=np.float64)
        elif isinstance(given, Mapping):
            labels = np.array(list(given))
            vectors = _stacked(given)
        else:
            vectors = _numbers(given)
            if vectors.ndim != 2:
                raise InputError(
                    f"class_vectors must have the axes (classes, features), got shape "
                    f"{vectors.shape}.",
                    code="CL-INPUT-RANK",
                )
            labels = np.arange(len(vectors))
        if len(labels) < 2:
            raise _one_class(labels)
        if not np.isfinite(vectors).all():
            bad = labels[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
            raise InputError(
                f"The vector of class {str(bad)!r} holds NaN or infinity. Leave the class out.",
                code="CL-INPUT-NONFINITE",
            )
        self._check_width(vectors.shape[1], "The class vectors have")
        order = np.argsort(labels, kind="stable")
        return labels[order], self._rows(vectors[order])

    def _class_means(
        self, rows: np.ndarray | None, X: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        if rows is None or y is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None. Without "
                "class_vectors the classes are made from labelled rows; give X and y, or "
                "class_vectors.",
                code="CL-INPUT-LABELS",
            )
        classes, columns = np.unique(checked_labels(y, X), return_inverse=True)
        if len(classes) < 2:
            raise _one_class(classes)
        sums = np.zeros((len(classes), rows.shape[1]))
        np.add.at(sums, columns, rows)
        return classes, sums / np.bincount(columns)[:, None]

    def _concept_names(self, d: int) -> tuple[str, ...]:
        if self.bank is not None:
            return self.bank.names
        known = getattr(self, "feature_names_in_", None)
        return tuple(f"concept{j}" for j in range(d)) if known is None else tuple(map(str, known))

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        """Scale to unit length where scores are cosines."""
        if self.similarity != "cosine":
            return rows
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: np.ndarray = rows / np.where(lengths > 0, lengths, 1.0)
        return unit

    def _prepare(self, rows: np.ndarray | None) -> None:
        """Fold the normalisation of V into affine concepts, and take their metric."""
        C = self._concepts()
        T = _affine(self.class_vectors_) @ C.T
        if self.normalize in ("column", "center") and rows is None:
            raise InputError(
                f"normalize={self.normalize!r} needs the mean score of every concept. Give rows "
                "without labels: fit(X); or take normalize='none'.",
                code="CL-INPUT-EMPTY",
            )
        if self.normalize == "row":
            T = T / _away_from_zero(T.sum(axis=1, keepdims=True) + _EPS)
        elif self.normalize == "column" and rows is not None:
            T = T / _away_from_zero(T.sum(axis=0) + _EPS)
            C = C / _away_from_zero((_affine(rows) @ C.T).sum(axis=0) + _EPS)[:, None]
        elif self.normalize == "center" and rows is not None:
            T = T - T.mean(axis=0)
            C = np.column_stack([C[:, :-1], -C[:, :-1] @ rows.mean(axis=0)])
        self.class_scores_ = T
        self.concept_maps_ = C
        self.row_sum_ = C.sum(axis=0) if self.normalize == "row" else None
        # |V_i|² = x'ᵀ CᵀC x' = |R x'|² with C = Q R, and <V_i, T_c> = x'·(Cᵀ T_c).
        self.metric_factor_ = np.asarray(np.linalg.qr(C, mode="r"))
        lengths = np.linalg.norm(T, axis=1, keepdims=True)
        self.projection_ = (T / np.where(lengths > 0, lengths, 1.0)) @ C

    def _concepts(self) -> np.ndarray:
        """Give concept vectors with their intercepts as the last column."""
        if self.bank is None:
            return _affine(np.eye(self.n_features_in_), 0.0)
        C = np.asarray(self.bank.vectors, dtype=np.float64)
        if self.similarity == "cosine":
            C = C / np.linalg.norm(C, axis=1, keepdims=True)
        offsets = self.bank.intercepts if self.similarity == "affine" else None
        last = np.zeros(len(C)) if offsets is None else np.asarray(offsets, dtype=np.float64)
        return np.column_stack([C, last])

    # -- what it says ---------------------------------------------------------------
    @like_input
    def decision_function(self, X: ArrayLike) -> Any:
        """Compare images with classes.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, K), or (n,) for two classes
            Cosines of score rows, or for ``rule="max"`` the class's score on
            the image's strongest concept; with two classes (n,), the second
            less the first.
        """
        scores = torch.cat([part for _, part in self._scores(X)])
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Give the class of every image.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
            Of ``classes_``; of equal scores the first class.
        """
        best = torch.cat([_first_of_largest(part) for _, part in self._scores(X)])
        return np.asarray(self.classes_[best.cpu().numpy()])

    @like_input
    def predict_concepts(self, X: ArrayLike) -> Any:
        """Give the normalised concept scores, which predictions do not need.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, M)
            V.
        """
        check_is_fitted(self)
        parts = []
        for rows in self._batches(X, len(self.concept_names_)):
            V = rows @ torch.as_tensor(self.concept_maps_).to(rows).T
            if self.normalize == "row":
                V = V / _away_from_zero(V.sum(dim=1, keepdim=True) + _EPS)
            parts.append(V)
        return torch.cat(parts)

    def _scores(self, X: ArrayLike) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give affine rows and their scores (m, K), a part of the images at a time."""
        check_is_fitted(self)
        closed = self.rule == "similarity"
        width = len(self.metric_factor_) if closed else len(self.concept_names_)
        for rows in self._batches(X, max(width, len(self.classes_))):
            scores = self._by_metric(rows) if closed else self._by_scores(rows)
            if self.rule != "max" and self.row_sum_ is not None:
                scores = scores * self._sign(rows)
            yield rows, scores

    def _by_metric(self, rows: torch.Tensor) -> torch.Tensor:
        factor = torch.as_tensor(self.metric_factor_).to(rows)
        images = rows @ factor.T
        lengths = torch.linalg.vector_norm(images, dim=1, keepdim=True)
        largest = torch.linalg.vector_norm(factor) * torch.linalg.vector_norm(
            rows, dim=1, keepdim=True
        )
        empty = lengths <= 16 * torch.finfo(rows.dtype).eps * largest
        dots = rows @ torch.as_tensor(self.projection_).to(rows).T
        return torch.where(empty, 0.0, dots / torch.where(empty, 1.0, lengths))

    def _by_scores(self, rows: torch.Tensor) -> torch.Tensor:
        V = rows @ torch.as_tensor(self.concept_maps_).to(rows).T
        T = torch.as_tensor(self.class_scores_).to(rows)
        if self.rule == "cubed":
            return _cosines(V, T)
        if self.row_sum_ is not None:
            V = V * self._sign(rows)
        return T.T[_first_of_largest(V)]

    def _sign(self, rows: torch.Tensor) -> torch.Tensor:
        """Sign of the row sums; a division by them can do nothing else to a comparison."""
        total = rows @ torch.as_tensor(self.row_sum_).to(rows) + _EPS
        return torch.where(total < 0, -1.0, 1.0).to(rows)[:, None]

    def _batches(self, X: ArrayLike, width: int) -> Iterator[torch.Tensor]:
        matrix = check_features(self, X, reset=False)
        device = resolve_device(self.device, like=matrix)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        step = max(1, _CELLS // max(width, matrix.shape[1] + 1))
        for start in range(0, len(matrix), step):
            rows = as_tensor(matrix[start : start + step], device=device, dtype=dtype)
            if self.similarity == "cosine":
                lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
                rows = rows / torch.where(lengths > 0, lengths, 1.0)
            yield torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "class_scores_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.class_vectors is None
        # scikit-learn's clouds of points have scores of mean zero, whose sums say nothing.
        tags.classifier_tags.poor_score = self.rule == "max" or self.normalize in ("row", "column")
        return tags


def _affine(rows: np.ndarray, last: float = 1.0) -> np.ndarray:
    return np.column_stack([rows, np.full(len(rows), last)])


def _away_from_zero(values: Any) -> Any:
    """Replace exact zeros by the published 1e-8, so that nothing is divided by zero."""
    where = torch.where if isinstance(values, torch.Tensor) else np.where
    return where(values == 0, _EPS, values)


def _first_of_largest(scores: torch.Tensor) -> torch.Tensor:
    """Give the first column of every row that is as large as the largest but for rounding."""
    tolerance = 1e-12 if scores.dtype == torch.float64 else 1e-6
    top = scores.amax(dim=1, keepdim=True)
    ties = scores >= top - tolerance * scores.abs().amax(dim=1, keepdim=True)
    places = torch.arange(scores.shape[1], device=scores.device)
    return torch.where(ties, places, scores.shape[1]).amin(dim=1)


def _cosines(V: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
    """Cosines of cubed rows; scaled first, so that nothing under- or overflows."""
    parts = []
    for rows in (V, T):
        largest = rows.abs().amax(dim=1, keepdim=True)
        cubes = (rows / torch.where(largest > 0, largest, 1.0)) ** 3
        lengths = torch.linalg.vector_norm(cubes, dim=1, keepdim=True)
        parts.append(cubes / torch.where(lengths > 0, lengths, 1.0))
    return parts[0] @ parts[1].T


def _numbers(given: Any) -> np.ndarray:
    try:
        return as_numpy(given).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"class_vectors must hold numbers, one row for each class, got {given!r:.60}.",
            code="CL-INPUT-TYPE",
        ) from error


def _stacked(vectors: Mapping[Any, Any]) -> np.ndarray:
    rows = {label: _numbers(value) for label, value in vectors.items()}
    shapes = {row.shape for row in rows.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise InputError(
            f"class_vectors must map every label to one vector of the same length, got shapes "
            f"{sorted(shapes)}.",
            code="CL-INPUT-SHAPE",
        )
    return np.stack(list(rows.values())) if rows else np.empty((0, 0))


def _one_class(labels: np.ndarray) -> InputError:
    return InputError(
        f"A classifier needs at least two classes, got {len(labels)} class: {labels.tolist()}. "
        "Give another class too.",
        code="CL-INPUT-FEW",
    )
