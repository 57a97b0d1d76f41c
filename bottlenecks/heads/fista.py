"""Accelerated proximal gradient on logits that are kept, not computed again."""

from __future__ import annotations

__all__ = ["State", "certify", "first_step", "fista", "initial_state"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bottlenecks.heads.data import HeadData
from bottlenecks.heads.objective import (
    gradient_at,
    kkt_residual,
    penalty,
    soft_threshold,
    start_intercept,
)

_GROWTH = 1.03
_CHECK = 25  # iterations between two looks at the certificate
_STALLED = 200  # iterations without a better one


@dataclass
class State:
    """Where a solver stands.

    Attributes
    ----------
    W : Tensor of shape (K, M)
    b : Tensor of shape (K,)
    step : float
        Length of the last step; 0 where none was made.
    kkt : float
        Residual of the optimality conditions over lam alpha.
    objective : float
    n_iter : int
        Iterations so far, of all solvers.
    converged : bool
    """

    W: torch.Tensor
    b: torch.Tensor
    step: float = 0.0
    kkt: float = float("inf")
    objective: float = float("nan")
    n_iter: int = 0
    converged: bool = False


def initial_state(data: HeadData, fit_intercept: bool) -> State:
    """Stand at zero weights and the best intercepts of these."""
    W = torch.zeros((data.K, data.M), dtype=data.sum_dtype, device=data.device)
    return State(W, start_intercept(data, fit_intercept))


def certify(
    data: HeadData,
    state: State,
    lam: float,
    alpha: float,
    fit_intercept: bool,
    dtype: torch.dtype | None = None,
) -> State:
    """Fill in residual and objective of where `state` stands."""
    found = gradient_at(data, state.W, state.b, fit_intercept=fit_intercept, dtype=dtype)
    state.kkt = kkt_residual(state.W, found, lam, alpha, positive=data.positive, unit=data.unit)
    state.objective = found.loss + penalty(state.W, lam, alpha)
    return state


def fista(
    data: HeadData,
    lam: float,
    alpha: float,
    start: State,
    *,
    fit_intercept: bool,
    tol: float,
    max_iter: int,
    watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> State:
    """Minimise the head's objective from `start`.

    One product forward and one back an iteration: the logits at the
    extrapolated point are the same combination of logits as the point is of
    weights. The step grows by 3 % an iteration and is cut where the Bregman
    divergence of the loss says that it was too long; the momentum restarts
    where it points uphill.

    Parameters
    ----------
    data : HeadData
    lam, alpha : float
        Strength and share of the absolute values.
    start : State
        Is not changed.
    fit_intercept : bool
    tol : float
        Bound on the residual of the optimality conditions.
    max_iter : int
        Iterations at most.
    watch : callable, optional
        Gets weights and intercepts after every iteration.

    Returns
    -------
    State

    References
    ----------
    Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for
    Linear Inverse Problems, SIAM J. Imaging Sciences 2009 (equations 4.1-4.3).
    O'Donoghue and Candès, Adaptive Restart for Accelerated Gradient Schemes,
    Found. Comput. Math. 2015 (gradient scheme).
    """
    W, b = start.W.clone(), start.b.clone()
    out = State(W, b, start.step, n_iter=start.n_iter)
    Z, new = data.new_logits(), data.new_logits()
    for rows in data.slices():
        Z[rows] = data.logits(rows, W, b)
    new.copy_(Z)
    P = torch.empty_like(Z)
    Y, c = W.clone(), b.clone()
    t, beta = 1.0, 0.0
    least, least_at = float("inf"), 0
    gW, gb = _gradient(data, Z, new, 0.0, P, fit_intercept)
    step = start.step or first_step(data, gW, gb, P)
    for iteration in range(1, max_iter + 1):
        out.n_iter += 1
        again = False
        while True:
            W1 = soft_threshold(Y - step * gW, step * lam * alpha, positive=data.positive)
            W1 /= 1 + step * lam * (1 - alpha)
            b1 = c - step * gb
            moved = float((W1 - Y).square().sum() + (b1 - c).square().sum())
            divergence = _advance(data, Z, new, beta, P, W1, b1, again)
            if divergence <= 0.5 * moved / step * (1 + 1e-4) + 1e-12 or step < 1e-12:
                break
            wanted = 0.45 * moved / divergence if math.isfinite(divergence) else 0.0
            step = max(0.3 * step, min(0.95 * step, wanted))
            again = True
        uphill = float(((Y - W1) * (W1 - W)).sum() + ((c - b1) * (b1 - b)).sum()) > 0
        mapping = max(float((Y - W1).abs().max()), float((c - b1).abs().max())) / step
        if uphill:
            t, beta = 1.0, 0.0
        else:
            t_next = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
            t, beta = t_next, (t - 1) / t_next
        Y, c = W1 + beta * (W1 - W), b1 + beta * (b1 - b)
        W, b = W1, b1
        if watch is not None:
            watch(W, b)
        Z, new = new, Z
        step *= _GROWTH
        if mapping <= 2 * tol * lam * alpha or iteration % _CHECK == 0:
            out.W, out.b, out.step = W, b, step
            certify(data, out, lam, alpha, fit_intercept)
            if out.kkt <= tol:
                out.converged = True
                return out
            if out.kkt < least:
                least, least_at = out.kkt, iteration
            elif iteration - least_at >= _STALLED:
                break  # at the rounding of the products; more steps give nothing
        gW, gb = _gradient(data, Z, new, beta, P, fit_intercept)
    out.W, out.b, out.step = W, b, step
    certify(data, out, lam, alpha, fit_intercept)
    out.converged = out.kkt <= tol
    return out


def _gradient(
    data: HeadData,
    Z: torch.Tensor,
    old: torch.Tensor,
    beta: float,
    P: torch.Tensor,
    fit_intercept: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Set P to what is predicted at Z + beta (Z - old) and give the gradient there."""
    gW = torch.zeros((data.K, data.M), dtype=data.sum_dtype, device=data.device)
    gb = torch.zeros(data.K, dtype=data.sum_dtype, device=data.device)
    for rows in data.slices():
        data.loss.mean(torch.lerp(Z[rows], old[rows], -beta), out=P[rows])
        residual = data.residual(P[rows], rows)
        gW += data.pull_back(rows, residual)
        gb += residual.sum(0)
    return gW.div_(data.n), gb.div_(data.n) if fit_intercept else gb.zero_()


def _advance(
    data: HeadData,
    Z: torch.Tensor,
    new: torch.Tensor,
    beta: float,
    P: torch.Tensor,
    W: torch.Tensor,
    b: torch.Tensor,
    again: bool,
) -> float:
    """Set `new` to the logits at (W, b); give the Bregman divergence from the last point."""
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    weights = data.compact(W)
    for rows in data.slices():
        p = P[rows]
        if again:  # the logits of the last point are gone
            last = data.loss.logits_of(p)
        else:
            last = torch.lerp(Z[rows], new[rows], -beta)
        z = data.logits(rows, weights, b)
        new[rows] = z
        each = data.loss.divergence(p, torch.sub(z, last, out=last))
        total += data.weigh(each, rows).sum()
    return float(total) / data.n


def first_step(data: HeadData, gW: torch.Tensor, gb: torch.Tensor, P: torch.Tensor) -> float:
    """Give the inverse of the curvature along the gradient."""
    curvature = torch.zeros((), dtype=torch.float64, device=data.device)
    for rows in data.slices():
        each = data.loss.curvature(P[rows], data.logits(rows, gW, gb))
        curvature += data.weigh(each, rows).sum(dtype=torch.float64)
    square = float(gW.square().sum() + gb.square().sum())
    return square / max(float(curvature) / data.n, 1e-30) if square > 0 else 1.0
