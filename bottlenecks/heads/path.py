"""Solutions from the strength where all weights vanish down to weaker ones."""

from __future__ import annotations

__all__ = [
    "PathPoint",
    "Problem",
    "SoftmaxPath",
    "follow",
    "geometric",
    "solve",
    "strength_for",
    "to_count",
    "unscaled",
    "with_strongest",
]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bottlenecks.heads.data import HeadData
from bottlenecks.heads.fista import State, certify, fista, initial_state
from bottlenecks.heads.newton import polish
from bottlenecks.heads.objective import gradient_at, number_of_effective_concepts

if TYPE_CHECKING:
    import pandas as pd

_POLISH_AT = {torch.float64: 0.0, torch.float32: 1e-4, torch.bfloat16: 5e-2}
_COARSE = 1e-2
_BISECTIONS = 60


@dataclass(frozen=True)
class Problem:
    """What stays the same along a path.

    Attributes
    ----------
    data : HeadData
    alpha : float
    fit_intercept : bool
    max_iter : int
        Iterations at every strength.
    """

    data: HeadData
    alpha: float
    fit_intercept: bool
    max_iter: int
    lam_max: float


@dataclass(frozen=True)
class PathPoint:
    """One strength and the solution found there.

    Attributes
    ----------
    lam : float
    state : State
    steps : int
        Iterations from where it started.
    """

    lam: float
    state: State
    steps: int = 0

    @property
    def count(self) -> int:
        """Number of weights that are not zero."""
        return int(torch.count_nonzero(self.state.W))


