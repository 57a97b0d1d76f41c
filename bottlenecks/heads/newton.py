"""Limited-memory quasi-Newton on a chosen set of weights: the polish and the refit."""

from __future__ import annotations

__all__ = ["polish", "refit_on_support"]

import numpy as np
import torch
from scipy.optimize import minimize

from bottlenecks.heads.data import HeadData
from bottlenecks.heads.fista import State
from bottlenecks.heads.objective import gradient_at, kkt_residual, penalty

_MARGIN = 0.05  # weights whose gradient is this close to the bound may leave zero
_ROUNDS = 12


def polish(
    data: HeadData,
    lam: float,
    alpha: float,
    start: State,
    *,
    fit_intercept: bool,
    tol: float,
    max_iter: int,
) -> State:
    """Bring `start` to a small residual in float64.

    Weights that are not zero, and those whose gradient nearly reaches the
    bound, are free on the side of zero where they stand or would go to; on
    that orthant the objective is smooth and L-BFGS-B solves it with exact
    zeros. Then all weights are looked at again, until none violates the
    conditions.

    Parameters
    ----------
    data : HeadData
    lam, alpha : float
    start : State
        Is not changed.
    fit_intercept : bool
    tol : float
        Bound on the residual of the optimality conditions.
    max_iter : int
        Steps of L-BFGS-B at most.

    Returns
    -------
    State

    References
    ----------
    Andrew and Gao, Scalable Training of L1-Regularized Log-Linear Models, ICML
    2007 (orthants). Byrd, Lu, Nocedal and Zhu, A Limited Memory Algorithm for
    Bound Constrained Optimization, SIAM J. Sci. Comput. 1995.
    """
    l1, l2 = lam * alpha, lam * (1 - alpha)
    W, b = start.W.double(), start.b.double()
    out = State(W, b, start.step, n_iter=start.n_iter)
    left = max_iter
    for _ in range(_ROUNDS):
        found = gradient_at(data, W, b, fit_intercept=fit_intercept, dtype=torch.float64)
        out.W, out.b = W, b
        out.kkt = kkt_residual(W, found, lam, alpha, positive=data.positive, unit=data.unit)
        out.objective = found.loss + penalty(W, lam, alpha)
        out.converged = out.kkt <= tol
        if out.converged or left <= 0:
            break
        slope = found.W + l2 * W
        pull = -slope if data.positive else slope.abs()
        mask = (W != 0) | (pull > (1 - _MARGIN) * l1)
        side = torch.where(W != 0, W.sign(), -slope.sign())
        goal = 0.3 * tol * (l1 if l1 > 0 else data.unit)
        W, b, steps = _minimise(data, W, b, mask, side, l1, l2, fit_intercept, goal, left)
        out.n_iter += steps
        left -= max(steps, 1)
    return out


def refit_on_support(
    data: HeadData,
    state: State,
    mask: torch.Tensor,
    ridge: float,
    *,
    fit_intercept: bool,
    tol: float,
    max_iter: int,
) -> State:
    """Minimise mean loss + ½ ridge |W|² over the weights of a mask.

    Parameters
    ----------
    data : HeadData
    state : State
        The start; is not changed. Where weights are positive they stay so.
    mask : Tensor of shape (K, M), bool
        The weights that may differ from zero.
    ridge : float
        Above 0.
    fit_intercept : bool
    tol : float
        Bound on the largest entry of the gradient, in units of the targets.
    max_iter : int
        Steps at most.

    Returns
    -------
    State
        The residual is the largest entry of the gradient on the support.
    """
    W, b = state.W.double(), state.b.double()
    tol *= data.unit
    W, b, steps = _minimise(data, W, b, mask, None, 0.0, ridge, fit_intercept, tol, max_iter)
    found = gradient_at(data, W, b, fit_intercept=fit_intercept, dtype=torch.float64)
    off = (found.W + ridge * W)[W != 0]
    worst = max(float(off.abs().max()) if len(off) else 0.0, float(found.b.abs().max()))
    objective = found.loss + penalty(W, ridge, 0.0)
    return State(W, b, state.step, worst, objective, steps, worst <= tol)


def _minimise(
    data: HeadData,
    W: torch.Tensor,
    b: torch.Tensor,
    mask: torch.Tensor,
    side: torch.Tensor | None,
    l1: float,
    l2: float,
    fit_intercept: bool,
    tol: float,
    max_iter: int,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Run L-BFGS-B over W[mask] and b; `side` holds weights to one side of zero."""
    bounded = data.positive or (side is not None and l1 > 0)
    signs = side[mask] if side is not None and bounded else torch.ones_like(W[mask])
    n_free = int(mask.sum())
    first = torch.cat([signs * W[mask], b]).cpu().numpy()

    def unpack(values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        tensor = torch.from_numpy(np.array(values)).to(W)
        full = torch.zeros_like(W)
        full[mask] = signs * tensor[:n_free]
        return full, tensor[n_free:]

    def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        w, c = unpack(values)
        found = gradient_at(data, w, c, fit_intercept=fit_intercept, dtype=torch.float64)
        slope = signs * (found.W + l2 * w)[mask] + l1
        value = found.loss + l1 * float(w.abs().sum()) + 0.5 * l2 * float(w.square().sum())
        return value, torch.cat([slope, found.b]).cpu().numpy()

    bounds = [(0.0, None)] * n_free + [(None, None)] * len(b) if bounded else None
    result = minimize(
        value_and_slope,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={
            "gtol": tol,
            "ftol": 0.0,
            "maxiter": max_iter,
            "maxfun": 2 * max_iter + 20,
            "maxcor": 20,
        },
    )
    W, b = unpack(result.x)
    return W, b, int(result.nit)
