"""A linear head from which samples are removed with a proof: Newton's step, its bound, noise."""

from __future__ import annotations

__all__ = ["CertifiedHead", "Removal"]

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy, check_features, like_input
from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Real, Rules
from conceptlab.seeds import RandomState, draw_seed

_THIRD = 1 / (6 * math.sqrt(3))  # the largest third derivative of log(1 + exp(-z))


@dataclass(frozen=True)
class Removal:
    """What one removal cost of the budget.

    Attributes
    ----------
    n_removed : int
        Samples taken out.
    bound : float
        Of the norm of the gradient that the step leaves; 0 for squared errors.
    epsilon : float
        Spent by all removals since the last training.
    retrained : bool
        Whether the budget was spent, so that the head was trained anew instead.

    Examples
    --------
    >>> Removal(1, 0.0, 0.0, False).retrained
    False
    """

    n_removed: int
    bound: float
    epsilon: float
    retrained: bool


class CertifiedHead(ClassifierMixin, BaseEstimator):
    """Linear classifier on features whose samples can be removed with a proof.

    One head for each class against the others minimises

    ``sum_i loss(y_i w·x_i) + lam n / 2 |w|² + b·w``

    with ``b`` drawn once from a normal law of spread `sigma`. Removing samples is one step
    of Newton's method on what is left. The gradient that it leaves has a norm of at most
    ``g |X| |(X v)²|``, v the step and g the bound of the loss's third derivative. While
    the sum of these bounds is at most ``sigma epsilon / sqrt(2 log(1.5 / delta))``, the weights
    are *proved* to be (epsilon, delta)-indistinguishable from weights trained without the
    samples; beyond that :meth:`remove` trains anew.

    Parameters
    ----------
    lam : float
        Ridge penalty, above 0.
    loss : {"logistic", "squared"}
        With squared errors the step is exact: it is retraining, in closed form.
    epsilon : float
        How far densities may lie apart, as a logarithm.
    delta : float
        Chance with which they may lie farther, in (0, 1).
    sigma : float
        Spread of the noise; more noise pays for more removals and costs accuracy. With 0
        every removal that leaves a gradient trains anew.
    random_state : int, RandomState, Generator or None
        Of the noise.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Labels that are left.
    coef_ : ndarray of shape (C, d)
        Weights.
    intercept_ : ndarray of shape (C,)
        Weights of a constant feature, which are penalised, too.
    epsilon_ : float
        Spent since the last training.
    n_features_in_ : int
        Features.

    Notes
    -----
    The proof is about this head, on features given as they are: an encoder that was trained on
    the samples still knows them. It holds for whoever sees weights, not for the stored
    features, which the head keeps to train anew (removed ones are erased). The heads'
    noise and gradients are taken as one vector, so that epsilon is that of all together.

    References
    ----------
    Guo, Goldstein, Hannun and van der Maaten, "Certified Data Removal from Machine Learning
    Models", ICML 2020: algorithm 2, theorem 3; its corollary 1 with the fourth power
    of ``X v`` in place of a product of two norms, which is smaller.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(300) % 3
    >>> X = np.eye(3)[y] + 0.1 * rng.normal(size=(300, 3))
    >>> head = CertifiedHead(random_state=0).fit(X, y)
    >>> found = head.remove([0, 5])
    >>> found.retrained, 0 < found.epsilon <= 1, head.score(X, y)
    (False, True, 1.0)
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    epsilon_: float
    _X: np.ndarray
    _y: np.ndarray
    _rows: np.ndarray
    _W: np.ndarray
    _noise: np.ndarray
    _left: float
    _rules = Rules(
        lam=Real(above=0),
        loss=OneOf("logistic", "squared"),
        epsilon=Real(above=0),
        delta=Real(above=0, below=1),
        sigma=Real(least=0),
    )

    def __init__(
        self,
        lam: float = 1e-2,
        *,
        loss: str = "logistic",
        epsilon: float = 1.0,
        delta: float = 1e-4,
        sigma: float = 1.0,
        random_state: RandomState = None,
    ) -> None:
        self.lam = lam
        self.loss = loss
        self.epsilon = epsilon
        self.delta = delta
        self.sigma = sigma
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on features.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features, float.
        y : array-like of shape (n,)
            Labels of two classes or more.

        Returns
        -------
        CertifiedHead

        Raises
        ------
        InputError
            Wrong shapes, NaN, one class only.
        """
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import column_or_1d

        self._rules.check(self)
        features = as_numpy(check_features(self, X, reset=True)).astype(np.float64)
        labels = column_or_1d(as_numpy(y), warn=True)
        check_classification_targets(labels)
        if len(labels) != len(features):
            raise InputError(
                f"X has {len(features)} rows and y {len(labels)}; give one label for each.",
                code="CL-INPUT-SHAPE",
            )
        self._X = np.hstack([features, np.ones((len(features), 1))])
        self._y = labels
        self._rows = np.arange(len(labels))
        self._draws = np.random.default_rng(draw_seed(self.random_state))
        self._train()
        return self

    def remove(self, rows: ArrayLike) -> Removal:
        """Remove samples, with the proof that nothing of them is left beyond epsilon.

        Parameters
        ----------
        rows : array-like of int, or of bool with one entry for each sample of `fit`
            Numbers of samples in the order that `fit` got them. Several calls add up.

        Returns
        -------
        Removal

        Raises
        ------
        InputError
            No such sample, or one that was removed before; fewer than two classes left.
        """
        check_is_fitted(self, "coef_")
        gone = self._places(rows)
        kept = np.ones(len(self._y), dtype=bool)
        kept[gone] = False
        left = np.unique(self._y[kept])
        if len(left) < 2:
            raise InputError(
                f"After this {len(left)} class is left; at least two are needed to tell apart. "
                "Remove fewer samples.",
                code="CL-INPUT-FEW",
            )
        self._X, self._y, self._rows = self._X[kept], self._y[kept], self._rows[kept]
        stay = np.isin(self.classes_, left)  # the heads of other classes stand by themselves
        self.classes_, self._W = self.classes_[stay], self._W[stay]
        self._noise = self._noise[stay]
        bounds = [self._step(k) for k in range(len(self.classes_))]
        bound = float(np.linalg.norm(bounds))
        self._left += bound
        retrained = self._left > self._budget()
        if retrained:
            self._train()
        self._publish()
        return Removal(len(gone), bound, self.epsilon_, retrained)

    @like_input
    def decision_function(self, X: ArrayLike) -> Any:
        """Give a score for each class.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, C), or (n,) for two classes
            For two classes the half of their difference. Like in, like out.
        """
        return torch.from_numpy(self._scores(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Name the class of each sample.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
        """
        scores = self._scores(X)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def residual(self) -> float:
        """Compute the norm of the gradient that is left: never above the sum of the bounds.

        Returns
        -------
        float
        """
        check_is_fitted(self, "coef_")
        return self._residual()

    def _scores(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self, "coef_")
        features = as_numpy(check_features(self, X, reset=False)).astype(np.float64)
        scores = features @ self.coef_.T + self.intercept_
        return np.asarray((scores[:, 1] - scores[:, 0]) / 2 if len(self.classes_) == 2 else scores)

    # -- parts --------------------------------------------------------------------------
    def _places(self, rows: ArrayLike) -> np.ndarray:
        wanted = as_numpy(rows).ravel()
        if wanted.dtype == bool:
            wanted = np.flatnonzero(wanted)
        if not len(wanted) or wanted.dtype.kind not in "iu":
            raise InputError(
                "rows must be numbers of samples, or a mask with one entry for each, and at least "
                f"one; got {len(wanted)} of {wanted.dtype}.",
                code="CL-INPUT-EMPTY" if not len(wanted) else "CL-INPUT-TYPE",
            )
        wanted = np.unique(wanted)
        absent = wanted[~np.isin(wanted, self._rows)]
        if len(absent):
            raise InputError(
                f"Sample {int(absent[0])} is not there: it was removed before, or fit got fewer.",
                code="CL-INPUT-LABELS",
            )
        return np.flatnonzero(np.isin(self._rows, wanted))

    def _signs(self, k: int) -> np.ndarray:
        return np.where(self._y == self.classes_[k], 1.0, -1.0)

    def _slopes(self, k: int, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivatives of each sample's loss by its score."""
        sign = self._signs(k)
        score = self._X @ w
        if self.loss == "squared":
            return score - sign, np.ones_like(score)
        p = 0.5 * (1 + np.tanh(-sign * score / 2))  # of the other side
        return -sign * p, p * (1 - p)

    def _gradient(self, k: int) -> np.ndarray:
        first, _ = self._slopes(k, self._W[k])
        return np.asarray(self._X.T @ first + self.lam * len(self._y) * self._W[k] + self._noise[k])

    def _newton(self, k: int) -> np.ndarray:
        _, second = self._slopes(k, self._W[k])
        H = (self._X.T * second) @ self._X
        H[np.diag_indices_from(H)] += self.lam * len(self._y)
        return np.asarray(-np.linalg.solve(H, self._gradient(k)))

    def _step(self, k: int) -> float:
        """Take Newton's step on what is left, and bound the gradient that stays."""
        v = self._newton(k)
        self._W[k] += v
        if self.loss == "squared":
            return 0.0
        top = float(np.linalg.norm(self._X, 2))
        return _THIRD * top * float(np.linalg.norm((self._X @ v) ** 2))

    def _train(self) -> None:
        self.classes_ = np.unique(self._y)
        if len(self.classes_) < 2:
            raise InputError(
                f"y holds one class only ({self.classes_[0]!r}); give two or more, so that "
                "the classifier has something to tell apart.",
                code="CL-INPUT-FEW",
            )
        shape = (len(self.classes_), self._X.shape[1])
        self._noise = float(self.sigma) * self._draws.standard_normal(shape)
        self._W = np.zeros(shape)
        for k in range(len(self.classes_)):
            self._descend(k)
        self._left = self._residual()
        self._publish()

    def _residual(self) -> float:
        return float(np.linalg.norm([self._gradient(k) for k in range(len(self.classes_))]))

    def _descend(self, k: int, most: int = 100) -> None:
        """Newton's method, its step halved until the loss falls."""
        value = self._value(k, self._W[k])
        for _ in range(most):
            slope = self._gradient(k)
            if float(np.linalg.norm(slope)) <= 1e-10 * len(self._y):
                return
            v, pace = self._newton(k), 1.0
            while pace > 1e-6:
                found = self._value(k, self._W[k] + pace * v)
                if found <= value + 1e-4 * pace * float(slope @ v):
                    break
                pace /= 2
            else:
                return  # as far as numbers go
            self._W[k] += pace * v
            value = found

    def _value(self, k: int, w: np.ndarray) -> float:
        sign, score = self._signs(k), self._X @ w
        if self.loss == "squared":
            losses = 0.5 * (score - sign) ** 2
        else:
            losses = np.logaddexp(0.0, -sign * score)
        penalty = self.lam * len(self._y) / 2 * float(w @ w)
        return float(losses.sum()) + penalty + float(self._noise[k] @ w)

    def _scale(self) -> float:
        return math.sqrt(2 * math.log(1.5 / float(self.delta)))

    def _budget(self) -> float:
        """Give the norm of the gradient that may be left; rounding alone is none."""
        return max(float(self.sigma) * float(self.epsilon) / self._scale(), 1e-9 * len(self._y))

    def _publish(self) -> None:
        self.coef_ = self._W[:, :-1].copy()
        self.intercept_ = self._W[:, -1].copy()
        spent = self._left * self._scale()
        self.epsilon_ = spent / float(self.sigma) if self.sigma else 0.0
