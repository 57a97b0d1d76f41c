"""Concept directions from examples: what parts samples with a concept from those without.

The default is the discriminant direction under a shrunken covariance,
w = S⁻¹ (m₊ − m₋) with S of Ledoit and Wolf (2004), "A well-conditioned
estimator for large-dimensional covariance matrices". It follows the difference
of the means where features are unrelated and undoes their correlation where
they are not, and has no setting to tune. The separating hyperplanes of Kim et
al. (2018), "Interpretability beyond feature attribution (TCAV)", are offered
beside it; with very few examples of strongly correlated features they can be
the better choice, which the quality reported with a bank shows.
"""

from __future__ import annotations

__all__ = ["METHODS", "Direction", "cross_validated_auc", "fit_direction"]

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from conceptlab.errors import InputError, unknown_name

METHODS = ("shrunken", "mean", "svm", "logistic")


@dataclass(frozen=True)
class Direction:
    """A unit vector w and an offset b; x lies on the concept's side where w·x + b > 0.

    Attributes
    ----------
    vector : ndarray of shape (d,), float64
        Of length one.
    intercept : float
    shrinkage : float or None
        Share of the multiple of the identity in the covariance, in [0, 1].
    """

    vector: np.ndarray
    intercept: float
    shrinkage: float | None = None


def fit_direction(
    positives: np.ndarray, negatives: np.ndarray, *, method: str = "shrunken", seed: int = 0
) -> Direction:
    """Find the direction from `negatives` to `positives`.

    Parameters
    ----------
    positives, negatives : ndarray of shape (n, d)
        Features of samples with and without the concept; at least two each.
    method : {"shrunken", "mean", "svm", "logistic"}
        Discriminant under a shrunken covariance; difference of the means;
        linear support vector machine; logistic regression (both balanced).
    seed : int
        For the support vector machine.

    Returns
    -------
    Direction
        The offset of the first two lies midway between the means.

    Raises
    ------
    InputError
        Unknown method, too few samples (``CL-INPUT-FEW``), or two groups
        with one mean (``CL-INPUT-ZERO``).

    Examples
    --------
    >>> P, N = np.array([[2.0, 0.0], [2.0, 1.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    >>> fit_direction(P, N, method="mean")
    Direction(vector=array([1., 0.]), intercept=-1.0, shrinkage=None)
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    P, N = (np.asarray(X, dtype=np.float64) for X in (positives, negatives))
    if min(len(P), len(N)) < 2:
        raise InputError(
            f"A direction needs at least 2 examples with and 2 without the concept, got {len(P)} "
            f"and {len(N)}.",
            code="CL-INPUT-FEW",
        )
    shrinkage = None
    centre = (P.mean(axis=0) + N.mean(axis=0)) / 2
    difference = P.mean(axis=0) - N.mean(axis=0)
    if method == "mean":
        vector = difference
    elif method == "shrunken":
        vector, shrinkage = _discriminant(P, N, difference)
    else:
        model = (
            LinearSVC(class_weight="balanced", random_state=seed)
            if method == "svm"
            else LogisticRegression(class_weight="balanced", max_iter=1000)
        )
        X, y = np.concatenate([P, N]), np.repeat([1, 0], [len(P), len(N)])
        scale = float(np.sqrt(((X - X.mean(axis=0)) ** 2).mean())) or 1.0
        model.fit((X - centre) / scale, y)
        vector = model.coef_[0]
        centre = centre - float(model.intercept_[0]) * scale * vector / max(vector @ vector, 1e-300)
    length = float(np.linalg.norm(vector))
    if not length > 1e-12 * max(1.0, float(np.abs(centre).max())):
        raise InputError(
            "The examples with and without the concept have the same mean, so there is no "
            "direction between them. Are the two sets the same?",
            code="CL-INPUT-ZERO",
        )
    unit = vector / length
    return Direction(unit, -float(unit @ centre), shrinkage)


def cross_validated_auc(
    positives: np.ndarray,
    negatives: np.ndarray,
    *,
    method: str = "shrunken",
    n_folds: int = 5,
    seed: int = 0,
) -> tuple[float | None, float | None]:
    """Estimate how well a direction would rank samples that it has not seen.

    Parameters
    ----------
    positives, negatives : ndarray of shape (n, d)
    method, seed
        See :func:`fit_direction`.
    n_folds : int
        At most; fewer where there are fewer examples than folds.

    Returns
    -------
    mean, deviation : float or None
        Area under the ROC curve over the folds; None where a fold would be
        left with fewer than two examples of a kind.
    """
    fewest = min(len(positives), len(negatives))
    folds = min(n_folds, fewest)
    if folds < 2 or fewest - -(-fewest // folds) < 2:
        return None, None
    X = np.concatenate([positives, negatives]).astype(np.float64)
    y = np.repeat([1, 0], [len(positives), len(negatives)])
    scores = []
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(X, y):
        with_it, without = X[train][y[train] == 1], X[train][y[train] == 0]
        try:
            found = fit_direction(with_it, without, method=method, seed=seed)
        except InputError:  # no difference in this fold: no better than chance
            scores.append(0.5)
            continue
        scores.append(float(roc_auc_score(y[test], X[test] @ found.vector)))
    return float(np.mean(scores)), float(np.std(scores))


def _discriminant(P: np.ndarray, N: np.ndarray, difference: np.ndarray) -> tuple[np.ndarray, float]:
    """Solve S w = m₊ − m₋ with S = (1 − a) C + a μ I, through the smaller of n and d."""
    centred = np.concatenate([P - P.mean(axis=0), N - N.mean(axis=0)])
    n, d = centred.shape
    mu = float((centred**2).sum() / (n * d))
    if mu == 0.0:  # every group is one point
        return difference, 1.0
    a = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    a = min(1.0, max(a, 1e-6))
    if d <= n:
        values, vectors = np.linalg.eigh(centred.T @ centred / n)
    else:
        values, left = np.linalg.eigh(centred @ centred.T / n)
        keep = values > values[-1] * 1e-12
        values = values[keep]
        vectors = centred.T @ left[:, keep] / np.sqrt(n * values)
    inside = vectors.T @ difference
    ridge = a * mu
    shrunk = 1 / ((1 - a) * np.maximum(values, 0) + ridge) - 1 / ridge
    return difference / ridge + vectors @ (shrunk * inside), a
