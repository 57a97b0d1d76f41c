"""Factorisation of rows that do not fit in memory, by statistics of blocks.

Expectation-maximisation in the incremental form of Neal and Hinton (1998), with the exact
codes as the expectation: the statistics of each block are replaced when the block comes by.
The pure online form (``partial_fit``) is that of Mairal, Bach, Ponce and Sapiro, "Online
learning for matrix factorization and sparse coding", JMLR 11, 2010.
"""

from __future__ import annotations

__all__ = ["basis_residual", "collect", "fit_batches", "frobenius_error", "solve_basis"]

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy, as_tensor, check_features, resolve_device
from conceptlab.errors import InputError
from conceptlab.extractors.coding import nnls, nnls_gram
from conceptlab.extractors.hals import factorise, unit_sweep
from conceptlab.extractors.statistics import NMFStatistics
from conceptlab.progress import Progress, track
from conceptlab.seeds import draw_seed, numpy_generator

if TYPE_CHECKING:
    from conceptlab.extractors.nmf import NMFConcepts

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


def fit_batches(
    model: NMFConcepts, batches: Any, *, max_passes: int, progress: Progress = None
) -> None:
    """Fit `model` to a stream; see :meth:`NMFConcepts.fit_batches`."""
    if isinstance(batches, Iterator):
        raise InputError(
            "A generator can be read once, but the fit needs several passes. Give a list, an "
            "ActivationStore or a DataLoader, or call partial_fit on each batch.",
            code="CL-INPUT-TYPE",
        )
    seed = draw_seed(model.random_state)
    sample, n = _sample(model, batches, seed)
    k = model._check_n_concepts(model.n_concepts, n, sample.shape[1])
    k = model._check_n_concepts(k, *sample.shape)
    _fit_sample(model, sample, k, seed)
    history: list[float] = []
    blocks = _Blocks(model.components_, (1 / len(sample)) * model.statistics_, n, model.l2)
    converged = False
    for _ in track(range(max_passes), description="factorise", progress=progress, unit="pass"):
        for rows in _rows(model, batches):
            W = as_tensor(blocks.W, device=rows.device)
            blocks.add(collect(rows, nnls(rows, W, l2=model.l2)))
        history.append(blocks.end_pass())
        if len(history) > 1 and history[-2] - history[-1] <= model.tol * history[-1]:
            converged = True
            break
    model._accept(blocks.W, blocks.total)
    model.history_ = np.asarray(history)
    model.n_iter_ = len(history)
    model.n_rows_seen_ = n
    model.seed_ = seed
    model._warn(converged)


def _rows(model: NMFConcepts, batches: Any, *, reset: bool = False) -> Iterator[torch.Tensor]:
    """Validate and move one batch after the other."""
    source: Iterable[Any] = (
        batches.batches(model.batch_size) if hasattr(batches, "batches") else batches
    )
    for i, batch in enumerate(source):
        matrix = check_features(model, batch, reset=reset and i == 0, non_negative=True)
        yield as_tensor(matrix, device=resolve_device(model.device, like=matrix))


def _sample(model: NMFConcepts, batches: Any, seed: int) -> tuple[torch.Tensor, int]:
    """Draw rows uniformly in one pass: keep those with the smallest random keys."""
    rng = numpy_generator(seed)
    most = max(_SAMPLE_ROWS, 20 * int(model.n_concepts))
    kept: torch.Tensor | None = None
    keys = np.empty(0)
    n = 0
    for rows in _rows(model, batches, reset=True):
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
    return kept, n


def _fit_sample(model: NMFConcepts, sample: torch.Tensor, k: int, seed: int) -> None:
    if not bool(sample.any()):
        raise InputError("All entries of the stream are zero.", code="CL-INPUT-ZERO")
    starts = model._starts(sample, k, seed)
    U, W = (torch.stack(part) for part in zip(*starts, strict=True))
    result = factorise(sample.expand(len(starts), *sample.shape), U, W, model._options())
    best = int(np.argmin([trace[-1] for trace in result.history]))
    result.converged[best] = True  # the passes over all rows decide, not the sample
    model._finish(sample, result, best, seed)


class _Blocks:
    """Statistics by block of batches, and the W that they lead to.

    Each block is replaced when it comes by again. In the first pass the sample stands in for
    the rows that have not come by yet. Beyond 64 blocks, neighbours are joined.
    """

    def __init__(self, W: np.ndarray, per_row: NMFStatistics, n: int, l2: float) -> None:
        self.W = np.asarray(W, dtype=np.float64)
        self.total = 0.0 * per_row
        self._per_row, self._n, self._l2 = per_row, n, l2
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
