"""Linear probes: what can still be read from a model's features."""

from __future__ import annotations

__all__ = ["ProbeResult", "class_probe", "concept_auc"]

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_floats, as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, draw_seed
from unlearning.audit.concept_level import class_numbers
from unlearning.audit.encoding import Whitening


@dataclass(frozen=True)
class ProbeResult:
    """What a probe for all classes reads of the forgotten ones.

    Attributes
    ----------
    recall : float
        Share of test samples of the forgotten classes that the probe names rightly.
    auc : float
        Area under the ROC curve of the probe's probability for the forgotten classes, all
        test samples; the mean over forgotten classes.
    accuracy : float
        Of the probe over all test samples.
    """

    recall: float
    auc: float
    accuracy: float


def class_probe(
    train: Any, y_train: Any, test: Any, y_test: Any, classes: Any, *, max_iter: int = 200
) -> ProbeResult:
    """Train a linear probe on frozen features with the true labels of all classes.

    Parameters
    ----------
    train : array-like of shape (n, d)
        Penultimate features of one model on training samples.
    y_train : array-like of shape (n,)
        True labels, of forgotten and retained classes.
    test : array-like of shape (m, d)
        Features of test samples.
    y_test : array-like of shape (m,)
        True labels.
    classes : sequence of int
        The forgotten ones.
    max_iter : int
        Steps of the optimiser (L-BFGS).

    Returns
    -------
    ProbeResult

    Notes
    -----
    Multinomial logistic regression (C = 1) on features whitened by the training samples, so
    that no invertible linear map of them changes anything. Never compare with chance: the
    features of a model that never saw a class separate it too. *Excess* is the figure minus
    the retrained model's.

    References
    ----------
    Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=90)
    >>> X = np.eye(3)[y] + 0.1 * rng.normal(size=(90, 3))
    >>> class_probe(X[:60], y[:60], X[60:], y[60:], [1])
    ProbeResult(recall=1.0, auc=1.0, accuracy=1.0)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    X, held = _whitened(train, test)
    y, truth = as_numpy(y_train), as_numpy(y_test)
    for rows, labels in ((X, y), (held, truth)):
        if labels.shape != (len(rows),) or labels.dtype.kind == "c":
            raise InputError(
                f"Expected a label for each of {len(rows)} samples, got shape {labels.shape} of "
                f"{labels.dtype}.",
                code="CL-INPUT-LABELS",
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged is fine for a probe with few steps
        probe = LogisticRegression(max_iter=max_iter, tol=1e-3).fit(X, y)
        p = probe.predict_proba(held)
    predicted = probe.classes_[p.argmax(axis=1)]
    recalls, areas = [], []
    for c in sorted(class_numbers(classes)):
        mine = truth == c
        place = np.flatnonzero(probe.classes_ == c)
        if not mine.any() or mine.all() or not len(place):
            raise InputError(
                f"Class {c} must be among the training samples, and test samples must hold it "
                "and others.",
                code="CL-INPUT-LABELS",
            )
        recalls.append(float(np.mean(predicted[mine] == c)))
        areas.append(float(roc_auc_score(mine, p[:, place[0]])))
    return ProbeResult(
        float(np.mean(recalls)), float(np.mean(areas)), float(np.mean(predicted == truth))
    )


def concept_auc(
    features: ArrayLike, concepts: ArrayLike, *, n_folds: int = 2, random_state: RandomState = 0
) -> np.ndarray:
    """Measure how well each concept can be read from features, by cross-validation.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Penultimate features of one model.
    concepts : array-like of shape (n, k), bool
        Which sample shows which concept.
    n_folds : int
        Stratified folds.
    random_state : int, RandomState, Generator or None
        Of the folds; the same seed gives every model the same folds.

    Returns
    -------
    ndarray of shape (k,), float64
        Mean over folds of the area under the ROC curve of a logistic probe; NaN where
        fewer than `n_folds` samples show the concept, or do not.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shown = rng.random((80, 1)) < 0.5
    >>> concept_auc(shown + 0.1 * rng.normal(size=(80, 1)), shown)
    array([1.])
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    X, C = as_floats(features, "features"), as_numpy(concepts).astype(bool)
    if C.ndim != 2 or len(C) != len(X):
        raise InputError(
            f"concepts must have a row for each of {len(X)} samples, got shape {C.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(X, "features")
    seed = draw_seed(random_state)
    out = np.full(C.shape[1], np.nan)
    for k in range(C.shape[1]):
        y = C[:, k]
        if min(y.sum(), (~y).sum()) < n_folds:
            continue
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        areas = []
        for train, test in folds.split(X, y):
            rows, held = _whitened(X[train], X[test])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                probe = LogisticRegression(max_iter=100, tol=1e-3).fit(rows, y[train])
            areas.append(float(roc_auc_score(y[test], probe.decision_function(held))))
        out[k] = float(np.mean(areas))
    return out


def _whitened(train: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    X, held = as_floats(train, "train"), as_floats(test, "test")
    if X.ndim != 2 or held.ndim != 2 or X.shape[1] != held.shape[1]:
        raise InputError(
            f"Expected features (n, d) of one width, got shapes {X.shape} and {held.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(X, "features")
    check_finite(held, "features")
    whitening = Whitening.of(X)
    return whitening(X), whitening(held)
