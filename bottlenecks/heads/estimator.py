"""A linear head with few named inputs per class, and a certificate of its optimum."""

from __future__ import annotations

__all__ = ["SparseLinearHead", "sparse_softmax_path"]

import warnings
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from bottlenecks.heads.checks import checked_matrix, compute_dtype
from bottlenecks.heads.data import HeadData
from bottlenecks.heads.fista import State, initial_state
from bottlenecks.heads.newton import refit_on_support
from bottlenecks.heads.objective import lambda_max, number_of_effective_concepts
from bottlenecks.heads.path import (
    PathPoint,
    Problem,
    SoftmaxPath,
    follow,
    geometric,
    solve,
    strength_for,
    to_count,
    unscaled,
    with_strongest,
)
from bottlenecks.heads.stochastic import saga
from bottlenecks.heads.use import HeadUse
from bottlenecks.realign import residual_covariance
from bottlenecks.seen import row_codes
from bottlenecks.targets import KINDS, Target, checked_target
from conceptlab.arrays import (
    ArrayLike,
    as_numpy,
    as_tensor,
    check_features,
    resolve_device,
)
from conceptlab.errors import InputError
from conceptlab.io.objects import Parts, Saved
from conceptlab.io.values import plain
from conceptlab.parameters import OneOf, Real, Rules, Whole

_DEFAULT_SHARE = 0.05  # of lam_max, where neither lam nor nec is given
_STEP_DOWN = 0.5  # between two strengths on the way to one that is given
_LOOSE = 0.5  # residual at those strengths
_MANY = 4096  # rows from which a stochastic start is faster than a path of strengths
_LAST = 1e-4  # of lam_max: where the search for nec ends
_FILLS = 20  # refits with new weights in place of those that fell to zero

_NUMBERS = (
    "lam_",
    "lam_max_",
    "kkt_",
    "objective_",
    "converged_",
    "n_dropped_",
    "n_added_",
    "n_iter_",
)
_ARRAYS = (
    "coef_",
    "intercept_",
    "shrunken_coef_",
    "shrunken_intercept_",
    "activation_range_",
    "activation_levels_",
)
_LATER = ("activation_covariance_", "fit_rows_")
"""Not in files of the first versions, or not kept."""
_PATH = ("lams", "nec", "objective", "kkt", "n_iter")
_RULES = Rules(
    lam=Real(least=0, hint="0 is no penalty") | None,
    nec=Real(least=0) | None,
    constant=OneOf("error", "ignore"),
    target=OneOf(*KINDS),
    refit_l2=OneOf("auto") | Real(least=0),
    max_iter=Whole(1),
    n_lambdas=Whole(2),
    chunk_rows=Whole(1) | None,
    alpha=Real(above=0, most=1, hint="1 is the lasso alone"),
    tol=Real(above=0),
)