@dataclass(frozen=True)
class SoftmaxPath:
    """Solutions along a path, in the order in which they were found.

    Attributes
    ----------
    lams : ndarray of shape (L,)
        Strengths.
    nec : ndarray of shape (L,)
        Mean number of non-zero weights a class.
    objective : ndarray of shape (L,)
        Mean cross-entropy and penalty.
    kkt : ndarray of shape (L,)
        Residual of the optimality conditions, over lam alpha.
    n_iter : ndarray of shape (L,), int64
        Iterations at each.
    coefs : ndarray of shape (L, K, M) or None
        Weights on the columns as they were given.
    intercepts : ndarray of shape (L, K) or None

    Examples
    --------
    >>> from bottlenecks.heads import sparse_softmax_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5))
    >>> path = sparse_softmax_path(X, X[:, 0] > 0, n_lambdas=3)
    >>> path.nec.round(1).tolist()[0], path.coefs.shape
    (0.0, (3, 2, 5))
    """

    lams: np.ndarray
    nec: np.ndarray
    objective: np.ndarray
    kkt: np.ndarray
    n_iter: np.ndarray
    coefs: np.ndarray | None = None
    intercepts: np.ndarray | None = None

    @classmethod
    def of(cls, points: Iterable[PathPoint], data: HeadData, *, coefs: bool) -> SoftmaxPath:
        """Gather `points` of `data`; with `coefs`, weights for the columns as they were given."""
        found = list(points)
        weights = [unscaled(data, p.state) for p in found] if coefs else []
        return cls(
            np.array([p.lam for p in found]),
            np.array([number_of_effective_concepts(p.state.W) for p in found]),
            np.array([p.state.objective for p in found]),
            np.array([p.state.kkt for p in found]),
            np.array([p.steps for p in found], dtype=np.int64),
            np.stack([W for W, _ in weights]) if weights else None,
            np.stack([b for _, b in weights]) if weights else None,
        )

    def __repr__(self) -> str:
        if not len(self.lams):
            return "SoftmaxPath(no strengths)"
        last = f", to NEC {self.nec[-1]:.3g} at lam {self.lams[-1]:.3g}"
        return f"SoftmaxPath({len(self.lams)} strengths{last}, residuals to {self.kkt.max():.2g})"

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, table

        frame = self.to_frame()
        rows = table(list(frame.columns), frame.itertuples(index=False, name=None))
        return f"<div><p>{escape(repr(self))}</p>{rows}</div>"

    def to_frame(self) -> pd.DataFrame:
        """Give the path as a table with a row for every strength."""
        import pandas as pd

        names = ("lams", "nec", "objective", "kkt", "n_iter")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def unscaled(data: HeadData, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Give weights (K, M) and intercepts (K,) for the columns as they were given, float64."""
    W = state.W.double() / data.scale
    b = state.b.double() - W @ data.mean
    return W.cpu().numpy(), b.cpu().numpy()


def solve(problem: Problem, lam: float, start: State, tol: float) -> PathPoint:
    """Solve at one strength: FISTA, then in float64 where `tol` is finer than it reaches."""
    data, alpha = problem.data, problem.alpha
    if lam >= problem.lam_max:
        zero = initial_state(data, problem.fit_intercept)
        zero.n_iter = start.n_iter
        wide = certify(data, zero, lam, alpha, problem.fit_intercept, torch.float64)
        wide.converged = wide.kkt <= tol
        return PathPoint(lam, wide)
    floor = _POLISH_AT[data.dtype]
    first = max(tol, floor)
    options = {"fit_intercept": problem.fit_intercept, "max_iter": problem.max_iter}
    state = fista(data, lam, alpha, start, tol=first, **options)  # type: ignore[arg-type]
    if state.kkt > tol:
        step = state.step
        state = polish(data, lam, alpha, state, tol=tol, **options)  # type: ignore[arg-type]
        state.W, state.b = state.W.to(data.sum_dtype), state.b.to(data.sum_dtype)
        state.step = step
    return PathPoint(lam, state, state.n_iter - start.n_iter)


def follow(
    problem: Problem, lams: Iterable[float], start: State, tol: float
) -> Iterator[PathPoint]:
    """Solve at falling strengths, each from the solution before."""
    state = start
    for lam in lams:
        point = solve(problem, lam, state, tol)
        state = point.state
        yield point


def strength_for(
    problem: Problem, count: int, lams: Iterable[float], start: State, tol: float
) -> tuple[list[PathPoint], PathPoint, int]:
    """Find the strength at which exactly `count` weights are not zero.

    Parameters
    ----------
    problem : Problem
    count : int
        Non-zero weights wanted, over all classes.
    lams : iterable of float
        Falling strengths; the path stops at the first with enough weights.
    start : State
        The solution at the first strength or above.
    tol : float
        Tolerance of the solution that is returned.

    Returns
    -------
    points : list of PathPoint
        All that was solved, in that order.
    best : PathPoint
        With `count` weights; with more where no strength has exactly so many
        (weights that leave zero together); with fewer where the path ends before.
    surplus : int
        Weights of `best` beyond `count`; negative where there are fewer.
    """
    points: list[PathPoint] = []
    above: PathPoint | None = None
    low: PathPoint | None = None
    coarse = max(tol, _COARSE)
    state = start
    for lam in lams:
        point = solve(problem, lam, state, coarse)
        if point.count >= count and point.state.kkt > tol:
            # Unfinished solutions have too many weights rather than too few.
            point = solve(problem, lam, point.state, tol)
        points.append(point)
        state = point.state
        if point.count == count:
            return points, point, 0
        if point.count > count:
            low = point
            break
        above = point
    if low is None:
        best = solve(problem, points[-1].lam, state, tol)
        points.append(best)
        return points, best, best.count - count
    best = low
    high_lam = above.lam if above is not None else low.lam * 2.0
    high_count = above.count if above is not None else 0
    for number in range(_BISECTIONS):
        lam = _between(high_lam, high_count, best.lam, best.count, count, number)
        point = solve(problem, lam, best.state, tol)
        points.append(point)
        if point.count == count:
            return points, point, 0
        if point.count > count:
            best = point
        else:
            high_lam, high_count = lam, point.count
        if high_lam <= best.lam * (1 + 1e-6):
            break
    return points, best, best.count - count


def _between(high: float, few: int, low: float, many: int, count: int, number: int) -> float:
    """Interpolate the count over log lam; every third time take the middle."""
    share = 0.5 if number % 3 == 2 else (many - count) / max(many - few, 1)
    share = min(max(share, 0.05), 0.95)
    return float(np.exp(np.log(low) + share * (np.log(high) - np.log(low))))


def to_count(state: State, surplus: int) -> State:
    """Set the `surplus` smallest weights to zero."""
    if surplus <= 0:
        return state
    W = state.W.clone()
    flat = W.abs().flatten()
    flat[flat == 0] = float("inf")
    W.view(-1)[flat.topk(surplus, largest=False).indices] = 0.0
    return State(W, state.b, state.step, state.kkt, state.objective, state.n_iter, state.converged)


def with_strongest(data: HeadData, state: State, more: int) -> torch.Tensor:
    """Give the support with `more` weights beside it, those of the largest gradient.

    Fewer where fewer would leave zero.
    """
    found = gradient_at(data, state.W, state.b)
    slope = -found.W if data.positive else found.W.abs()
    usable = torch.ones(data.M, dtype=torch.bool, device=data.device)
    usable[torch.as_tensor(data.constant, device=data.device)] = False
    slope[(state.W != 0) | ~usable] = -float("inf")
    mask = state.W != 0
    best = slope.flatten().topk(more)
    mask.view(-1)[best.indices[best.values > 0]] = True
    return mask


def geometric(lam_max: float, ratio: float, n: int) -> Any:
    """Give `n` strengths from `lam_max` down to `ratio` times that."""
    return lam_max * np.geomspace(1.0, ratio, max(n, 2))
