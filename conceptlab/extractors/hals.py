"""Accelerated hierarchical alternating least squares for one or many problems at once.

A ~ U W with U >= 0. Each step makes the two products W A' and U' A, then several cheap
sweeps of coordinate descent on each factor in Gram space (Gillis and Glineur 2012), then
extrapolates both factors and starts anew from the last good point when the error rose (Ang and
Gillis 2019). The error comes from the same products, so that nothing of size n x p is
made. Problems carry a leading batch axis; each one keeps its own extrapolation and stops by
itself, so that its result does not depend on its neighbours.

References
----------
.. [1] N. Gillis and F. Glineur, "Accelerated multiplicative updates and hierarchical ALS
   algorithms for nonnegative matrix factorization", Neural Computation 24(4), 2012.
.. [2] A. Ang and N. Gillis, "Accelerating nonnegative matrix factorization algorithms using
   extrapolation", Neural Computation 31(2), 2019.
"""

from __future__ import annotations

__all__ = ["HALSOptions", "HALSResult", "factorise", "sweep", "unit_sweep"]

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from conceptlab.distributed.world import ALONE, World

_CHECK_EVERY = 10
_BETA_START, _BETA_MOST, _GROW, _GROW_CAP, _SHRINK = 0.2, 0.9, 1.05, 1.01, 1.5
"""Extrapolation: gentle, because large first steps end in worse local optima."""

Callback = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class HALSOptions:
    """How to factorise.

    Attributes
    ----------
    max_iter : int
        Most steps.
    tol : float
        Stop when ten steps lower the squared error by less than this share.
    n_sweeps : int
        Sweeps of coordinate descent per product.
    extrapolate : bool
        Whether to extrapolate; without, the error falls at every step.
    l2 : float
        Weight of |U|^2, with rule "unit".
    rule : "nonneg", "unit" or "free"
        Of W: non-negative, non-negative with rows of length one, or unconstrained.
    """

    max_iter: int = 500
    tol: float = 1e-5
    n_sweeps: int = 3
    extrapolate: bool = True
    l2: float = 0.0
    rule: Literal["nonneg", "unit", "free"] = "nonneg"


@dataclass
class HALSResult:
    """What came out, with the batch axis b first.

    Attributes
    ----------
    U : tensor of shape (b, n, k)
        Coefficients.
    W : tensor of shape (b, k, p)
        Components.
    history : list of list of float
        For each problem the squared error (plus l2 |U|^2) after every step.
    n_iter : list of int
        Steps of each problem.
    converged : list of bool
        Whether `tol` was reached.
    """

    U: torch.Tensor
    W: torch.Tensor
    history: list[list[float]]
    n_iter: list[int]
    converged: list[bool]


@dataclass
class _State:
    """Factors of the problems that still run; U has its long axis last: (b, k, n)."""

    index: torch.Tensor
    A: torch.Tensor
    energy: torch.Tensor
    U: torch.Tensor
    W: torch.Tensor
    U_ahead: torch.Tensor
    W_ahead: torch.Tensor
    error: torch.Tensor
    beta: torch.Tensor
    cap: torch.Tensor
    revivals: torch.Tensor
    world: World
    trace: list[torch.Tensor] = field(default_factory=list)

    def take(self, keep: torch.Tensor) -> _State:
        picked: dict[str, Any] = {
            k: v[keep] for k, v in vars(self).items() if isinstance(v, torch.Tensor)
        }
        return replace(self, **picked, trace=[e[keep] for e in self.trace])


@torch.no_grad()
def factorise(
    A: torch.Tensor,
    U: torch.Tensor,
    W: torch.Tensor,
    options: HALSOptions,
    *,
    callback: Callback | None = None,
    world: World = ALONE,
) -> HALSResult:
    """Factorise A (b, n, p) from the starts U (b, n, k) and W (b, k, p).

    Parameters
    ----------
    A : tensor of shape (b, n, p)
        Data; rows of zeros (padding) change nothing.
    U, W : tensor
        Starts; not changed.
    options : HALSOptions
        How.
    callback : callable, optional
        Gets (step, U (b, k, n), W, error (b,)) after every step.
    world : World
        The processes that hold other rows of the same matrices. Two small sums a step are all
        they exchange; W, errors and steps are the same on each.

    Returns
    -------
    HALSResult
    """
    b = len(A)
    state = _begin(A, U, W, options, world)
    result_U, result_W = torch.zeros_like(state.U), torch.zeros_like(state.W)
    history: list[list[float]] = [[] for _ in range(b)]
    converged = [False] * b
    limit = torch.finfo(A.dtype).eps * state.energy
    for step in range(1, options.max_iter + 1):
        _step(state, options)
        if callback is not None:
            callback(step, state.U, state.W, state.error)
        last = step == options.max_iter
        if step % _CHECK_EVERY and not last:
            continue
        revived = options.rule != "free" and _revive(state)
        fell = state.trace[-1 - _CHECK_EVERY] - state.error if step > _CHECK_EVERY else None
        done = state.error <= limit[state.index]
        if fell is not None and not revived:
            done = done | (fell <= options.tol * state.error)
        if last or bool(done.any()):
            traces = torch.stack(state.trace[1:], 1).tolist()
            for i, (problem, over) in enumerate(
                zip(state.index.tolist(), done.tolist(), strict=True)
            ):
                if last or over:
                    history[problem] = traces[i]
                    converged[problem] = over
                    result_U[problem], result_W[problem] = state.U[i], state.W[i]
            if last or bool(done.all()):
                break
            state = state.take(~done)
    return HALSResult(result_U.mT, result_W, history, [len(h) for h in history], converged)


