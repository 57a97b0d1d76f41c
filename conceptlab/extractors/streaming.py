"""Factorisation of rows that do not fit in memory, by statistics of blocks.

Expectation-maximisation in the incremental form of Neal and Hinton (1998), with the exact
codes as the expectation: the statistics of each block are replaced when the block comes by.
The pure online form (``partial_fit``) is that of Mairal, Bach, Ponce and Sapiro, "Online
learning for matrix factorization and sparse coding", JMLR 11, 2010.
"""

from __future__ import annotations

__all__ = [
    "StreamOptions",
    "StreamResult",
    "StreamStart",
    "basis_residual",
    "collect",
    "fit_stream",
    "frobenius_error",
    "sample_rows",
    "solve_basis",
]

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from conceptlab.arrays import as_numpy, as_tensor
from conceptlab.errors import InputError
from conceptlab.extractors.coding import nnls, nnls_gram
from conceptlab.extractors.hals import unit_sweep
from conceptlab.extractors.statistics import NMFStatistics
from conceptlab.progress import Progress, track
from conceptlab.seeds import numpy_generator

_SAMPLE_ROWS = 4096
_MAX_BLOCKS = 64
_CHUNK = 8192


def collect(A: torch.Tensor, U: torch.Tensor) -> NMFStatistics:
    """Sum U'U, U'A and A squared in float64, some thousand rows at a time."""
    double = torch.float64 if A.device.type != "mps" else torch.float32
    k, p = U.shape[1], A.shape[1]
    UU = torch.zeros(k, k, dtype=double, device=A.device)
    UA = torch.zeros(k, p, dtype=double, device=A.device)
    energy = torch.zeros((), dtype=double, device=A.device)
    for a, u in zip(A.split(_CHUNK), U.to(A.device).split(_CHUNK), strict=True):
        rows, codes = a.to(double), u.to(double)
        UU += codes.mT @ codes
        UA += codes.mT @ rows
        energy += rows.square().sum()
    return NMFStatistics(as_numpy(UU), as_numpy(UA), float(energy), float(len(A)))


def frobenius_error(A: torch.Tensor, U: torch.Tensor, W: torch.Tensor) -> float:
    """Compute |A - U W| from the residuals themselves, which does not cancel."""
    total = 0.0
    for a, u in zip(A.split(_CHUNK), U.split(_CHUNK), strict=True):
        total += float(torch.linalg.vector_norm(a - u @ W)) ** 2
    return total**0.5


def solve_basis(statistics: NMFStatistics, W: np.ndarray, l2: float) -> np.ndarray:
    """Solve for W >= 0 given the statistics; exact, and with rows of length one if l2 > 0."""
    UU, UA = torch.from_numpy(statistics.UU), torch.from_numpy(statistics.UA)
    if l2:
        start = torch.from_numpy(W.astype(np.float64))[None].clone()
        return as_numpy(unit_sweep(start, UU[None], UA[None], 50)[0])
    solved = as_numpy(nnls_gram(UA.mT.contiguous(), UU).mT)
    unused = np.diag(statistics.UU) <= 0  # the data say nothing on these: keep them
    return np.where(unused[:, None], W, solved)


def basis_residual(statistics: NMFStatistics, W: np.ndarray, l2: float) -> float:
    """Measure the optimality of W given U, relative to the length of A.

    For l2 = 0 max |min(W d, g / d)| with g = U'U W - U'A and d_j = |U_j|. Otherwise rows have
    length one, and the best row is known: max |W - best| d.
    """
    W = np.asarray(W, dtype=np.float64)
    d = np.sqrt(np.diag(statistics.UU).clip(0))[:, None]
    gradient = statistics.UU @ W - statistics.UA
    live = d > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        if l2:
            best = (d**2 * W - gradient).clip(0)
            best /= np.linalg.norm(best, axis=1, keepdims=True)
            violation = np.where(live, (W - best) * d, 0)
        else:
            violation = np.where(live, np.minimum(W * d, gradient / d), 0)
    return float(np.abs(violation).max() / np.sqrt(max(statistics.energy, 1e-300)))


@dataclass(frozen=True)
class StreamOptions:
    """Weight of |U|^2, least share by which a pass must lower the error, most passes."""

    l2: float
    tol: float
    max_passes: int


@dataclass(frozen=True, eq=False)
class StreamStart:
    """Where a stream is picked up.

    Attributes
    ----------
    W : numpy.ndarray of shape (k, p)
        Fitted to a sample of the rows.
    per_row : NMFStatistics
        Of the sample, divided by its rows: they stand in for rows not seen yet.
    n : int
        Rows in the stream.
    """

    W: np.ndarray
    per_row: NMFStatistics
    n: int


@dataclass(frozen=True, eq=False)
class StreamResult:
    """The basis W (k, p), statistics of all rows, squared error by pass, and whether `tol` held."""

    W: np.ndarray
    statistics: NMFStatistics
    history: np.ndarray
    converged: bool


