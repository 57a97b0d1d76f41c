"""A stochastic start: most of the way in a few passes, before the certified finish."""

from __future__ import annotations

__all__ = ["saga"]

import math
from collections.abc import Callable

import torch

from bottlenecks.heads.data import HeadData
from bottlenecks.heads.fista import State, first_step
from bottlenecks.heads.objective import penalty, soft_threshold
from conceptlab.seeds import numpy_generator

_BATCH = 256
_RATE = 0.2  # of the step that suits all rows at once, along the first gradient
_PASSES = 15
_DONE = 3e-4  # fall of the running objective in a pass below which the finish is faster


def saga(
    data: HeadData,
    lam: float,
    alpha: float,
    start: State,
    *,
    fit_intercept: bool,
    watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> State:
    """Go towards the minimum in batches, each corrected by what it said in the last pass.

    Ends after 15 passes, or when a pass lowers the running objective by less than 0.03 %;
    where a pass raises it the state before is given back. Batches come in an order drawn from
    seed 0, so that the same data give the same bits.

    Parameters
    ----------
    data : HeadData
    lam, alpha : float
    start : State
        Is not changed.
    fit_intercept : bool
    watch : callable, optional
        Gets weights and intercepts after every pass.

    Returns
    -------
    State
        Without a certificate.

    References
    ----------
    Defazio, Bach and Lacoste-Julien, SAGA, NeurIPS 2014 (equation 1); Wong, Santurkar and
    Madry, ICML 2021 (batches).
    """
    W, b = start.W.clone(), start.b.clone()
    table, mean_W, mean_b, step = _first_pass(data, W, b, fit_intercept)
    rate = _RATE * step
    shrink, scale = rate * lam * alpha, 1 + rate * lam * (1 - alpha)
    batches = list(data.batches(_BATCH))
    rng = numpy_generator(0)
    out = State(W, b, step, n_iter=start.n_iter)
    before = float("inf")
    for _ in range(_PASSES):
        total = torch.zeros((), dtype=torch.float64, device=data.device)
        V, c = out.W.clone(), out.b.clone()
        for number in rng.permutation(len(batches)):
            rows = batches[number]
            each, P = data.loss.value_and_mean(data.logits(rows, V, c), data.target[rows])
            total += data.weigh(each, rows).sum(dtype=torch.float64)
            residual = data.residual(P, rows)
            change = residual - table[rows]
            table[rows] = residual
            slope, shift = data.pull_back(rows, change), change.sum(0)
            size = rows.stop - rows.start
            V.sub_(slope, alpha=rate / size).sub_(mean_W, alpha=rate)
            V = soft_threshold(V, shrink, positive=data.positive).div_(scale)
            mean_W.add_(slope, alpha=1 / data.n)
            if fit_intercept:
                c.sub_(shift / size + mean_b, alpha=rate)
                mean_b.add_(shift, alpha=1 / data.n)
        now = float(total) / data.n + penalty(V, lam, alpha)
        if not math.isfinite(now) or now > before:
            break
        out = State(V, c, step, n_iter=out.n_iter + 1)
        if watch is not None:
            watch(V, c)
        if before - now < _DONE * abs(now):
            break
        before = now
    return out


def _first_pass(
    data: HeadData, W: torch.Tensor, b: torch.Tensor, fit_intercept: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Give residuals of all rows, their mean gradient, and a step along it."""
    table = data.new_logits()
    P = data.new_logits()
    mean_W = torch.zeros_like(W)
    mean_b = torch.zeros_like(b)
    for rows in data.slices():
        P[rows] = data.loss.mean(data.logits(rows, W, b))
        table[rows] = data.residual(P[rows], rows)
        mean_W += data.pull_back(rows, table[rows])
        mean_b += table[rows].sum(0)
    mean_W /= data.n
    mean_b /= data.n
    if not fit_intercept:
        mean_b.zero_()
    return table, mean_W, mean_b, first_step(data, mean_W, mean_b, P)
