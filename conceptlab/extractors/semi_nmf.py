"""Semi-non-negative factorisation: concepts of any sign with non-negative coefficients."""

from __future__ import annotations

__all__ = ["SemiNMF"]

import warnings
from typing import Any, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor, check_finite
from conceptlab.errors import InputError
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.coding import CodingModule, nnls
from conceptlab.extractors.hals import HALSOptions, factorise
from conceptlab.extractors.starts import random_start, randomized_svd
from conceptlab.extractors.streaming import frobenius_error
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState, draw_seed

_INITS = ("kmeans", "svd", "random")
_RULES = Rules(max_iter=Whole(1), n_sweeps=Whole(1), tol=Real(least=0))


class SemiNMF(ConceptExtractor):
    """A ~ U W with U >= 0 and W of any sign, for activations of any sign (GELU, text).

    The problem of Ding, Li and Jordan [1]_, solved as in :class:`NMFConcepts`: accelerated
    coordinate descent on U with extrapolation, and least squares for W. Rows are coded by exact
    non-negative least squares. Rows of ``components_`` have length one and are sorted by
    the energy of their coefficients, unless `init` is an array.

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most min(n, p).
    init : {"kmeans", "svd", "random"} or array of shape (k, p), default="kmeans"
        Start: cluster indicators plus 0.2, as in [1]_, whose optimum keeps the sense of
        clusters; signed parts of singular vectors [2]_, which ends at the lowest error; or random.
        The error of Semi-NMF is nearly that of k singular vectors, so many different W
        reach it: the start decides on their meaning.
    max_iter : int, default=500
        Most steps.
    tol : float, default=1e-5
        Stop when ten steps lower the squared error by less than this share.
    n_sweeps : int, default=3
        Sweeps over U per product with A.
    extrapolate : bool, default=True
        Without, the error falls at every step.
    device : str or torch.device, default="auto"
        Where to compute.
    random_state : int, RandomState, Generator or None, default=None
        Of the start.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        W.
    n_concepts_ : int
        k.
    reconstruction_err_ : float
        Frobenius norm of A - U W with exact codes.
    n_iter_ : int
        Steps.
    history_ : numpy.ndarray of shape (n_iter_,)
        Squared error after each step.
    seed_ : int
        The seed that was used.
    n_features_in_ : int
        p.

    References
    ----------
    .. [1] C. Ding, T. Li and M. Jordan, "Convex and semi-nonnegative matrix factorizations",
       IEEE TPAMI 32(1), 2010, section 2.1.
    .. [2] N. Gillis and A. Kumar, "Exact and heuristic algorithms for semi-nonnegative matrix
       factorization", SIAM J. Matrix Anal. Appl. 36(4), 2015.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A = rng.random((50, 2)) @ rng.normal(size=(2, 8))
    >>> SemiNMF(2, random_state=0).fit(A).transform(A).min() >= 0
    np.True_
    """

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        init: Any = "kmeans",
        max_iter: int = 500,
        tol: float = 1e-5,
        n_sweeps: int = 3,
        extrapolate: bool = True,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.n_sweeps = n_sweeps
        self.extrapolate = extrapolate
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
        SemiNMF

        Raises
        ------
        InputError
            Non-finite entries, fewer than two rows, all zeros, or too many concepts.
        """
        _RULES.check(self)
        A = self._check_data(X)
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        seed = draw_seed(self.random_state)
        U, W = self._start(A, k, seed)
        options = HALSOptions(self.max_iter, self.tol, self.n_sweeps, self.extrapolate, rule="free")
        result = factorise(A[None], U[None], W[None], options)
        U, W = result.U[0], result.W[0]
        length = torch.linalg.vector_norm(W, dim=1)
        W = W / torch.where(length > 0, length, 1)[:, None]
        if isinstance(self.init, str):
            W = W[(U.square().sum(0) * length.square()).argsort(descending=True)]
        self.components_ = as_numpy(W)
        self.seed_ = seed
        self.n_iter_ = result.n_iter[0]
        self.history_ = np.asarray(result.history[0])
        self.reconstruction_err_ = frobenius_error(A, nnls(A, W), W)
        if not result.converged[0] and self.tol > 0:
            warnings.warn(
                f"SemiNMF stopped after {self.n_iter_} steps before it reached tol={self.tol}. "
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

    def _start(self, A: torch.Tensor, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not isinstance(self.init, str):
            W = as_tensor(self.init, device=A.device, dtype=A.dtype)
            if W.shape != (k, A.shape[1]):
                raise InputError(
                    f"init must have shape (n_concepts, n_features) = ({k}, {A.shape[1]}), got "
                    f"{tuple(W.shape)}.",
                    code="CL-INPUT-SHAPE",
                )
            check_finite(W, "init")
            return nnls(A, W), W
        init = OneOf(*_INITS).check("init", self.init)
        if init == "random":
            U, _ = random_start(A, k, seed, A.abs().mean())
        elif init == "svd":
            left, values, _ = randomized_svd(A, k, seed)
            # The side of each singular vector that holds more, so that U starts non-negative.
            flip = (left.clamp(min=0).square().sum(0) >= 0.5) * 2 - 1
            U = (left * flip * values.sqrt()).clamp(min=0)
            U = U + 0.01 * U.mean()
        else:
            from sklearn.cluster import KMeans

            labels = KMeans(k, n_init=4, random_state=seed % 2**32).fit(as_numpy(A)).labels_
            U = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), k).to(A) + 0.2
        W = torch.linalg.lstsq(_regular(U.mT @ U), U.mT @ A).solution
        return U, W


def _regular(gram: torch.Tensor) -> torch.Tensor:
    """Add a ridge at rounding level, so that an empty cluster does not spoil the start."""
    ridge = 10 * torch.finfo(gram.dtype).eps * gram.diagonal().amax()
    return gram + ridge * torch.eye(len(gram)).to(gram)
