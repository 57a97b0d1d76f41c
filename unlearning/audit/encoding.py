"""What features hold of a class, whatever the units in which they hold it.

Every figure here is the same for features that are scaled, mixed or put in another order by any
invertible linear map: a network and its re-parametrisations give one value.
"""

from __future__ import annotations

__all__ = ["Whitening", "few_shot_recall", "linearly_kept"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conceptlab.arrays import as_floats, as_numpy
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

_RANK = 1e-5
"""Standard deviation of a combination of standardised features below which it is rounding."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """Coordinates in which samples have mean 0 and covariance 1.

    Two sets of features that are a linear map of one another get the same coordinates but for
    a rotation.

    Attributes
    ----------
    mean : ndarray of shape (d,)
    basis : ndarray of shape (d, r)
        r is at most the rank, and at most a quarter of the samples.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(50, 3)) * [1, 10, 100]
    >>> Z = Whitening.of(X)(X)
    >>> np.allclose(np.cov(Z.T, bias=True), np.eye(3))
    True
    """

    mean: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(cls, features: Any) -> Whitening:
        """Find the coordinates from samples.

        Parameters
        ----------
        features : array-like of shape (n, d)
            n at least 2.

        Returns
        -------
        Whitening
        """
        X = as_floats(features, "features").astype(np.float64)
        if X.ndim != 2 or len(X) < 2:
            raise InputError(
                f"Expected features (n, d) of two samples or more, got shape {X.shape}.",
                code="CL-INPUT-SHAPE",
            )
        mean, scale = X.mean(axis=0), X.std(axis=0)
        alive = scale > 1e-7 * np.abs(X).max(axis=0, initial=1e-30)
        divisor = np.where(alive, scale, 1.0)
        Z = np.where(alive, (X - mean) / divisor, 0.0)
        values, vectors = np.linalg.eigh(Z.T @ Z / len(Z))
        kept = np.flatnonzero(values > _RANK**2)[::-1][: max(1, len(X) // 4)]
        basis = vectors[:, kept] / np.sqrt(values[kept]) / divisor[:, None]
        return cls(mean, np.where(alive[:, None], basis, 0.0))

    def __call__(self, features: Any) -> np.ndarray:
        """Give the coordinates of samples, float64 (n, r)."""
        return np.asarray((as_numpy(features).astype(np.float64) - self.mean) @ self.basis)


def linearly_kept(after: Any, before: Any, after_class: Any, before_class: Any) -> float:
    """Measure how much of the original's features a linear map reads from a model's.

    Parameters
    ----------
    after, before : array-like of shape (n, d), (n, e)
        Features of the model and of the original on retained samples; the map is fitted here.
    after_class, before_class : array-like of shape (m, d), (m, e)
        The same on samples of the forgotten class; read here.

    Returns
    -------
    float
        R², 1 where the model's features of the class are the original's in other units, as in
        every mask; at most 0 where they tell nothing of them. How high a model gets that never
        saw the class depends on the network, so it is judged beside retrained models only.

    Notes
    -----
    Least squares, in the coordinates of :class:`Whitening`; the total is the class's squared
    distance from the mean of the retained samples, so the class's place counts as well as its
    spread.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.normal(size=(60, 4)), rng.normal(size=(9, 4))
    >>> mixed = rng.normal(size=(4, 4))
    >>> round(linearly_kept(A @ mixed, A, B @ mixed, B), 6)
    1.0
    """
    first, second = as_numpy(before).astype(np.float64), as_numpy(before_class).astype(np.float64)
    map_ = Whitening.of(after)
    A, a = map_(after), map_(after_class)
    mean = first.mean(axis=0)
    W = A.T @ (first - mean) / len(A)  # A has covariance 1
    total = float(((second - mean) ** 2).sum())
    if total == 0:
        return 1.0
    return 1 - float(((second - mean - a @ W) ** 2).sum()) / total


def few_shot_recall(
    train: Any,
    y_train: Any,
    test: Any,
    y_test: Any,
    classes: Sequence[int],
    *,
    shots: Sequence[int] = (5, 20),
    n_draws: int = 20,
    random_state: RandomState = 0,
) -> list[float]:
    """Teach the class to a linear classifier on frozen features with few samples of it.

    Parameters
    ----------
    train : array-like of shape (n, d)
        Features on training samples of all classes.
    y_train : array-like of shape (n,)
    test : array-like of shape (m, d)
        Features on test samples.
    y_test : array-like of shape (m,)
    classes : sequence of int
        The forgotten ones.
    shots : sequence of int
        How many samples of each forgotten class the classifier gets; of the others it gets all.
    n_draws : int
        Draws of them, over which recall is averaged.
    random_state : int, RandomState, Generator or None
        Of the draws.

    Returns
    -------
    list of float
        For each number of samples the share of test samples of the classes that it names rightly.

    Notes
    -----
    Linear discriminant analysis: the covariance within classes is that of the retained ones, a
    mean is that of the samples given, less the bias that its own noise has on distances.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(90) % 3
    >>> X = 4 * np.eye(3)[y] + rng.normal(size=(90, 3))
    >>> few_shot_recall(X[:60], y[:60], X[60:], y[60:], [2], shots=[5])[0] > 0.8
    True
    """
    X, held = as_numpy(train).astype(np.float64), as_numpy(test).astype(np.float64)
    y, truth = as_numpy(y_train), as_numpy(y_test)
    gone = [int(c) for c in classes]
    kept = [int(c) for c in np.unique(y) if c not in gone]
    means = {c: X[y == c].mean(axis=0) for c in kept}
    within = np.concatenate([X[y == c] - means[c] for c in kept])
    map_ = Whitening.of(within)
    rng = numpy_generator(draw_seed(random_state))
    mine = np.isin(truth, gone)
    points, labels = map_(held[mine]), truth[mine]
    centres = np.stack([map_(means[c][None])[0] for c in kept])
    noise = [centres.shape[1] / int((y == c).sum()) for c in kept]
    own = {c: map_(X[y == c]) for c in gone}
    names = np.array([*kept, *gone])
    found = []
    for size in shots:
        recalls = []
        for _ in range(n_draws):
            drawn, bias = [], []
            for c in gone:
                rows = rng.permutation(len(own[c]))[:size]
                drawn.append(own[c][rows].mean(axis=0))
                bias.append(centres.shape[1] / len(rows))
            M = np.concatenate([centres, np.stack(drawn)])
            scores = points @ M.T - ((M**2).sum(axis=1) - np.array([*noise, *bias])) / 2
            recalls.append(float(np.mean(names[scores.argmax(axis=1)] == labels)))
        found.append(float(np.mean(recalls)))
    return found
