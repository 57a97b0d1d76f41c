"""Convex factorisation: concepts are weighted averages of rows of the data."""

from __future__ import annotations

__all__ = ["ConvexNMF"]

import warnings
from typing import Any, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import as_numpy
from conceptlab.extractors.base import ConceptExtractor, check_option
from conceptlab.extractors.coding import CodingModule, nnls
from conceptlab.extractors.hals import sweep
from conceptlab.extractors.streaming import frobenius_error
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

_INITS = ("kmeans", "furthest", "random")
_INNER_STEPS = 5
_CHECK_EVERY = 10


class ConvexNMF(ConceptExtractor):
    """A ~ U W with U >= 0 and W = C A, where rows of C >= 0 sum to one.

    Each concept is an average of real rows, which tells where it comes from: its largest weights
    name the patches that make it up. The problem of Ding, Li and Jordan [1]_ (there
    X ~ X W G'), for data of any sign. U is solved by coordinate descent, C by accelerated projected
    gradient steps [2]_; the scale that the factorisation leaves free makes rows of C sum to
    one. Nothing of size n x n is made: a step costs products of (k, n) with (n, p). New rows
    are coded by exact non-negative least squares in W.

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most min(n, p).
    init : {"kmeans", "furthest", "random"}, default="kmeans"
        Start of C: clusters, as in [1]_; single rows, each the one worst coded by those
        before (successive projection); or random rows.
    max_iter : int, default=300
        Most steps; each holds several of the inner ones on C.
    tol : float, default=1e-5
        Stop when ten steps lower the squared error by less than this share.
    n_sweeps : int, default=3
        Sweeps over U per step.
    device : str or torch.device, default="auto"
        Where to compute.
    random_state : int, RandomState, Generator or None, default=None
        Of the start.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        W = C A, in the hull of the rows; sorted by the energy of their coefficients.
    row_weights_ : numpy.ndarray of shape (k, n)
        C for the rows of the fit.
    n_concepts_ : int
        k.
    reconstruction_err_ : float
        Frobenius norm of A - U W with exact codes.
    n_iter_ : int
        Steps.
    history_ : numpy.ndarray of shape (n_iter_,)
        Squared error after each step; never rises.
    seed_ : int
        The seed that was used.
    n_features_in_ : int
        p.

    References
    ----------
    .. [1] C. Ding, T. Li and M. Jordan, "Convex and semi-nonnegative matrix factorizations",
       IEEE TPAMI 32(1), 2010, section 2.2.
    .. [2] A. Beck and M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for
       linear inverse problems", SIAM J. Imaging Sci. 2(1), 2009.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.random.default_rng(0).normal(size=(40, 6))
    >>> model = ConvexNMF(3, random_state=0).fit(A)
    >>> bool(np.allclose(model.row_weights_ @ A, model.components_))
    True
    """

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        init: str = "kmeans",
        max_iter: int = 300,
        tol: float = 1e-5,
        n_sweeps: int = 3,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.n_sweeps = n_sweeps
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the concepts of `X`.

        Parameters
        ----------
        X : array-like of shape (n, p)
            Activations of any sign.
        y : None
            Ignored.

        Returns
        -------
        ConvexNMF

        Raises
        ------
        InputError
            Non-finite entries, fewer than two rows, all zeros, or too many concepts.
        """
        A = self._check_data(X)
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        seed = draw_seed(self.random_state)
        C = _start(A, k, check_option("init", self.init, _INITS), seed)
        C, U, history, converged = _solve(A, C, self.max_iter, self.tol, self.n_sweeps)
        W = C @ A
        order = (U.square().sum(1) * W.square().sum(1)).argsort(descending=True)
        C, W = C[order], W[order]
        self.components_ = as_numpy(W)
        self.row_weights_ = as_numpy(C)
        self.seed_ = seed
        self.n_iter_ = len(history)
        self.history_ = np.asarray(history)
        self.reconstruction_err_ = frobenius_error(A, nnls(A, W), W)
        if not converged and self.tol > 0:
            warnings.warn(
                f"ConvexNMF stopped after {self.n_iter_} steps before it reached tol={self.tol}. "
                "Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def as_module(self) -> CodingModule:
        """Give the exact coding as a differentiable module (..., p) -> (..., k).

        Returns
        -------
        CodingModule
        """
        check_is_fitted(self)
        return CodingModule(self.components_)


def _start(A: torch.Tensor, k: int, init: str, seed: int) -> torch.Tensor:
    """Make C (k, n) with rows that sum to one."""
    n = len(A)
    C = torch.zeros(k, n, dtype=A.dtype, device=A.device)
    if init == "kmeans":
        from sklearn.cluster import KMeans

        labels = KMeans(k, n_init=4, random_state=seed % 2**32).fit(as_numpy(A)).labels_
        C = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), k).to(A).mT.contiguous()
        empty = C.sum(1) == 0
        C[empty] = 1.0
    elif init == "random":
        C[range(k), torch.from_numpy(numpy_generator(seed).choice(n, k, replace=False))] = 1
    else:
        rest = A.clone()
        for row in C:
            worst = int(rest.square().sum(1).argmax())
            row[worst] = 1
            direction = rest[worst] / torch.linalg.vector_norm(rest[worst]).clamp(min=1e-30)
            rest = rest - (rest @ direction)[:, None] * direction
    return C / C.sum(1, keepdim=True)


@torch.no_grad()
def _solve(
    A: torch.Tensor, C: torch.Tensor, max_iter: int, tol: float, n_sweeps: int
) -> tuple[torch.Tensor, torch.Tensor, list[float], bool]:
    """Alternate between U (k, n) and C (k, n); the error never rises."""
    W = C @ A
    U = nnls(A, W).mT.contiguous()
    energy = float(torch.linalg.vector_norm(A)) ** 2
    largest = float(torch.linalg.eigvalsh(A.mT @ A if len(A) > A.shape[1] else A @ A.mT)[-1])
    history: list[float] = []
    for step in range(1, max_iter + 1):
        U = sweep(U[None], (W @ W.mT)[None], (W @ A.mT)[None], n_sweeps)[0]
        S, P = U @ U.mT, U @ A
        C, W = _improve_weights(A, C, W, S, P, largest)
        total = C.sum(1, keepdim=True).clamp(min=torch.finfo(A.dtype).tiny)
        C, W, U = C / total, W / total, U * total
        S, P = S * (total @ total.mT), P * total
        error = energy - 2 * float((P * W).sum()) + float((S * (W @ W.mT)).sum())
        history.append(max(error, 0.0))
        if history[-1] <= torch.finfo(A.dtype).eps * energy:
            return C, U, history, True
        if step > _CHECK_EVERY and step % _CHECK_EVERY == 0:
            before = history[-1 - _CHECK_EVERY]
            if before - history[-1] <= tol * history[-1]:
                return C, U, history, True
    return C, U, history, False


def _improve_weights(
    A: torch.Tensor,
    C: torch.Tensor,
    W: torch.Tensor,
    S: torch.Tensor,
    P: torch.Tensor,
    largest: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower |A - U C A|^2 over C >= 0: FISTA, scaled by row, and begun anew when it rises.

    The gradient is (S C A - P) A'. Rows of C are scaled by sqrt(S_jj), so that a rarely used
    concept moves as fast as others; the Lipschitz constant is then the largest eigenvalue of
    the correlation of U times that of A'A.
    """
    d = S.diagonal().clamp(min=0).sqrt()[:, None]
    live = d > 0
    inverse = torch.where(live, 1 / torch.where(live, d, 1), 0)
    correlation = S * (inverse @ inverse.mT)
    rate = 1 / max(float(torch.linalg.eigvalsh(correlation)[-1]) * largest, 1e-30)
    best, C_ahead, W_ahead, t = _objective(S, P, W), C, W, 1.0
    for _ in range(_INNER_STEPS):
        gradient = (S @ W_ahead - P) @ A.mT
        C_new = (C_ahead - rate * inverse.square() * gradient).clamp(min=0)
        W_new = C_new @ A
        value = _objective(S, P, W_new)
        if value > best:
            if C_ahead is C:
                break
            C_ahead, W_ahead, t = C, W, 1.0
            continue
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        momentum = (t - 1) / t_new
        C_ahead = C_new + momentum * (C_new - C)
        W_ahead = W_new + momentum * (W_new - W)
        C, W, best, t = C_new, W_new, value, t_new
    return C, W


def _objective(S: torch.Tensor, P: torch.Tensor, W: torch.Tensor) -> float:
    return float((S * (W @ W.mT)).sum() - 2 * (P * W).sum())