def _begin(
    A: torch.Tensor, U: torch.Tensor, W: torch.Tensor, options: HALSOptions, world: World
) -> _State:
    b = len(A)
    U, W = U.mT.contiguous(), W.clone()
    if options.rule == "unit":
        length = torch.linalg.vector_norm(W, dim=-1, keepdim=True).clamp(min=1e-30)
        W, U = W / length, U * length
    flat = A.reshape(b, -1)
    energy = (
        torch.stack([torch.linalg.vector_norm(row, dtype=torch.float64) for row in flat]) ** 2
        if A.device.type != "mps"
        else flat.square().sum(1)
    )
    energy = world.sum(energy)
    beta = torch.full((b, 1, 1), _BETA_START if options.extrapolate else 0.0).to(A)
    cap = torch.full((b, 1, 1), _BETA_MOST if options.extrapolate else 0.0).to(A)
    error = torch.full_like(energy, torch.inf)
    return _State(
        torch.arange(b, device=A.device),
        A,
        energy,
        U,
        W,
        U.clone(),
        W.clone(),
        error,
        beta,
        cap,
        torch.zeros(b, dtype=torch.int64, device=A.device),
        world,
        [error],
    )


def _step(state: _State, options: HALSOptions) -> None:
    A, W_ahead = state.A, state.W_ahead
    gram = _product(W_ahead, W_ahead.mT)
    if options.l2:
        gram = gram + options.l2 * torch.eye(gram.shape[-1]).to(gram)
    U = sweep(state.U_ahead.clone(), gram, _against_rows(W_ahead, A), options.n_sweeps)
    beta = state.beta
    U_ahead = (U + beta * (U - state.U)).clamp_(min=0) if options.extrapolate else U
    S = state.world.sum(_product(U_ahead, U_ahead.mT))
    P = state.world.sum(_product(U_ahead, A))
    if options.rule == "free":
        W = _least_squares(S, P)
    elif options.rule == "unit":
        W = unit_sweep(W_ahead.clone(), S, P, options.n_sweeps)
    else:
        W = sweep(W_ahead.clone(), S, P, options.n_sweeps)
    error = _error(state.energy, S, P, W, options.l2)
    if not options.extrapolate:
        state.U, state.W, state.U_ahead, state.W_ahead, state.error = U, W, U, W, error
    else:
        good = error <= state.error
        keep = good[:, None, None]
        W_ahead = W + beta * (W - state.W)
        if options.rule != "free":
            W_ahead.clamp_(min=0)
        if bool(good.all()):
            state.U, state.W, state.U_ahead, state.W_ahead = U, W, U_ahead, W_ahead
        else:  # back to the last good point, where it was not
            state.U_ahead = torch.where(keep, U_ahead, state.U)
            state.W_ahead = torch.where(keep, W_ahead, state.W)
            state.U = torch.where(keep, U, state.U)
            state.W = torch.where(keep, W, state.W)
        state.error = torch.where(good, error, state.error)
        cap = (_GROW_CAP * state.cap).clamp(max=_BETA_MOST)
        state.cap = torch.where(keep, cap, beta)
        state.beta = torch.where(keep, torch.minimum(cap, _GROW * beta), beta / _SHRINK)
    state.trace.append(state.error)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply batches; a plain product is twice as fast as a batch of one on the CPU."""
    return (left[0] @ right[0])[None] if len(left) == 1 else left @ right


def _against_rows(W: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """Multiply W A'; for one problem the transposed product is half as long on the CPU."""
    return (A[0] @ W[0].mT).mT.contiguous()[None] if len(A) == 1 else W @ A.mT


