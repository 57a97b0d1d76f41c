"""What a bottleneck or a head predicts, and what each row of the fit counts."""

from __future__ import annotations

__all__ = ["KINDS", "Predicting", "Target", "checked_target", "row_weights"]

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import r2_score
from sklearn.utils import RegressorTags, Tags
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy, like_input
from conceptlab.errors import InputError, unknown_name
from conceptlab.zeroshot.labels import checked_labels

KINDS = ("classes", "labels", "values")


@dataclass(frozen=True)
class Target:
    """The targets of n rows.

    Attributes
    ----------
    kind : {"classes", "labels", "values"}
    values : ndarray
        Columns of classes (n,), int64; else numbers (n, K), float64.
    names : ndarray of shape (K,)
        Classes, sorted; names of the columns, or their numbers.
    flat : bool
        Whether y was one column.
    """

    kind: str
    values: np.ndarray
    names: np.ndarray
    flat: bool

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of_columns(cls, columns: np.ndarray, n_classes: int) -> Target:
        """Make classes 0 ... K - 1 of their columns (n,)."""
        return cls("classes", columns.astype(np.int64), np.arange(n_classes), True)

    @property
    def dense(self) -> np.ndarray:
        """Targets as numbers (n, K): ones at the classes."""
        if self.kind != "classes":
            return self.values
        return np.eye(len(self.names))[self.values]

    def take(self, rows: np.ndarray) -> Target:
        """Give some rows."""
        return Target(self.kind, self.values[rows], self.names, self.flat)


def read_target(kind: str, y: ArrayLike | None, X: Any, who: str) -> Target:
    """Check y for rows X.

    Parameters
    ----------
    kind : {"classes", "labels", "values"}
    y : array-like
        Classes (n,); labels of 0 and 1, (n, L); numbers (n,) or (n, T).
    X : array-like
        With n rows.
    who : str
        The estimator, for messages.

    Returns
    -------
    Target

    Raises
    ------
    InputError
        No y, another length, one class or a label that is always the same
        (``CL-INPUT-FEW``), NaN.
    """
    if kind not in KINDS:
        raise unknown_name("target", kind, KINDS)
    if y is None:
        raise InputError(
            f"{who} requires y to be passed, but the target y is None. Give one "
            f"{'label' if kind == 'classes' else 'target'} a row.",
            code="CL-INPUT-LABELS",
        )
    if kind == "classes":
        classes, columns = np.unique(checked_labels(y, X), return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"A classifier needs at least two classes, got 1 class: {classes.tolist()}. Give "
                "rows of another class too.",
                code="CL-INPUT-FEW",
            )
        return Target(kind, columns.astype(np.int64), classes, True)
    names = getattr(y, "columns", None)
    given = _array(y)
    if kind == "labels" and given.ndim != 2:
        raise InputError(
            f"target='labels' needs y of shape (n, labels) with 0 and 1, got shape {given.shape}. "
            "One class a row is target='classes'.",
            code="CL-INPUT-LABELS",
        )
    try:
        numbers = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"y must be numbers for target={kind!r}, got {given.dtype}: {error}",
            code="CL-INPUT-LABELS",
        ) from error
    if numbers.ndim not in (1, 2) or len(numbers) != len(X) or not numbers.size:
        raise InputError(
            f"y must have a row for each of the {len(X)} rows of X, got shape {numbers.shape}: "
            "inconsistent numbers of samples.",
            code="CL-INPUT-LABELS",
        )
    if not np.isfinite(numbers).all():
        raise InputError(
            "Input y contains NaN or infinity. Leave such rows out.", code="CL-INPUT-NONFINITE"
        )
    flat = numbers.ndim == 1
    table = numbers[:, None] if flat else numbers
    if kind == "labels":
        _check_labels(table)
    found = np.arange(table.shape[1]) if names is None else np.array([str(name) for name in names])
    return Target(kind, table, found, flat)


def _array(y: Any) -> np.ndarray:
    return as_numpy(y.to_numpy() if hasattr(y, "to_numpy") else y)


def _check_labels(table: np.ndarray) -> None:
    if not np.isin(table, (0, 1)).all():
        raise InputError(
            f"target='labels' needs 0 and 1, got {np.unique(table)[:5].tolist()}. Numbers are "
            "target='values'.",
            code="CL-INPUT-LABELS",
        )
    alike = np.flatnonzero(table.min(axis=0) == table.max(axis=0))
    if len(alike):
        raise InputError(
            f"{len(alike)} label(s) are the same in all rows, at column(s) {alike[:5].tolist()}: "
            "there is nothing to tell apart. Leave them out.",
            code="CL-INPUT-FEW",
        )


