"""Other tests of forgetting, to be compared with the audit on models whose truth is known.

Each follows the idea of a paper in a form that costs no training; where that is not the paper's own
form, its docstring says so.
"""

from __future__ import annotations

__all__ = ["cohesion", "information", "places", "restored"]

from typing import Any

import numpy as np

from unlearning.audit.encoding import Whitening


def information(train: Any, labels: Any, test: Any, truth: Any) -> float:
    """Bound from below what features tell of the class, I(Z; Y) in nats.

    H(Y) minus the cross-entropy of a logistic classifier on test samples; Y says whether a
    sample is of the class, both answers weighted alike. The information difference index of a
    model is its sum over layers less the retrained model's, over the same of the original. The
    paper bounds it by InfoNCE with trained critics; this is the linear form.

    Parameters
    ----------
    train : ndarray of shape (n, d)
        Features.
    labels : ndarray of shape (n,), bool
        Whether a sample is of the class.
    test : ndarray of shape (m, d)
        Features of test samples.
    truth : ndarray of shape (m,), bool
        Whether one is of the class.

    Returns
    -------
    float
        In [0, ln 2].

    References
    ----------
    Jeon et al., "An information theoretic evaluation metric for strong unlearning",
    arXiv 2405.17878.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2 == 0
    >>> told = information(3 * y[:, None] + rng.normal(size=(200, 1)), y, 3.0 * y[:, None], y)
    >>> 0.3 < told < 0.7
    True
    """
    map_ = Whitening.of(train)
    A, held = (np.pad(map_(X), ((0, 0), (0, 1)), constant_values=1.0) for X in (train, test))
    y, mine = np.asarray(labels, dtype=float), np.asarray(truth, dtype=bool)
    weight = np.where(y > 0, 0.5 / max(y.mean(), 1e-12), 0.5 / max(1 - y.mean(), 1e-12))
    w = np.zeros(A.shape[1])
    for _ in range(12):
        p = 1 / (1 + np.exp(-(A @ w).clip(-30, 30)))
        gradient = A.T @ (weight * (p - y)) + w
        curvature = (A * (weight * p * (1 - p))[:, None]).T @ A + np.eye(len(w))
        w = w - np.linalg.solve(curvature, gradient)
    scores = (held @ w).clip(-30, 30)
    losses = np.log1p(np.exp(np.where(mine, -scores, scores)))
    loss = (losses[mine].mean() + losses[~mine].mean()) / 2
    return float(max(0.0, np.log(2) - loss))


def restored(after: Any, before: Any, after_class: Any, head: Any, bias: Any, label: int) -> float:
    """Give the share of the class that the original's head names once features are mapped back.

    The map is linear and fitted on retained samples. The paper steers features of a sparse
    autoencoder that were chosen with the original at hand; this is the linear form.

    Parameters
    ----------
    after, before : ndarray of shape (n, d), (n, e)
        Features of the model and of the original on retained samples.
    after_class : ndarray of shape (m, d)
        The model's on samples of the class.
    head, bias : ndarray of shape (C, e), (C,)
        The original's last layer.
    label : int
        The class.

    Returns
    -------
    float

    References
    ----------
    Jang et al., "Suppression or deletion", arXiv 2602.18505.

    Examples
    --------
    >>> X = np.eye(3)[np.arange(30) % 3]
    >>> restored(X[:20], X[:20], X[2:3], np.eye(3), np.zeros(3), 2)
    1.0
    """
    map_ = Whitening.of(after)
    mean = np.asarray(before, dtype=np.float64).mean(axis=0)
    A = map_(after)
    W = A.T @ (np.asarray(before) - mean) / len(A)
    mapped = map_(after_class) @ W + mean
    return float(np.mean((mapped @ np.asarray(head).T + bias).argmax(axis=1) == label))


def places(features: Any, labels: Any, of_class: Any) -> np.ndarray:
    """Say where samples of the class lie: cosines to the means of the retained classes.

    Two models are compared by the mean distance of these rows, which needs no common axes. The
    paper's formula of M2 could not be read; this follows what its abstract says: whether the
    forgotten samples take the place that they have in a retrained model.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        On retained samples.
    labels : ndarray of shape (n,)
    of_class : ndarray of shape (m, d)
        On samples of the class.

    Returns
    -------
    ndarray of shape (m, number of retained classes)

    References
    ----------
    Cosma and Finke, "RULER", arXiv 2605.27569.

    Examples
    --------
    >>> places([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[1.5, -0.5]])
    array([[ 1., -1.]])
    """
    X, Z, y = np.asarray(features), np.asarray(of_class), np.asarray(labels)
    centre = np.stack([X[y == c].mean(axis=0) for c in np.unique(y)]).mean(axis=0)
    means = np.stack([X[y == c].mean(axis=0) - centre for c in np.unique(y)])
    return _unit(Z - centre) @ _unit(means).T


def cohesion(features: Any, labels: Any, of_class: Any) -> float:
    """Say how well the class hangs together, in units of a retained class.

    Mean cosine among its samples less that to retained samples, over the median of the same for
    retained classes. The paper's formula of M4 could not be read; this follows what its abstract
    says: a model's own similarities, without a retrained one.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        On retained samples.
    labels : ndarray of shape (n,)
    of_class : ndarray of shape (m, d)
        On samples of the class.

    Returns
    -------
    float

    References
    ----------
    Cosma and Finke, "RULER", arXiv 2605.27569.

    Examples
    --------
    >>> X = np.eye(3)[np.arange(30) % 3]
    >>> y = np.arange(30) % 3
    >>> round(cohesion(X[y < 2], y[y < 2], X[y == 2]), 6)
    1.0
    """
    X, Z, y = np.asarray(features), np.asarray(of_class), np.asarray(labels)
    groups = {c: X[y == c] for c in np.unique(y)}
    centre = np.stack([*(g.mean(axis=0) for g in groups.values()), Z.mean(axis=0)]).mean(axis=0)
    means = {c: _unit(g - centre).mean(axis=0) for c, g in groups.items()}
    own = _unit(Z - centre).mean(axis=0)

    def apart(mine: np.ndarray, others: list[np.ndarray]) -> float:
        return float(mine @ mine - np.mean([mine @ o for o in others]))

    kept = [apart(m, [*(o for c, o in means.items() if c != k), own]) for k, m in means.items()]
    return apart(own, list(means.values())) / max(float(np.median(kept)), 1e-12)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
