"""Non-negative matrix factorisation of activations, the core of CRAFT."""

from __future__ import annotations

__all__ = ["NMFConcepts"]

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import (
    ArrayKind,
    ArrayLike,
    as_numpy,
    as_tensor,
    check_features,
    check_finite,
    resolve_device,
)
from conceptlab.distributed.world import ALONE, World
from conceptlab.errors import InputError
from conceptlab.extractors import streaming
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.coding import CodingModule, nnls
from conceptlab.extractors.hals import HALSOptions, HALSResult, factorise
from conceptlab.extractors.starts import nndsvd, random_start
from conceptlab.extractors.statistics import NMFStatistics
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, draw_seed

_INITS = ("nndsvda", "nndsvd", "random")
_RULES = Rules(
    n_init=Whole(1),
    max_iter=Whole(1),
    n_sweeps=Whole(1),
    batch_size=Whole(1),
    tol=Real(least=0),
    l2=Real(least=0),
    decay=OneOf("auto") | Real(least=0, most=1),
)


class NMFConcepts(ConceptExtractor):
    """Concepts as the rows of W in A ~ U W, with U >= 0 and W >= 0.

    Minimises 1/2 |A - U W|^2 + l2/2 |U|^2 by accelerated HALS with extrapolation [1]_ [2]_ and
    codes every row by exact non-negative least squares, so that a row's code never depends on
    its batch. Rows of ``components_`` have Euclidean length one: the scale, which the
    factorisation leaves free, lies in U. Components are sorted by the energy |U_j|^2 of their
    coefficients, largest first, unless `init` is an array. A component that dies is seeded
    anew from the row that the others explain worst.

    Parameters
    ----------
    n_concepts : int, default=10
        Number of concepts k, at most min(n, p).
    init : {"nndsvda", "nndsvd", "random"} or array of shape (k, p), default="nndsvda"
        Start: from the singular vectors [3]_ with zeros filled by the mean of A, or left;
        random; or a given non-negative W.
    n_init : int, default=1
        Number of starts. The first is `init`, the others are random; the best is kept.
        Local optima commonly differ by 0.1 % in error.
    max_iter : int, default=500
        Most steps (for streams: most passes over the data, counted apart, are 20).
    tol : float, default=1e-5
        Stop when ten steps lower the squared error by less than this share.
    n_sweeps : int, default=3
        Sweeps of coordinate descent per product with A.
    extrapolate : bool, default=True
        Without, the error falls at every step, and slower.
    l2 : float, default=0.0
        Weight of |U|^2, in units of |w|^2 = 1; also used by ``transform``.
    decay : "auto" or float, default="auto"
        Share of the statistics of earlier rows that :meth:`partial_fit` keeps. With "auto"
        (1 - m / N)^3 for m new rows of N in all, so that codes made with an old W fade; 1
        keeps all.
    batch_size : int, default=4096
        Rows at a time when a store is streamed.
    device : str or torch.device, default="auto"
        Where to compute.
    random_state : int, RandomState, Generator or None, default=None
        Of the start.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        W, with rows of length one (zero for a component that no data supports).
    n_concepts_ : int
        k.
    reconstruction_err_ : float
        Frobenius norm of A - U W with exact codes (with the latest codes, for streams).
    kkt_ : float
        Optimality of W given U: the residual of :func:`kkt_residual` for the problem in W,
        relative to |A|.
    n_iter_ : int
        Steps, or passes over a stream.
    history_ : numpy.ndarray of shape (n_iter_,)
        Squared error (plus l2 |U|^2) after each step.
    statistics_ : NMFStatistics
        Of the rows seen; what :meth:`partial_fit` goes on from.
    n_rows_seen_ : int
        Rows seen by ``fit`` and ``partial_fit``.
    seed_ : int
        The seed that was used.
    n_features_in_ : int
        p.

    References
    ----------
    .. [1] N. Gillis and F. Glineur, Neural Computation 24(4), 2012.
    .. [2] A. Ang and N. Gillis, Neural Computation 31(2), 2019.
    .. [3] C. Boutsidis and E. Gallopoulos, Pattern Recognition 41, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from conceptlab.extractors import NMFConcepts
    >>> rng = np.random.default_rng(0)
    >>> A = rng.random((60, 3)) @ rng.random((3, 12))
    >>> model = NMFConcepts(3, random_state=0).fit(A)
    >>> model.transform(A).shape, model.components_.shape
    ((60, 3), (3, 12))
    """

    _non_negative = True

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        init: Any = "nndsvda",
        n_init: int = 1,
        max_iter: int = 500,
        tol: float = 1e-5,
        n_sweeps: int = 3,
        extrapolate: bool = True,
        l2: float = 0.0,
        decay: float | str = "auto",
        batch_size: int = 4096,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.n_sweeps = n_sweeps
        self.extrapolate = extrapolate
        self.l2 = l2
        self.decay = decay
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        progress: Progress = None,
        world: World | None = None,
    ) -> Self:
        """Find the concepts of `X`.

        Parameters
        ----------
        X : array-like of shape (n, p), or a store of activations
            Non-negative. An object with a ``batches(batch_size)`` method is streamed, as
            :meth:`fit_batches` describes.
        y : None
            Ignored.
        progress : bool, callable or None
            Bar over the passes of a stream.
        world : World, optional
            From :func:`conceptlab.distributed.init`, where each process holds some of the rows
            (none is allowed). All then hold the same concepts, those that one process finds in
            all rows together up to rounding. Rows of a store are then read into memory.

        Returns
        -------
        NMFConcepts

        Raises
        ------
        InputError
            Negative or non-finite entries, fewer than two rows, all zeros, or more concepts
            than min(n, p).
        """
        if hasattr(X, "batches"):
            if world is None:
                return self.fit_batches(X, progress=progress)
            X = np.asarray(X)
        world = ALONE if world is None else world
        options = self._options()
        A, k = self._problem(X) if world.size == 1 else self._shared_problem(X, world)
        seed = world.gather(draw_seed(self.random_state))[0]
        return self._finish(A, *self._best(A, k, seed, options, world), seed, world)

    def fit_many(self, problems: Sequence[Any] | Any) -> list[Self]:
        """Fit a copy of this estimator to each of many small problems at once.

        Parameters
        ----------
        problems : sequence of arrays (n_i, p), or array of shape (b, n, p)
            They share p; shorter ones are padded with rows of zeros, which change nothing.

        Returns
        -------
        list of NMFConcepts
            As ``clone(self).fit(A)`` for each, up to rounding.
        """
        from sklearn.base import clone

        options = self._options()
        fitted: list[Self] = [clone(self) for _ in problems]
        data = [one._problem(A) for one, A in zip(fitted, problems, strict=True)]
        if len({(A.shape[1], A.dtype, A.device) for A, _ in data}) > 1:
            raise InputError(
                "All problems must have the same number of features, dtype and device.",
                code="CL-INPUT-SHAPE",
            )
        seeds = [draw_seed(one.random_state) for one in fitted]
        longest = max((len(A) for A, _ in data), default=0)
        rows, codes, bases, owner = [], [], [], []
        for i, (one, (A, k)) in enumerate(zip(fitted, data, strict=True)):
            for U, W in one._starts(A, k, seeds[i]):
                padding = (0, 0, 0, longest - len(A))
                rows.append(torch.nn.functional.pad(A, padding))
                codes.append(torch.nn.functional.pad(U, padding))
                bases.append(W)
                owner.append(i)
        if not data:
            return []
        result = factorise(torch.stack(rows), torch.stack(codes), torch.stack(bases), options)
        for i, (one, (A, _)) in enumerate(zip(fitted, data, strict=True)):
            mine = [j for j, problem in enumerate(owner) if problem == i]
            one._finish(A, result, min(mine, key=lambda j: result.history[j][-1]), seeds[i])
        return fitted

    def fit_batches(self, batches: Any, *, max_passes: int = 20, progress: Progress = None) -> Self:
        """Fit to rows that are streamed, several times over, and never in memory together.

        A uniform sample of rows gives the start; then each pass codes every block exactly
        with the current W, replaces the block's statistics, and updates W. This is block
        coordinate descent on the full objective, so that it falls from pass to pass.

        Parameters
        ----------
        batches : iterable of arrays (m, p), or object with ``batches(batch_size)``
            Must give the same batches in the same order each time it is iterated (a list, an
            ``ActivationStore``, a ``DataLoader`` without shuffling; no generator).
        max_passes : int, default=20
            Most passes over the data; `tol` stops earlier, when a pass lowers the squared
            error by less than that share.
        progress : bool, callable or None
            Bar over the passes.

        Returns
        -------
        NMFConcepts
        """
        options = self._options()
        if isinstance(batches, Iterator):
            raise InputError(
                "A generator can be read once, but the fit needs several passes. Give a list, an "
                "ActivationStore or a DataLoader, or call partial_fit on each batch.",
                code="CL-INPUT-TYPE",
            )
        seed = draw_seed(self.random_state)
        sample, n = streaming.sample_rows(
            self._rows(batches, reset=True), 20 * int(self.n_concepts), seed
        )
        k = self._check_n_concepts(self.n_concepts, n, sample.shape[1])
        k = self._check_n_concepts(k, *sample.shape)
        result, best = self._best(sample, k, seed, options)
        result.converged[best] = True  # the passes over all rows decide, not the sample
        self._finish(sample, result, best, seed)
        found = streaming.fit_stream(
            lambda: self._rows(batches),
            streaming.StreamStart(self.components_, (1 / len(sample)) * self.statistics_, n),
            streaming.StreamOptions(self.l2, self.tol, max_passes),
            progress=progress,
        )
        self._accept(found.W, found.statistics)
        self.history_ = found.history
        self.n_iter_ = len(found.history)
        self.n_rows_seen_ = n
        self._warn(found.converged, stacklevel=3)
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Update the concepts with further rows.

        The first call fits these rows. Later ones code the rows exactly with the current W,
        add their statistics to those of the earlier rows (see `decay`), and solve for W,
        twice. Batches of some hundred rows serve best; several passes over the data, given
        batch by batch, come within 1 % of the error of ``fit``.

        Parameters
        ----------
        X : array-like of shape (m, p)
            Non-negative; the first call needs at least `n_concepts` rows.
        y : None
            Ignored.

        Returns
        -------
        NMFConcepts
        """
        if not hasattr(self, "statistics_"):
            return self.fit(X)
        new = self.statistics(X)
        old = self._keep(new.n) * self.statistics_
        self.n_rows_seen_ += int(new.n)
        for again in (True, False):  # the second round codes these rows with what they taught
            W = streaming.solve_basis(old + new, self.components_, self.l2)
            old = old.rescaled(self._accept(W, old + new))
            if again:
                new = self.statistics(X)
        return self

    def statistics(self, X: ArrayLike) -> NMFStatistics:
        """Code rows with the current W and sum what an update of W needs.

        Parameters
        ----------
        X : array-like of shape (m, p)
            Rows of this shard or worker.

        Returns
        -------
        NMFStatistics
            To be added to those of other shards and given to :meth:`update`.
        """
        check_is_fitted(self)
        rows = check_features(self, X, reset=False, non_negative=True)
        A = as_tensor(rows, device=resolve_device(self.device, like=rows))
        U = nnls(A, as_tensor(self.components_, device=A.device), l2=self.l2)
        return streaming.collect(A, U)

    def update(self, statistics: NMFStatistics) -> Self:
        """Replace W by the best one for given statistics, with their codes held fixed.

        Parameters
        ----------
        statistics : NMFStatistics
            Sum over all rows, from :meth:`statistics` of this W.

        Returns
        -------
        NMFConcepts
            ``statistics_`` and the errors belong to the new W and its gauge.
        """
        check_is_fitted(self)
        self._accept(streaming.solve_basis(statistics, self.components_, self.l2), statistics)
        return self

    def merge(self, *others: NMFConcepts) -> Self:
        """Add the statistics of estimators that saw other rows, and update W.

        Parameters
        ----------
        *others : NMFConcepts
            Fitted from the same W, so that concept j is the same in all.

        Returns
        -------
        NMFConcepts
        """
        check_is_fitted(self)
        self.n_rows_seen_ += sum(other.n_rows_seen_ for other in others)
        return self.update(sum((other.statistics_ for other in others), start=self.statistics_))

    def as_module(self) -> CodingModule:
        """Give the exact coding as a differentiable module.

        Returns
        -------
        CodingModule
            (..., p) -> (..., k), channels last; the gradient is the closed form of
            :class:`NNLSCoding`.
        """
        check_is_fitted(self)
        return CodingModule(self.components_, float(self.l2))

    def _options(self) -> HALSOptions:
        """Validate all parameters but n_concepts and init."""
        _RULES.check(self)
        rule: Literal["unit", "nonneg"] = "unit" if self.l2 else "nonneg"
        return HALSOptions(
            self.max_iter, self.tol, self.n_sweeps, self.extrapolate, float(self.l2), rule
        )

    def _problem(self, X: ArrayLike) -> tuple[torch.Tensor, int]:
        """Validate the matrix of a fit and the number of concepts to find in it."""
        A = self._check_data(X)
        return A, self._check_n_concepts(self.n_concepts, *A.shape)

    def _shared_problem(self, X: ArrayLike, world: World) -> tuple[torch.Tensor, int]:
        """Validate rows that lie on several processes; what is wrong on one is told on all."""
        refused: InputError | None = None
        A = torch.empty(0, 0)
        try:
            rows = check_features(
                self,
                X,
                reset=True,
                min_samples=0,
                non_negative=True,
            )
            A = as_tensor(
                rows,
                device=resolve_device(self.device, like=rows),
                dtype=ArrayKind.of(rows).compute_dtype,
            )
        except InputError as error:
            refused = error
        told = world.gather(None if refused is None else (str(refused), refused.code))
        for rank, words in enumerate(told):
            if words is not None:
                message = words[0].removesuffix(f" [{words[1]}]")
                raise InputError(f"On rank {rank}: {message}", code=words[1]) from refused
        world.agree("The number of features and the dtype of X", (A.shape[1], str(A.dtype)))
        n, live = (int(x) for x in world.sum(torch.tensor([len(A), int(bool(A.any()))])))
        if not live:
            raise InputError("All entries of X, on all ranks, are zero.", code="CL-INPUT-ZERO")
        return A, self._check_n_concepts(self.n_concepts, n, A.shape[1])

    def _rows(self, batches: Any, *, reset: bool = False) -> Iterator[torch.Tensor]:
        """Validate and move one batch of a stream after the other."""
        source = batches.batches(self.batch_size) if hasattr(batches, "batches") else batches
        for i, batch in enumerate(source):
            matrix = check_features(self, batch, reset=reset and i == 0, non_negative=True)
            yield as_tensor(matrix, device=resolve_device(self.device, like=matrix))

    def _best(
        self, A: torch.Tensor, k: int, seed: int, options: HALSOptions, world: World = ALONE
    ) -> tuple[HALSResult, int]:
        """Factorise A (n, p) from all starts; tell which ended best."""
        starts = self._starts(A, k, seed, world)
        U, W = (torch.stack(part) for part in zip(*starts, strict=True))
        result = factorise(A.expand(len(starts), *A.shape), U, W, options, world=world)
        return result, int(np.argmin([trace[-1] for trace in result.history]))

    def _starts(
        self, A: torch.Tensor, k: int, seed: int, world: World = ALONE
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Make `n_init` starts (U, W) for A (n, p)."""
        mean = A.mean() if world.size == 1 else _mean(A, world)
        starts = [random_start(A, k, seed + i, mean, world=world) for i in range(1, self.n_init)]
        if not isinstance(self.init, str):
            W = self._given(A, k)
            first = nnls(A, W, l2=self.l2), W
        elif OneOf(*_INITS).check("init", self.init) == "random":
            first = random_start(A, k, seed, mean, world=world)
        else:
            fill = mean if self.init == "nndsvda" else None
            first = nndsvd(A, k, seed, fill=fill, world=world)
        return [first, *starts]

    def _given(self, A: torch.Tensor, k: int) -> torch.Tensor:
        W = as_tensor(self.init, device=A.device, dtype=A.dtype)
        if W.shape != (k, A.shape[1]):
            raise InputError(
                f"init must have shape (n_concepts, n_features) = ({k}, {A.shape[1]}), got "
                f"{tuple(W.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        check_finite(W, "init")
        if float(W.min()) < 0:
            raise InputError(
                f"init must be non-negative, its smallest entry is {float(W.min()):.4g}.",
                code="CL-INPUT-NEGATIVE",
            )
        return W

    def _finish(
        self, A: torch.Tensor, result: HALSResult, i: int, seed: int, world: World = ALONE
    ) -> Self:
        """Set the fitted attributes from problem `i` of `result`."""
        W = result.W[i]
        length = torch.linalg.vector_norm(W, dim=1)
        W = W / torch.where(length > 0, length, 1)[:, None]
        if isinstance(self.init, str):
            energy = world.sum(result.U[i].square().sum(0)) * length.square()
            W = W[energy.argsort(descending=True)]
        self.seed_ = seed
        self.n_iter_ = result.n_iter[i]
        self.history_ = np.asarray(result.history[i])
        U = nnls(A, W, l2=self.l2)
        statistics = streaming.collect(A, U).over(world)
        self.n_rows_seen_ = int(statistics.n)
        self._measure(as_numpy(W), statistics)
        error = streaming.frobenius_error(A, U, W)
        if world.size > 1:
            error = float(world.sum(torch.tensor(error, dtype=torch.float64) ** 2)) ** 0.5
        self.reconstruction_err_ = error
        self._warn(result.converged[i])
        return self

    def _accept(self, W: np.ndarray, statistics: NMFStatistics) -> np.ndarray:
        """Bring a new W to the gauge with its statistics, measure; return what U gained."""
        length = np.linalg.norm(W, axis=1)
        length[length == 0] = 1
        dtype = self.components_.dtype
        statistics = statistics.rescaled(length)
        self._measure((W / length[:, None]).astype(dtype), statistics)
        self.reconstruction_err_ = float(np.sqrt(statistics.squared_error(self.components_)))
        return length

    def _measure(self, W: np.ndarray, statistics: NMFStatistics) -> None:
        self.components_ = W
        self.statistics_ = statistics
        self.kkt_ = streaming.basis_residual(statistics, W, self.l2)

    def _keep(self, n_new: float) -> float:
        if self.decay != "auto":
            return float(self.decay)
        return float((1 - n_new / (self.n_rows_seen_ + n_new)) ** 3)

    def _warn(self, converged: bool, stacklevel: int = 4) -> None:
        unused = int((np.diag(self.statistics_.UU) <= 0).sum())
        if unused:
            warnings.warn(
                f"{unused} of {self.n_concepts_} concepts are unused: fewer explain the data. "
                "Lower n_concepts.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )
        if not converged and self.tol > 0:
            warnings.warn(
                f"NMFConcepts stopped after {self.n_iter_} steps before it reached tol={self.tol}. "
                "Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )

    def _fitted(self) -> dict[str, Any]:
        fitted = super()._fitted()
        statistics = fitted.pop("statistics_")
        parts = {f"statistics_.{name}": value for name, value in vars(statistics).items()}
        return fitted | parts

    def _restore(self, fitted: dict[str, Any]) -> None:
        parts = {name: fitted.pop(f"statistics_.{name}") for name in ("UU", "UA", "energy", "n")}
        super()._restore(fitted)
        self.statistics_ = NMFStatistics(**parts)


def _mean(A: torch.Tensor, world: World) -> torch.Tensor:
    """Give the mean entry of a matrix whose rows lie on all ranks."""
    total, n = world.sum(
        torch.stack([A.sum(dtype=torch.float64), torch.tensor(A.numel()).double()])
    )
    return (total / n).to(A.dtype)