class SparseLinearHead(HeadUse, Saved, ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression with an elastic net, for sparse heads over concepts.

    Minimises mean cross-entropy + lam (alpha |W|₁ + ½ (1 - alpha) |W|²) over
    weights W (K, M) and intercepts, on standardised columns; for several labels at once the
    cross-entropy of a sigmoid, for numbers half the squared error, summed over outputs. Every
    fit carries its certificate, the residual of the optimality conditions. With `nec` the
    strength is found at which the classes use that many concepts on average.

    Parameters
    ----------
    lam : float or None
        Strength of the penalty, at least 0.
    nec : float or None
        Number of effective concepts: mean number of non-zero weights a class,
        rounded to the next multiple of 1 / K. Give `lam` or `nec`; with
        neither, `lam` is 0.05 times ``lam_max_``.
    target : {"classes", "labels", "values"}
        What y holds: a class a row; several labels, (n, L) of 0 and 1; numbers, (n,) or (n, T).
        "Class" means one of these outputs below.
    alpha : float
        Share of the absolute values in the penalty, above 0 and at most 1.
    positive : bool
        Whether weights stay at 0 or above, so that a class is told by what it
        has and never by what it lacks. Those that a refit sets to 0 are
        replaced by others; ``nec_`` is below `nec` only where no further
        positive weight would lower the loss.
    refit : bool
        Whether the weights that are left are fitted again without the penalty,
        which shrinks them. False gives the minimiser of the objective itself.
    refit_l2 : float or "auto"
        Ridge of the refit, ½ refit_l2 |W|² on standardised columns; ``"auto"``
        is 1 / n, a unit Gaussian prior.
    standardize : bool
        Whether columns get mean 0 and standard deviation 1 inside.
    fit_intercept : bool
        Whether there are intercepts; they are not penalised.
    tol : float
        Bound on the residual, relative to lam * alpha.
    max_iter : int
        Iterations at each strength.
    n_lambdas : int
        Strengths from ``lam_max_`` down to 0.001 of it, as far as needed, in
        the search for `nec`.
    constant : {"error", "ignore"}
        Whether a column that is the same in all rows is an error; ignored
        columns get weight 0.
    class_weight : None, "balanced" or dict
        Of classes, a list of dicts for labels; multiplies the weights of rows.
    chunk_rows : int or None
        Rows at a time; None takes what fits the cache, or 1 GB of an
        accelerator.
    device : str or torch.device
        See :func:`conceptlab.arrays.resolve_device`.
    dtype : {"auto", "float32", "float64", "bfloat16"}
        Of the matrix products; ``"auto"`` is that of X. With ``"bfloat16"``
        rows take half the memory and the solution is finished in float64.

    Attributes
    ----------
    coef_ : ndarray of shape (K, M), float64
        Weights on the columns as given, with exact zeros; two rows for two
        classes.
    intercept_ : ndarray of shape (K,), float64
    shrunken_coef_, shrunken_intercept_ : ndarray
        The minimiser of the objective, before the refit.
    lam_ : float
        Strength that was used.
    lam_max_ : float
        Least strength at which all weights are zero.
    nec_ : float
        Of ``coef_``.
    active_concepts_ : list of K ndarrays of int64
        Columns with a weight, by class, largest on standardised columns first.
    kkt_ : float
        Largest violation of the optimality conditions by the minimiser,
        relative to lam * alpha (absolute where lam is 0).
    objective_ : float
        Of the minimiser.
    converged_ : bool
        Whether ``kkt_`` is at most `tol`.
    n_dropped_, n_added_ : int
        Weights that the count was corrected by, before the refit: the smallest
        dropped, where some leave zero together; those of the steepest slope
        added, where no strength has so many (a penalty of absolute values
        holds the median over the classes of a concept's weights at zero), and
        in place of positive ones that the refit sets to 0.
    activation_range_ : ndarray of shape (M, 2), float64
        Least and largest value of each column in the fit.
    activation_levels_ : ndarray of shape (M, 2), float64
        5 % and 95 % quantiles (of at most 4096 rows, evenly taken): what an
        intervention writes for "absent" and "present".
    activation_covariance_ : ndarray of shape (M, M), float64, or None
        Within classes, of at most 4096 rows; None for more than 1024 columns.
    fit_rows_ : ndarray of int64
        Codes of these rows, by which a curve tells that it sees them again.
    path_ : SoftmaxPath
        What was solved on the way.
    n_iter_ : int
        Iterations of all solvers.
    classes_ : ndarray of shape (K,)
        Not for numbers.
    output_names_ : ndarray of shape (K,)
        Classes, or names of the columns of y, or their numbers.
    n_features_in_ : int
        M.
    feature_names_in_ : ndarray of shape (M,), object
        Where X has names of columns.

    Raises
    ------
    InputError
        In fit: lam below 0, `lam` and `nec` together, `nec` above the number
        of concepts, one class only, NaN, a constant column.

    Warns
    -----
    ConvergenceWarning
        Where `max_iter` was reached first, or no strength has `nec` concepts.

    Notes
    -----
    From 4096 rows in memory on, passes of SAGA begin, unless `nec` is searched.
    FISTA with restarts and an adaptive step takes one product forward and one
    back an iteration; L-BFGS-B on the active weights in float64 goes on from a
    residual of 1e-3. A strength is else reached along a path from ``lam_max_``;
    for `nec`, strengths between two points of the path are tried until the count
    is exact. Memory beyond X is three (n, K) matrices, and one copy of X unless
    it is a memory map, which is read in chunks.

    References
    ----------
    Wong, Santurkar and Madry, Leveraging Sparse Linear Layers for Debuggable
    Deep Networks, ICML 2021 (objective and path). Beck and Teboulle, SIAM J.
    Imaging Sciences 2009 (FISTA). Meinshausen, Relaxed Lasso, CSDA 2007 (refit).
    Srivastava, Yan and Weng, VLG-CBM, NeurIPS 2024 (NEC).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 8))
    >>> y = np.array(["ant", "bee", "cow"])[np.argmax(X[:, :3], axis=1)]
    >>> head = SparseLinearHead(nec=1).fit(X, y)
    >>> [int(columns[0]) for columns in head.active_concepts_], head.nec_
    ([0, 1, 2], 1.0)
    """

    _kind = "SparseLinearHead"

    def __init__(
        self,
        lam: float | None = None,
        nec: float | None = None,
        *,
        target: str = "classes",
        alpha: float = 0.99,
        positive: bool = False,
        refit: bool = True,
        refit_l2: float | str = "auto",
        standardize: bool = True,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 2000,
        n_lambdas: int = 20,
        constant: str = "error",
        class_weight: Any = None,
        chunk_rows: int | None = None,
        device: str | torch.device = "auto",
        dtype: str = "auto",
    ) -> None:
        self.lam = lam
        self.nec = nec
        self.target = target
        self.alpha = alpha
        self.positive = positive
        self.refit = refit
        self.refit_l2 = refit_l2
        self.standardize = standardize
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_lambdas = n_lambdas
        self.constant = constant
        self.class_weight = class_weight
        self.chunk_rows = chunk_rows
        self.device = device
        self.dtype = dtype

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SparseLinearHead:
        """Find the weights.

        Parameters
        ----------
        X : array-like of shape (n, M)
            Concept scores. A :class:`numpy.memmap` is read in chunks.
        y : array-like of shape (n,) or (n, K)
            Labels of at least two classes; see `target`.
        sample_weight : array-like of shape (n,), optional
            At least 0. A row of weight 2 is as good as two rows, one of weight 0 as none.

        Returns
        -------
        SparseLinearHead

        Raises
        ------
        InputError
            See the class.
        """
        alpha, tol = self._check_parameters()
        data, target = _prepare(self, X, y, sample_weight)
        self._set_outputs(target)
        self.lam_max_ = lambda_max(data, alpha, self.fit_intercept)
        self.activation_range_, self.activation_levels_ = data.spread()
        some, rows, weight = data.sample()
        self.activation_covariance_ = residual_covariance(some, target.take(rows), weight)
        self.fit_rows_ = row_codes(some)
        problem = Problem(data, alpha, self.fit_intercept, int(self.max_iter), self.lam_max_)
        points, best, surplus = self._solved(problem, tol)
        self.lam_ = best.lam
        self.kkt_, self.objective_ = best.state.kkt, best.state.objective
        self.converged_ = best.state.kkt <= tol
        self.path_ = SoftmaxPath.of(points, data, coefs=False)
        self.n_iter_ = int(self.path_.n_iter.sum())
        self._warn(surplus)
        self.n_dropped_, self.n_added_ = max(surplus, 0), max(-surplus, 0)
        if surplus < 0 and self.refit:
            state, mask = best.state, with_strongest(data, best.state, -surplus)
        else:
            state = to_count(best.state, surplus)
            mask = state.W != 0
        self.shrunken_coef_, self.shrunken_intercept_ = unscaled(data, best.state)
        if self.refit:
            state = self._refitted(data, state, mask)
            if self.nec is not None and data.positive:
                state = self._filled_up(data, state, int(mask.sum()))
        self.coef_, self.intercept_ = unscaled(data, state)
        self.nec_ = number_of_effective_concepts(self.coef_)
        size = state.W.abs().double().cpu().numpy()
        order = np.argsort(-size, axis=1, kind="stable")
        self.active_concepts_ = [
            order[c, : np.count_nonzero(size[c])].astype(np.int64) for c in range(data.K)
        ]
        return self

    def _check_parameters(self) -> tuple[float, float]:
        if self.lam is not None and self.nec is not None:
            raise InputError(
                f"Give lam or nec, not both: got lam={self.lam!r} and nec={self.nec!r}. nec "
                "chooses the strength by the number of concepts a class.",
                code="CL-INPUT-OPTION",
            )
        _RULES.check(self)
        return float(self.alpha), float(self.tol)

    def _solved(self, problem: Problem, tol: float) -> tuple[list[PathPoint], PathPoint, int]:
        start = initial_state(problem.data, self.fit_intercept)
        if self.nec is not None:
            return self._by_count(problem, start, tol)
        lam = _DEFAULT_SHARE * self.lam_max_ if self.lam is None else float(self.lam)
        if problem.data.quick and problem.data.n >= _MANY and 0 < lam < self.lam_max_:
            begun = saga(problem.data, lam, problem.alpha, start, fit_intercept=self.fit_intercept)
            last = solve(problem, lam, begun, tol)
            return [last], last, 0
        lams = [lam]
        while lam > 0 and lams[0] < self.lam_max_ * _STEP_DOWN**2:
            lams.insert(0, lams[0] / _STEP_DOWN)
        points = list(follow(problem, lams[:-1], start, _LOOSE))
        last = solve(problem, lam, points[-1].state if points else start, tol)
        return [*points, last], last, 0

    def _by_count(
        self, problem: Problem, start: State, tol: float
    ) -> tuple[list[PathPoint], PathPoint, int]:
        data = problem.data
        usable = data.M - len(data.constant)
        nec = Real(least=0).check("nec", self.nec)
        if nec > usable:
            ignored = f" ({len(data.constant)} constant ones apart)" if usable < data.M else ""
            raise InputError(
                f"nec={self.nec!r} is above the number of concepts, {usable}{ignored}. "
                f"Give at most {usable}.",
                code="CL-INPUT-MANY",
            )
        count = round(nec * data.K)
        lams = geometric(self.lam_max_, 1e-3, int(self.n_lambdas))
        ratio = lams[1] / lams[0]
        further = max(0, int(np.ceil(np.log(_LAST / 1e-3) / np.log(ratio))))
        lams = np.concatenate([lams, lams[-1] * ratio ** np.arange(1, further + 1)])
        return strength_for(problem, count, lams, start, tol)

    def _refitted(self, data: HeadData, state: State, mask: torch.Tensor) -> State:
        ridge = 1.0 / data.total if self.refit_l2 == "auto" else float(self.refit_l2)
        again = refit_on_support(
            data,
            state,
            mask,
            ridge,
            fit_intercept=self.fit_intercept,
            tol=1e-6,
            max_iter=int(self.max_iter),
        )
        self.n_iter_ += again.n_iter
        return again

    def _filled_up(self, data: HeadData, state: State, count: int) -> State:
        """Let others in for positive weights that fell to zero in the refit."""
        for _ in range(_FILLS):
            held = state.W != 0
            missing = count - int(held.sum())
            if missing <= 0:
                break
            mask = with_strongest(data, state, missing)
            added = int((mask & ~held).sum())
            if not added:
                break
            self.n_added_ += added
            state = self._refitted(data, state, mask)
        return state

    def _warn(self, surplus: int) -> None:
        if not self.converged_:
            warnings.warn(
                f"{type(self).__name__} stopped at a residual of {self.kkt_:.2g}, above "
                f"tol={self.tol:g}. Raise max_iter={self.max_iter} or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if surplus < 0 and not self.refit:
            warnings.warn(
                f"No strength down to {self.lam_:.2g} has nec={self.nec!r}: "
                f"{float(self.path_.nec[-1]):.3g} concepts a class are used there. Give a smaller "
                "nec, or refit=True.",
                ConvergenceWarning,
                stacklevel=3,
            )

    # -- what it says ---------------------------------------------------------------
    def _logits(self, X: ArrayLike) -> torch.Tensor:
        check_is_fitted(self)
        given = check_features(self, X, reset=False)
        matrix = as_tensor(given, device=resolve_device(self.device, like=given))
        W = torch.as_tensor(self.coef_).to(matrix)
        return torch.addmm(torch.as_tensor(self.intercept_).to(matrix), matrix, W.mT)

    # -- files ------------------------------------------------------------------------
    def _parts(self) -> Parts:
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        parameters = {**self.get_params(), "device": str(self.device)}
        fitted = {name: getattr(self, name) for name in _NUMBERS}
        tensors = {name: getattr(self, name) for name in _ARRAYS}
        for name in _LATER:
            if getattr(self, name, None) is not None:
                tensors[name] = getattr(self, name)
        tensors |= {f"path_{name}": np.asarray(getattr(self.path_, name)) for name in _PATH}
        sizes = [len(columns) for columns in self.active_concepts_]
        tensors["active_offsets"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        tensors["active"] = np.concatenate(self.active_concepts_).astype(np.int64)
        data = {
            "parameters": plain(parameters),
            "fitted": plain(fitted),
            "classes": self.output_names_.tolist(),
            "one_output": self.one_output_,
            "feature_names": None if names is None else list(names),
        }
        return data, tensors

    @classmethod
    def _from_parts(cls, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        head = cls(**data["parameters"])
        for name in _NUMBERS:
            setattr(head, name, data["fitted"][name])
        for name in (*_ARRAYS, *(name for name in _LATER if name in tensors)):
            setattr(head, name, tensors[name])
        head.path_ = SoftmaxPath(**{name: tensors[f"path_{name}"] for name in _PATH})
        head.active_concepts_ = np.split(tensors["active"], tensors["active_offsets"][1:-1])
        head.output_names_ = np.array(data["classes"])
        head.one_output_ = data.get("one_output", True)
        if head.target != "values":
            head.classes_ = head.output_names_
        head.nec_ = number_of_effective_concepts(head.coef_)
        head.n_features_in_ = int(head.coef_.shape[1])
        if data["feature_names"] is not None:
            head.feature_names_in_ = np.array(data["feature_names"], dtype=object)
        return head

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")


def _prepare(
    estimator: Any, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[HeadData, Target]:
    """Check rows and targets of `estimator` and lay them out for the solvers."""
    matrix = checked_matrix(estimator, X)
    target, weight, index = checked_target(estimator, y, matrix, sample_weight)
    device = resolve_device(estimator.device, like=matrix)
    if device.type == "mps":  # no float64 there, which the certificate is computed in
        device = torch.device("cpu")
    data = HeadData(
        matrix,
        target,
        weight=weight,
        index=index,
        standardize=estimator.standardize,
        device=device,
        dtype=compute_dtype(estimator.dtype, matrix),
        chunk_rows=estimator.chunk_rows,
        positive=bool(estimator.positive),
    )
    if len(data.constant) and estimator.constant == "error":
        first = int(data.constant[0])
        names = getattr(estimator, "feature_names_in_", None)
        called = f"{first}" if names is None else f"{first} ({names[first]!r})"
        others = len(data.constant) - 1
        raise InputError(
            f"Column {called} of X is constant{f' (and {others} more)' if others else ''}: "
            "a concept that never changes tells nothing. Drop it, or set constant='ignore' to "
            "give it weight 0.",
            code="CL-INPUT-ZERO",
        )
    return data, target


def sparse_softmax_path(
    X: ArrayLike,
    y: ArrayLike,
    *,
    lams: Any = None,
    n_lambdas: int = 20,
    ratio: float = 1e-2,
    alpha: float = 0.99,
    standardize: bool = True,
    fit_intercept: bool = True,
    tol: float = 1e-3,
    max_iter: int = 2000,
    device: str | torch.device = "auto",
) -> SoftmaxPath:
    """Solve the head's objective along falling strengths, each from the one before.

    Parameters
    ----------
    X : array-like of shape (n, M)
    y : array-like of shape (n,)
    lams : array-like of shape (L,), optional
        Strengths, used in falling order; by default `n_lambdas` from the least
        that zeroes all weights down to `ratio` times that, geometrically.
    n_lambdas : int
        L.
    ratio : float
        Last strength over first.
    alpha, standardize, fit_intercept, tol, max_iter, device : optional
        See :class:`SparseLinearHead`.

    Returns
    -------
    SoftmaxPath
        With weights and intercepts at every strength.

    Raises
    ------
    InputError
        See :class:`SparseLinearHead`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 6))
    >>> path = sparse_softmax_path(X, np.argmax(X[:, :3], axis=1), n_lambdas=4)
    >>> path.nec.round(2).tolist()[0], bool(path.kkt.max() <= 1e-3)
    (0.0, True)
    """
    head = SparseLinearHead(
        alpha=alpha,
        standardize=standardize,
        fit_intercept=fit_intercept,
        tol=tol,
        max_iter=max_iter,
        n_lambdas=n_lambdas,
        device=device,
    )
    head._check_parameters()
    data, _ = _prepare(head, X, y)
    lam_max = lambda_max(data, alpha, fit_intercept)
    if lams is None:
        Real(above=0, most=1).check("ratio", ratio)
        chosen = geometric(lam_max, ratio, n_lambdas)
    else:
        chosen = np.sort(as_numpy(lams).astype(np.float64).ravel())[::-1]
        Real(least=0).check("lams", chosen.min() if len(chosen) else float("nan"))
    problem = Problem(data, alpha, fit_intercept, max_iter, lam_max)
    start = initial_state(data, fit_intercept)
    return SoftmaxPath.of(follow(problem, chosen, start, tol), data, coefs=True)
