"""Convex factorisation: concepts are weighted averages of rows of the data."""

from __future__ import annotations

__all__ = ["ConvexNMF"]

import warnings
from typing import Self

import numpy as np
import torch
from scipy.optimize import nnls as nnls_by_scipy
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.coding import CodingModule, nnls, nnls_gram
from conceptlab.extractors.hals import sweep
from conceptlab.extractors.streaming import frobenius_error
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

_INITS = ("kmeans", "furthest", "random")
_RULES = Rules(max_iter=Whole(1), n_sweeps=Whole(1), tol=Real(least=0))
_NEW_ROWS = 20
_START_ROWS = 50
_CHECK_EVERY = 10


class ConvexNMF(ConceptExtractor):
    """A ~ U W with U >= 0 and W = C A, where rows of C >= 0 sum to one.

    Each concept is an average of real rows, which tells where it comes from: its largest weights
    name the patches that make it up. The problem of Ding, Li and Jordan [1]_ (there
    X ~ X W G'), for data of any sign. U is solved by coordinate descent; rows of C, which come
    out sparse, one by one and exactly over a working set of data rows (an active-set method
    in place of the multiplicative updates of [1]_, which need n x n memory and keep C dense).
    The scale that the factorisation leaves free makes rows of C sum to one. New rows are coded by
    exact non-negative least squares in W.

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most min(n, p).
    init : {"kmeans", "furthest", "random"}, default="kmeans"
        Start of C: the rows nearest to cluster centres; single rows, each the one worst coded
        by those before (successive projection); or random rows.
    max_iter : int, default=300
        Most steps.
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

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
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
        _RULES.check(self)
        A = self._check_data(X)
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        seed = draw_seed(self.random_state)
        C = _start(A, k, OneOf(*_INITS).check("init", self.init), seed)
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

        clusters = KMeans(k, n_init=4, random_state=seed % 2**32).fit(as_numpy(A))
        for row, centre in zip(C, clusters.cluster_centers_, strict=True):
            # The rows around the centre; all of a large cluster would be a large system.
            distance = torch.linalg.vector_norm(A - torch.from_numpy(centre).to(A), dim=1)
            row[distance.topk(min(_START_ROWS, max(n // k, 1)), largest=False).indices] = 1
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
    history: list[float] = []
    for step in range(1, max_iter + 1):
        U = sweep(U[None], (W @ W.mT)[None], (W @ A.mT)[None], n_sweeps)[0]
        S, P = U @ U.mT, U @ A
        for j in range(len(C)):
            _solve_row(A, C, W, S, P, j)
        total = C.sum(1, keepdim=True)
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


def _solve_row(
    A: torch.Tensor, C: torch.Tensor, W: torch.Tensor, S: torch.Tensor, P: torch.Tensor, j: int
) -> None:
    """Lower the error over row j of C, the others fixed; changes C and W in place.

    The problem is |c A - b|^2 with the row b that would be best without the constraint. It is
    solved exactly over the rows of A that c uses and the ones that would lower it most; so each
    visit may add some rows and drop any number.
    """
    if not float(S[j, j]) > 0:
        return
    miss = (S[j] @ W - P[j]) / S[j, j]  # w_j - b
    gradient = A @ miss
    steepest = gradient.topk(min(_NEW_ROWS, len(A)), largest=False).indices
    working = torch.cat([C[j].nonzero()[:, 0], steepest[gradient[steepest] < 0]]).unique()
    part, target = A[working], W[j] - miss
    if len(working) < A.shape[1]:
        gram = part @ part.mT
        weights = nnls_gram((part @ target)[None], gram, start=C[j, working][None])[0]
    else:  # collinear rows, but few features
        weights = _lawson_hanson(as_numpy(part), as_numpy(target), as_numpy(C[j, working]))
    if bool((weights > 0).any()):
        C[j] = 0
        C[j, working] = weights.to(C)
        W[j] = C[j, working] @ A[working]


def _lawson_hanson(rows: np.ndarray, target: np.ndarray, old: np.ndarray) -> torch.Tensor:
    """Solve min |c rows - target| over c >= 0 in few dimensions; `old` if that fails."""
    basis, goal = rows.T.astype(np.float64), target.astype(np.float64)
    try:
        return torch.from_numpy(nnls_by_scipy(basis, goal, maxiter=30 * basis.shape[1])[0])
    except RuntimeError:  # its limit of steps
        return torch.from_numpy(old)
