"""Post-hoc concept bottlenecks: a sparse head on concept scores, and what it cannot say."""

from __future__ import annotations

__all__ = ["PostHocCBM"]

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.metrics import r2_score

from bottlenecks.base import Bottleneck
from bottlenecks.heads import SparseLinearHead
from bottlenecks.heads.losses import LOSSES
from bottlenecks.targets import Target
from conceptlab import ConceptBank
from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.parameters import Real, Rules
from conceptlab.zeroshot.labels import checked_labels

_RULES = Rules(
    residual_l2=Real(
        above=0, hint="without a penalty the residual takes over what the concepts say"
    )
)


class PostHocCBM(Bottleneck):
    """Put a sparse linear head on concept scores of any backbone (PCBM, PCBM-h).

    Logits are ``A Wᵀ + b`` with A the standardised scores of X on the bank. With
    ``residual=True`` the head is frozen and ``X Rᵀ + r`` added, fitted to what
    is left: PCBM-h, which is as accurate as a linear probe and tells how much
    of its decision does not go through concepts.

    Parameters
    ----------
    bank : ConceptBank, optional
        Concepts in the space of X; from examples
        (:meth:`conceptlab.ConceptBank.from_examples`) or from texts. None
        means that the columns of X are scores.
    residual : bool
        Whether to fit the part that goes round the concepts.
    target : {"classes", "labels", "values"}
        What y holds: a class a row; several labels, (n, L) of 0 and 1; numbers, (n,) or (n, T).
    class_weight : None, "balanced" or dict
        Of classes; multiplies the weights of rows.
    lam, nec, alpha : optional
        Of the head; see :class:`bottlenecks.SparseLinearHead`.
    residual_l2 : float
        Weight of the mean of the squared entries of R, above 0; 0.001 was
        published.
    max_iter : int
        Most iterations of head and residual.
    device : str or torch.device

    Attributes
    ----------
    coef_, intercept_, classes_, concept_names_ : see Bottleneck
    residual_coef_ : ndarray of shape (K, d), float64
        R; only with ``residual=True``.
    residual_intercept_ : ndarray of shape (K,), float64
        r.
    residual_share_ : float
        Mean over the rows of the fit of ``|r_i|₁ / (|r_i|₁ + |c_i|₁)``, where
        c_i and r_i are the logits through and round the concepts, less their
        mean over the classes; 0 without a residual. See :meth:`residual_share`.
    residual_gradient_ : float
        Largest entry of the gradient at the residual's optimum: its certificate.
    kkt_, lam_ : float
        Of the head.
    n_iter_ : int
        Iterations of the head.
    concept_quality_ : dict of str to float, or None
        Cross-validated area under the ROC curve of each direction, where the
        bank came from examples.

    Notes
    -----
    The published head is scikit-learn's ``SGDClassifier``, which is one
    classifier against the rest for each class; this one is a softmax. The
    published residual takes 20 epochs of Adam; the problem is convex, and here
    it is solved. A published bank holds support vector machines;
    ``ConceptBank.from_examples(..., method="svm")`` gives those.

    References
    ----------
    Yuksekgonul, Wang and Zou, Post-hoc Concept Bottleneck Models, ICLR 2023,
    equations 1 (PCBM) and 2 (PCBM-h).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 6))
    >>> y = np.argmax(X[:, :3], axis=1)
    >>> from conceptlab import ConceptBank
    >>> bank = ConceptBank(np.eye(6)[[0, 1, 5]], ["red", "round", "loud"], space=None)
    >>> plain, hybrid = (PostHocCBM(bank, residual=r).fit(X, y) for r in (False, True))
    >>> hybrid.score(X, y) > plain.score(X, y), hybrid.residual_share_ > 0.3
    (True, True)
    >>> plain.residual_share_, plain.concept_names_
    (0.0, ['red', 'round', 'loud'])
    """

    residual_coef_: np.ndarray
    residual_intercept_: np.ndarray

    def __init__(
        self,
        bank: ConceptBank | None = None,
        *,
        residual: bool = False,
        target: str = "classes",
        class_weight: Any = None,
        lam: float | None = None,
        nec: float | None = None,
        alpha: float = 0.99,
        residual_l2: float = 1e-3,
        max_iter: int = 2000,
        device: str | torch.device = "auto",
    ) -> None:
        self.bank = bank
        self.residual = residual
        self.target = target
        self.class_weight = class_weight
        self.lam = lam
        self.nec = nec
        self.alpha = alpha
        self.residual_l2 = residual_l2
        self.max_iter = max_iter
        self.device = device

    def _fit_scores(
        self, S: torch.Tensor, target: Target, X: torch.Tensor, weight: np.ndarray | None
    ) -> None:
        _RULES.check(self)
        A = self._activations(S)
        head = SparseLinearHead(
            self.lam,
            self.nec,
            target=self.target,
            alpha=self.alpha,
            max_iter=self.max_iter,
            device=self.device,
        ).fit(A, target.values, weight)
        self.coef_, self.intercept_ = head.coef_, head.intercept_
        self.lam_, self.kkt_ = float(head.lam_), float(head.kkt_)
        self.n_iter_ = max(1, int(head.n_iter_))
        self.concept_quality_ = _quality(self.bank)
        for name in ("residual_coef_", "residual_intercept_"):
            if hasattr(self, name):
                delattr(self, name)
        self.residual_share_, self.residual_gradient_ = 0.0, 0.0
        if self.residual:
            rows, through = (as_numpy(v).astype(np.float64) for v in (X, self._head(A)))
            R, r, self.residual_gradient_ = fit_residual(
                rows, through, target, float(self.residual_l2), int(self.max_iter), weight
            )
            self.residual_coef_, self.residual_intercept_ = R, r
            share = self._share(through, rows @ R.T + r)
            self.residual_share_ = float(np.average(share, weights=weight))

    def residual_share(self, X: ArrayLike) -> np.ndarray:
        """Tell how much of each row's logits goes round the concepts.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), float64
            In [0, 1]; 0 without a residual.
        """
        rows, A, _ = self._forward(X)
        around = self._residual(rows)
        through = as_numpy(self._head(A)).astype(np.float64)
        if around is None:
            return np.zeros(len(through))
        return self._share(through, as_numpy(around).astype(np.float64))

    def concept_accuracy(self, X: ArrayLike, y: ArrayLike) -> float:
        """Give the accuracy of the concepts alone, the residual left out; R² for numbers.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : array-like of shape (n,)

        Returns
        -------
        float
        """
        _, A, _ = self._forward(X)
        said = self._said(as_numpy(self._head(A)))
        if self.target == "values":
            return float(r2_score(as_numpy(y), said))
        if self.target == "classes":
            return float((said == checked_labels(y, X)).mean())
        return float((said == as_numpy(y)).all(axis=1).mean())

    def _share(self, through: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Give the part of the logits that goes round; of classes, less what all share."""
        parts = [through, around]
        if self.target == "classes":
            parts = [v - v.mean(axis=1, keepdims=True) for v in parts]
        sizes = [np.abs(v).sum(axis=1) for v in parts]
        total = sizes[0] + sizes[1]
        share: np.ndarray = np.divide(sizes[1], total, out=np.zeros_like(total), where=total > 0)
        return share


def fit_residual(
    X: np.ndarray,
    logits: np.ndarray,
    target: Target,
    l2: float,
    max_iter: int,
    weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Minimise mean loss(logits + X Rᵀ + r, y) + l2 mean(R²) by L-BFGS in float64.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    logits : ndarray of shape (n, K)
        Of the frozen head.
    target : Target
        Of the rows.
    l2 : float
    max_iter : int
    weight : ndarray of shape (n,), optional

    Returns
    -------
    R : ndarray of shape (K, d)
    r : ndarray of shape (K,)
        Of mean 0 for classes.
    gradient : float
        Largest entry at the end.
    """
    (n, d), K = X.shape, logits.shape[1]
    # The solver walks in standard units, with the penalty on R as it is given.
    share = np.full(n, 1 / n) if weight is None else weight / weight.sum()
    mean = share @ X
    scale = np.sqrt(share @ (X - mean) ** 2)
    scale = np.where(scale > 0, scale, 1.0)
    Z = (X - mean) / scale
    loss, wanted = LOSSES[target.kind], torch.from_numpy(target.values)
    ridge = l2 / (K * d) / scale**2

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        V, v = flat[: K * d].reshape(K, d), flat[K * d :]
        each, P = loss.value_and_mean(torch.from_numpy(logits + Z @ V.T + v), wanted)
        value = share @ each.numpy() + (ridge * V**2).sum()
        slope = loss.residual(P, wanted).numpy() * share[:, None]
        return value, np.concatenate([(slope.T @ Z + 2 * ridge * V).ravel(), slope.sum(axis=0)])

    found = minimize(
        objective,
        np.zeros(K * d + K),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter,
            "ftol": 1e-14,
            "gtol": 1e-7,
            "maxcor": 20,
        },
    )
    V, v = found.x[: K * d].reshape(K, d), found.x[K * d :]
    R = V / scale
    r = v - R @ mean
    if target.kind == "classes":
        r = r - r.mean()
    return R, r, float(np.abs(found.jac).max())


def _quality(bank: ConceptBank | None) -> dict[str, float] | None:
    column = None if bank is None else bank.meta.get("concepts", {}).get("auc")
    if bank is None or column is None:
        return None
    return {
        name: float(value)
        for name, value in zip(bank.names, column, strict=True)
        if value is not None
    }