def sweep(V: torch.Tensor, gram: torch.Tensor, F: torch.Tensor, n_sweeps: int) -> torch.Tensor:
    """Lower 1/2 tr(V' gram V) - tr(F' V) over V >= 0 by cyclic coordinate descent.

    Parameters
    ----------
    V : tensor of shape (b, k, m)
        Changed in place.
    gram : tensor of shape (b, k, k)
        Positive semi-definite.
    F : tensor of shape (b, k, m)
        Linear term.
    n_sweeps : int
        Passes over the k rows.

    Returns
    -------
    tensor
        `V`.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)[..., None]
    # A dead row has zeros in gram and F, and stays 0.
    inverse = torch.where(diagonal > 0, 1 / diagonal, 0)
    scaled, target = gram * inverse, F * inverse
    scaled.diagonal(dim1=-2, dim2=-1).zero_()
    if len(V) == 1 and V.device.type == "cpu":
        _sweep_numpy(V[0].numpy(), target[0].numpy(), scaled[0].numpy(), n_sweeps)
        return V
    buffer = torch.empty_like(V[:, :1])
    rows = list(zip(V.split(1, 1), target.split(1, 1), scaled.split(1, 1), strict=True))
    for _ in range(n_sweeps):
        for row, f, g in rows:
            torch.baddbmm(f, g, V, alpha=-1, out=buffer)
            torch.clamp(buffer, min=0, out=row)
    return V


def _sweep_numpy(V: np.ndarray, target: np.ndarray, scaled: np.ndarray, n_sweeps: int) -> None:
    """Do the same for one problem on the CPU, where NumPy's small calls cost a third of torch's."""
    buffer = np.empty_like(V[0])
    rows = list(zip(V, target, scaled, strict=True))
    for _ in range(n_sweeps):
        for row, f, g in rows:
            np.dot(g, V, out=buffer)
            np.subtract(f, buffer, out=buffer)
            np.maximum(buffer, 0, out=row)


def unit_sweep(W: torch.Tensor, S: torch.Tensor, P: torch.Tensor, n_sweeps: int) -> torch.Tensor:
    """Update rows of W on the unit sphere: with |w| = 1 the best is the normalised target."""
    off = S.clone()
    off.diagonal(dim1=-2, dim2=-1).zero_()
    for _ in range(n_sweeps):
        for j in range(W.shape[1]):
            target = (P[:, j] - (off[:, j : j + 1] @ W)[:, 0]).clamp_(min=0)
            length = torch.linalg.vector_norm(target, dim=-1, keepdim=True)
            W[:, j] = torch.where(length > 0, target / length.clamp(min=1e-30), W[:, j])
    return W


def _least_squares(S: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    """Solve S W = P, with a ridge at rounding level where columns of U are collinear."""
    k = S.shape[-1]
    size = S.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
    ridge = (8 * k * torch.finfo(S.dtype).eps * size).clamp(min=torch.finfo(S.dtype).tiny)
    return torch.linalg.solve(S + ridge * torch.eye(k).to(S), P)


def _error(
    energy: torch.Tensor, S: torch.Tensor, P: torch.Tensor, W: torch.Tensor, l2: float
) -> torch.Tensor:
    """|A|^2 - 2 <P, W> + <S, W W'>, summed in the precision of `energy`."""
    cross = (P * W).sum((1, 2), dtype=energy.dtype)
    square = (S * _product(W, W.mT)).sum((1, 2), dtype=energy.dtype)
    penalty = l2 * S.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=energy.dtype) if l2 else 0.0
    return (energy - 2 * cross + square).clamp(min=0) + penalty


def _revive(state: _State) -> bool:
    """Give components that died the row which the others explain worst; whether any was."""
    share = state.world.sum(state.U.square().sum(-1)) * state.W.square().sum(-1)
    floor = 100 * torch.finfo(state.A.dtype).eps ** 2 * state.energy.to(share)
    dead = share <= floor[:, None]
    k = dead.shape[1]
    if not bool(dead.any()):
        return False
    revived = False
    for i, problem in enumerate(dead.tolist()):
        for j in [j for j, gone in enumerate(problem) if gone]:
            if int(state.revivals[i]) < 3 * k:
                revived |= _reseed(state, i, j)
    return revived


def _reseed(state: _State, i: int, j: int) -> bool:
    A, U, W = state.A[i], state.U[i].clone(), state.W[i].clone()
    U[j], W[j] = 0, 0
    gram, F = W @ W.mT, W @ A.mT
    residual = torch.linalg.vector_norm(A, dim=1).square() - (U * (2 * F - gram @ U)).sum(0)
    direction = _worst_row(state.world, residual, A, U, W)
    length = torch.linalg.vector_norm(direction)
    state.revivals[i] += 1
    n = int(state.world.sum(torch.tensor(len(A))))
    if float(length) ** 2 <= torch.finfo(A.dtype).eps * float(state.energy[i]) / n:
        return False  # the others explain everything
    W[j] = direction / length
    U[j] = (A @ W[j] - (W @ W[j]) @ U).clamp(min=0)
    for name, value in (("U", U), ("U_ahead", U), ("W", W), ("W_ahead", W)):
        stack = getattr(state, name).clone()
        stack[i] = value
        setattr(state, name, stack)
    state.error = state.error.clone()
    state.error[i] = torch.inf  # the first step after may not be turned back
    return True


def _worst_row(
    world: World, residual: torch.Tensor, A: torch.Tensor, U: torch.Tensor, W: torch.Tensor
) -> torch.Tensor:
    """Give what is left of the row, of all ranks' rows, that is explained worst."""
    worst = int(residual.argmax()) if len(A) else -1
    owner = world.largest(float(residual[worst]) if len(A) else -torch.inf)
    mine = (
        (A[worst] - U[:, worst] @ W).clamp(min=0) if world.rank == owner else torch.zeros_like(W[0])
    )
    return world.broadcast(mine, owner)
