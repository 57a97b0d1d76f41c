"""Factorisation, coding and its derivative, beside scikit-learn and unrolled FISTA."""

from __future__ import annotations

__all__ = ["run"]

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import NMF, non_negative_factorization
from sklearn.exceptions import ConvergenceWarning

from conceptlab.bench import BenchResult, Row, cpu_time
from conceptlab.bench._activations import activation_matrix
from conceptlab.extractors.coding import kkt_residual, nnls
from conceptlab.extractors.hals import HALSOptions, factorise
from conceptlab.extractors.starts import nndsvd

Trace = list[tuple[float, float]]
"""(CPU seconds so far, |A - U W|) along a run."""


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure on the activations of 2048 crops (512 when `quick`).

    Parameters
    ----------
    quick : bool
        A quarter of the data, one rank and one start.
    seed : int
        Of data and starts.

    Returns
    -------
    BenchResult
    """
    A = activation_matrix(n_images=32 if quick else 128, seed=seed)
    ranks = (10,) if quick else (10, 20)
    starts = [seed] if quick else [seed, seed + 1, seed + 2]
    rows: list[Row] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for rank in ranks:
                rows += _fit_rows(A, rank, starts, 400 if quick else 2000)
            for rank in ranks:
                rows += _coding_rows(A, rank, seed)
    finally:
        torch.set_num_threads(threads)
    settings = {"matrix": "x".join(map(str, A.shape)), "dtype": str(A.dtype), "starts": len(starts)}
    return BenchResult("nmf", rows, seed, settings)


def _fit_rows(A: np.ndarray, rank: int, starts: list[int], peer_steps: int) -> list[Row]:
    """Time to 0.1 % of the best objective known for each start, and the errors at the end."""
    times: list[tuple[float, float]] = []
    ends: list[float] = []
    dead = 0
    for start in starts:
        data = torch.from_numpy(A)
        U, W = nndsvd(data, rank, start, fill=data.mean())
        ours, codes = _our_trace(data, U, W)
        peer = _peer_trace(A, U.numpy(), W.numpy(), peer_steps)
        best = min(ours[-1][1], peer[-1][1]) ** 2
        times.append((_reach(ours, best * 1.001), _reach(peer, best * 1.001)))
        ends.append(100 * (ours[-1][1] / peer[-1][1] - 1))
        dead += int((codes.amax(1) <= 0).sum())
    return [
        _time_row(f"fit r={rank}: to 0.1 % of the best objective", times, rank),
        Row(
            f"fit r={rank}: error at the end above the peer's, worst of {len(starts)} starts",
            max(ends),
            0.0,
            goal="<= 0.05",
            met=max(ends) <= 0.05,
            unit="%",
            note=f"each: {', '.join(f'{end:+.3f}' for end in ends)}; peer run {peer_steps} steps",
        ),
        Row(f"fit r={rank}: dead components", dead, goal="0", met=dead == 0, unit="components"),
    ]


def _time_row(name: str, times: list[tuple[float, float]], rank: int) -> Row:
    """Compare the medians; a run that never reaches the target counts as infinitely slow."""
    ours, peer = (float(np.median([pair[i] for pair in times])) for i in (0, 1))
    ratio = peer / ours if np.isfinite(ours) else 0.0
    shown = "; ".join(f"{a:.2f} vs {b:.2f}" for a, b in times)
    return Row(
        name,
        ours if np.isfinite(ours) else None,
        peer if np.isfinite(peer) else None,
        ratio if np.isfinite(ratio) else None,
        goal=">= 4" if rank == 20 else "",
        met=ratio >= 4 if rank == 20 else None,
        note=f"scikit-learn cd, same start; median; each: {shown} (inf: ends in a worse optimum)",
    )


def _our_trace(A: torch.Tensor, U: torch.Tensor, W: torch.Tensor) -> tuple[Trace, torch.Tensor]:
    trace: Trace = []
    spent, last = 0.0, time.process_time()

    def record(step: int, u: torch.Tensor, w: torch.Tensor, error: torch.Tensor) -> None:
        nonlocal spent, last
        spent += time.process_time() - last
        trace.append((spent, float(error[0]) ** 0.5))
        last = time.process_time()

    options = HALSOptions(tol=1e-6, max_iter=1000)
    result = factorise(A[None], U[None], W[None], options, callback=record)
    return trace, result.U[0].mT


def _peer_trace(A: np.ndarray, U: np.ndarray, W: np.ndarray, steps: int) -> Trace:
    """Run scikit-learn in pieces; its coordinate descent keeps no state but U and W."""
    trace: Trace = []
    U, W, spent, piece = U.copy(), W.copy(), 0.0, 20
    for _ in range(steps // piece):
        begin = time.process_time()
        U, W, _ = non_negative_factorization(
            A, U, W, n_components=len(W), init="custom", tol=0, max_iter=piece
        )
        spent += time.process_time() - begin
        trace.append((spent, float(np.linalg.norm(A.astype(np.float64) - U @ W))))
    return trace


def _reach(trace: Trace, objective: float) -> float:
    return next((spent for spent, error in trace if error**2 <= objective), float("inf"))


def _coding_rows(A: np.ndarray, rank: int, seed: int) -> list[Row]:
    peer = NMF(rank, init="nndsvda", random_state=seed, max_iter=200)
    peer.fit(A)
    W = peer.components_.astype(np.float64)
    wide = A.astype(np.float64)
    rows = []
    for data in (A, wide):
        fitted = NMF(rank, init="nndsvda", random_state=seed, max_iter=200).fit(data)
        ours, _ = cpu_time(lambda data=data: nnls(data, W), repeats=7)  # type: ignore[misc]
        theirs, _ = cpu_time(lambda data=data, m=fitted: m.transform(data), repeats=7)  # type: ignore[misc]
        rows.append(
            Row(
                f"coding r={rank}, {data.dtype}",
                ours,
                theirs,
                theirs / ours,
                goal=">= 1",
                met=theirs >= ours,
                note=f"scikit-learn transform of {len(A)} rows",
            )
        )
    exact, rough = nnls(wide, W), peer.transform(A).astype(np.float64)
    ours_kkt = float(kkt_residual(wide, exact, W).max())
    rows.append(
        Row(
            f"coding r={rank}: KKT residual, float64",
            ours_kkt,
            float(kkt_residual(wide, rough, W).max()),
            goal="<= 1e-8",
            met=ours_kkt <= 1e-8,
            unit="relative",
        )
    )
    return rows + _derivative_rows(wide[:512], W, rank, seed)


def _derivative_rows(A: np.ndarray, W: np.ndarray, rank: int, seed: int) -> list[Row]:
    """Vector-Jacobian products: the closed form against backpropagation through FISTA."""
    rng = np.random.default_rng(seed)
    v = torch.from_numpy(rng.normal(size=(len(A), rank)))
    rows = torch.from_numpy(A).requires_grad_()
    codes = nnls(rows, W)

    def closed() -> torch.Tensor:
        return torch.autograd.grad(codes, rows, v, retain_graph=True)[0]

    def whole() -> torch.Tensor:
        return torch.autograd.grad(nnls(rows, W), rows, v)[0]

    exact = _reference(A, codes.detach().numpy(), W, v.numpy())
    ours, product = cpu_time(closed, repeats=7)
    both, _ = cpu_time(whole, repeats=3)
    off = _relative(product, exact)
    # The least number of steps, doubled from 200, whose derivative is good to 1 %.
    for steps in (200, 400, 800, 1600, 3200, 6400):
        fista = _unrolled(torch.from_numpy(A), torch.from_numpy(W), v, steps)
        theirs, unrolled = cpu_time(fista, repeats=1)
        peer_off = _relative(unrolled, exact)
        if peer_off <= 1e-2:
            break
    note = f"FISTA, {steps} steps; off the exact product: ours {off:.0e}, peer {peer_off:.0e}"
    return [
        Row(
            f"derivative r={rank}: vector-Jacobian product, codes given",
            ours,
            theirs,
            theirs / ours,
            goal=">= 100",
            met=theirs / ours >= 100 and off <= peer_off,
            note=note + "; the peer must run forward to have a graph",
        ),
        Row(
            f"derivative r={rank}: coding and product together",
            both,
            theirs,
            theirs / both,
            note="the same, with our forward step counted too",
        ),
    ]


def _reference(A: np.ndarray, U: np.ndarray, W: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Compute the product row by row by least squares on the support, without our solver."""
    answer = np.zeros_like(A)
    for row, (u, weight) in enumerate(zip(U, v, strict=True)):
        support = u > 0
        if support.any():
            answer[row] = np.linalg.lstsq(W[support], weight[support], rcond=None)[0]
    return answer


def _unrolled(
    A: torch.Tensor, W: torch.Tensor, v: torch.Tensor, steps: int
) -> Callable[[], torch.Tensor]:
    """Make a function that codes by `steps` steps of FISTA and backpropagates `v`."""

    def call() -> torch.Tensor:
        rows = A.clone().requires_grad_()
        gram = W @ W.mT
        rate = 1 / float(torch.linalg.eigvalsh(gram)[-1])
        target = rows @ W.mT
        code = ahead = torch.zeros_like(v)
        t = 1.0
        for _ in range(steps):
            new = (ahead - rate * (ahead @ gram - target)).clamp(min=0)
            t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
            ahead = new + (t - 1) / t_new * (new - code)
            code, t = new, t_new
        return torch.autograd.grad(code, rows, v)[0]

    return call


def _relative(value: torch.Tensor, exact: np.ndarray) -> float:
    return float(np.linalg.norm(value.detach().numpy() - exact) / np.linalg.norm(exact))