def row_weights(
    sample_weight: ArrayLike | None, class_weight: Any, y: Any, target_kind: str, n: int
) -> np.ndarray | None:
    """Give what each row counts, (n,) float64, or None where all count 1.

    Parameters
    ----------
    sample_weight : array-like of shape (n,), optional
        At least 0, not all 0.
    class_weight : None, "balanced" or dict
        Of classes; a list of them for labels. Multiplies the weights of rows.
    y : array-like
    target_kind : str
    n : int

    Returns
    -------
    ndarray or None

    Raises
    ------
    InputError
        Another length, a weight below 0 or NaN, all 0; weights of classes for numbers, or of
        a class that is not there.
    """
    weight = None
    if sample_weight is not None:
        weight = as_numpy(sample_weight).astype(np.float64)
        if weight.ndim == 0:
            weight = np.full(n, float(weight))
        if weight.shape != (n,):
            raise InputError(
                f"sample_weight must be one number for each of the {n} rows, got shape "
                f"{weight.shape}; Sample weights must be 1D array or scalar.",
                code="CL-INPUT-SHAPE",
            )
        if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
            raise InputError(
                "sample_weight must be finite numbers of at least 0, not every weight zero; got "
                f"{weight.min():g} to {weight.max():g}. Leave rows out by 0.",
                code="CL-INPUT-RANGE",
            )
    if class_weight is None:
        return weight
    if target_kind == "values":
        raise InputError(
            "class_weight is of classes, but target='values' has none. Give sample_weight.",
            code="CL-INPUT-OPTION",
        )
    given = _array(y)
    counted = slice(None) if weight is None else weight > 0
    try:
        by_class = np.zeros(n)
        by_class[counted] = compute_sample_weight(class_weight, given[counted])
    except ValueError as error:
        raise InputError(f"class_weight: {error}", code="CL-INPUT-OPTION") from error
    return by_class if weight is None else by_class * weight


def checked_target(
    estimator: Any, y: ArrayLike | None, X: Any, sample_weight: ArrayLike | None
) -> tuple[Target, np.ndarray | None, np.ndarray | None]:
    """Read y and the weights of an estimator with `target` and `class_weight`.

    Returns
    -------
    target : Target
        Of the rows that count.
    weight : ndarray, or None where all count 1
        Of these rows, above 0.
    index : ndarray of int64, or None where all rows count
        Which rows of X they are.
    """
    kind, who = estimator.target, type(estimator).__name__
    if sample_weight is None and estimator.class_weight is None:
        return read_target(kind, y, X, who), None, None
    whole = read_target(kind, y, X, who)
    weight = row_weights(sample_weight, estimator.class_weight, y, kind, len(whole))
    if weight is None or weight.all():
        return whole, weight, None
    index = np.flatnonzero(weight)
    if kind == "classes":
        kept = read_target(kind, whole.names[whole.values[index]], index, who)
    else:
        kept = whole.take(index)
        if kind == "labels":
            _check_labels(kept.values)
    return kept, weight[index], index


def _has_probabilities(estimator: Any) -> bool:
    if estimator.target == "values":
        raise AttributeError(f"{type(estimator).__name__} of target='values' has no probabilities")
    return True


class Predicting:
    """What a fitted head says: a subclass gives logits (n, K) by :meth:`_logits`.

    ``classes_`` are the classes, or the labels; ``output_names_`` (K,) their names for every
    kind of target.
    """

    target: str
    classes_: np.ndarray
    output_names_: np.ndarray
    one_output_: bool

    def _logits(self, X: ArrayLike) -> Any:
        raise NotImplementedError

    def _set_outputs(self, target: Target) -> None:
        self.output_names_, self.one_output_ = target.names, target.flat
        if target.kind != "values":
            self.classes_ = target.names
        elif hasattr(self, "classes_"):
            del self.classes_

    @property
    def outputs_(self) -> np.ndarray:
        """Names of the outputs: classes, labels, or numbers."""
        check_is_fitted(self)
        return self.classes_ if self.target == "classes" else self.output_names_

    @like_input
    def decision_function(self, X: ArrayLike) -> Any:
        """Give the logits.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, K), or (n,) for two classes
            With two classes (n,), the second logit less the first. Like in, like out.
        """
        logits = self._logits(X)
        if self.target == "classes" and len(self.classes_) == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    @available_if(_has_probabilities)
    @like_input
    def predict_log_proba(self, X: ArrayLike) -> Any:
        """Give the logarithm of :meth:`predict_proba`, without underflow.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, K)
            Like in, like out.
        """
        logits = self._logits(X)
        if self.target == "labels":
            return torch.nn.functional.logsigmoid(logits)
        return logits.log_softmax(dim=1)

    @available_if(_has_probabilities)
    @like_input
    def predict_proba(self, X: ArrayLike) -> Any:
        """Give the probabilities of the classes, or of each label.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, K)
            Of classes, rows sum to one. Like in, like out.
        """
        logits = self._logits(X)
        return logits.sigmoid() if self.target == "labels" else logits.softmax(dim=1)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Give the most probable class, the labels, or the numbers of every row.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), or (n, K) for labels and several numbers
            Of ``classes_``, of equal logits the first class; labels as 0 and 1.
        """
        return self._said(as_numpy(self._logits(X)))

    def _said(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (n, K) into what :meth:`predict` answers."""
        # NumPy's argmax takes the first of equal ones on every device.
        if self.target == "classes":
            return np.asarray(self.classes_[logits.argmax(axis=1)])
        if self.target == "labels":
            return (logits > 0).astype(np.int64)
        return logits[:, 0] if self.one_output_ else logits

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Give the accuracy; of labels, that of all at once; of numbers, R².

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : array-like
            As in the fit.
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
        """
        if self.target == "values":
            return float(r2_score(as_numpy(y), self.predict(X), sample_weight=sample_weight))
        return float(super().score(X, y, sample_weight))  # type: ignore[misc]

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()  # type: ignore[misc]
        if self.target == "values":
            tags.estimator_type, tags.classifier_tags = "regressor", None
            tags.regressor_tags = RegressorTags()
            tags.target_tags.multi_output = True
        elif self.target == "labels" and tags.classifier_tags is not None:
            tags.classifier_tags.multi_class, tags.classifier_tags.multi_label = False, True
            tags.target_tags.single_output = False
        return tags