def fit_stream(
    batches: Callable[[], Iterable[torch.Tensor]],
    start: StreamStart,
    options: StreamOptions,
    *,
    progress: Progress = None,
) -> StreamResult:
    """Improve a basis by passes over rows that are never in memory together.

    Parameters
    ----------
    batches : callable
        Gives the same batches (m, p) in the same order each time it is called.
    start : StreamStart
        The basis and what is known of the rows.
    options : StreamOptions
        How.
    progress : bool, callable or None
        Bar over the passes.

    Returns
    -------
    StreamResult

    Raises
    ------
    InputError
        If a later pass gives other batches.
    """
    blocks = _Blocks(start, options.l2)
    history: list[float] = []
    converged = False
    passes = range(options.max_passes)
    for _ in track(passes, description="factorise", progress=progress, unit="pass"):
        for rows in batches():
            W = as_tensor(blocks.W, device=rows.device)
            blocks.add(collect(rows, nnls(rows, W, l2=options.l2)))
        history.append(blocks.end_pass())
        if len(history) > 1 and history[-2] - history[-1] <= options.tol * history[-1]:
            converged = True
            break
    return StreamResult(blocks.W, blocks.total, np.asarray(history), converged)


def sample_rows(batches: Iterable[torch.Tensor], least: int, seed: int) -> tuple[torch.Tensor, int]:
    """Draw rows uniformly in one pass: keep those with the smallest random keys.

    Parameters
    ----------
    batches : iterable of tensors (m, p)
        The stream.
    least : int
        Rows wanted, where there are as many; 4096 if it is fewer.
    seed : int
        Of the keys.

    Returns
    -------
    sample : torch.Tensor of shape (m, p)
    n : int
        Rows in the stream.
    """
    rng = numpy_generator(seed)
    most = max(_SAMPLE_ROWS, least)
    kept: torch.Tensor | None = None
    keys = np.empty(0)
    n = 0
    for rows in batches:
        n += len(rows)
        keys = np.concatenate([keys, rng.random(len(rows))])
        kept = rows if kept is None else torch.cat([kept, rows])
        if len(keys) > most:
            order = np.sort(np.argpartition(keys, most)[:most])
            keys, kept = keys[order], kept[torch.from_numpy(order).to(kept.device)]
    if kept is None or n < 2:
        raise InputError(
            f"The stream has {n} sample(s), at least 2 are needed.", code="CL-INPUT-FEW"
        )
    if not bool(kept.any()):
        raise InputError("All entries of the stream are zero.", code="CL-INPUT-ZERO")
    return kept, n


class _Blocks:
    """Statistics by block of batches, and the W that they lead to.

    Each block is replaced when it comes by again. In the first pass the sample stands in for
    the rows that have not come by yet. Beyond 64 blocks, neighbours are joined.
    """

    def __init__(self, start: StreamStart, l2: float) -> None:
        self.W = np.asarray(start.W, dtype=np.float64)
        self.total = 0.0 * start.per_row
        self._per_row, self._n, self._l2 = start.per_row, start.n, l2
        self._blocks: list[NMFStatistics] = []
        self._waiting: list[NMFStatistics] = []
        self._n_waiting = 0  # batches
        self._filling, self._size, self._next = True, 1, 0

    def add(self, batch: NMFStatistics) -> None:
        self._waiting.append(batch)
        self._n_waiting += 1
        if self._n_waiting == self._size:
            self._close()
        if self._filling and len(self._blocks) > _MAX_BLOCKS:
            *paired, odd = self._blocks
            self._blocks = [a + b for a, b in zip(paired[::2], paired[1::2], strict=True)]
            self._waiting, self._n_waiting, self._size = [odd], self._size, 2 * self._size

    def end_pass(self) -> float:
        """Close the last block and return the squared error over all rows."""
        if self._waiting:
            self._close()
        if self._next != len(self._blocks) and not self._filling:
            raise self._changed()
        self._filling, self._next = False, 0
        self.total = sum(self._blocks[1:], start=self._blocks[0])  # sheds rounding
        return self.total.squared_error(self.W) + self._l2 * float(np.trace(self.total.UU))

    def _close(self) -> None:
        new = sum(self._waiting[1:], start=self._waiting[0])
        self._waiting, self._n_waiting = [], 0
        if self._filling:
            self._blocks.append(new)
            self.total = sum(self._blocks[1:], start=self._blocks[0])
            whole = self.total + max(self._n - self.total.n, 0.0) * self._per_row
        else:
            if self._next >= len(self._blocks) or new.n != self._blocks[self._next].n:
                raise self._changed()
            whole = self.total = self.total + new + (-1.0) * self._blocks[self._next]
            self._blocks[self._next] = new
        self._next += 1
        self.W = solve_basis(whole, self.W, self._l2)

    def _changed(self) -> InputError:
        return InputError(
            "The stream gave other batches in a later pass. Turn shuffling off, so that each "
            "pass gives the same batches in the same order.",
            code="CL-INPUT-SHAPE",
        )
