"""Rows and targets of a head, read a chunk at a time."""

from __future__ import annotations

__all__ = ["HeadData"]

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bottlenecks.heads.losses import LOSSES, Loss
from bottlenecks.intervals import weighted_quantiles
from bottlenecks.targets import Target
from conceptlab.arrays import ArrayKind

_CHUNK = 1 << 30  # bytes of logits and rows at a time on an accelerator
_CACHE = 4 << 20  # and on the CPU, where a chunk should stay in the cache
_SAMPLE, _LEVELS = 4096, (0.05, 0.95)
_SPARSE, _SMALL = 0.05, 4096  # density and size from which sparse weights are faster


class HeadData:
    """The two matrix products that every solver of the head needs.

    Rows are standardised by their own mean and standard deviation. Matrices
    in memory are standardised once, in a copy; a memory map, or a matrix whose
    copy is not wanted, is standardised chunk by chunk as it is read.

    Parameters
    ----------
    X : ndarray, memmap or Tensor of shape (n, M)
        Finite values.
    target : Target
        Classes of the rows, labels, or numbers, of K outputs.
    weight : ndarray of shape (n,), optional
        What each row counts, at least 0; sums over rows are of weights of mean 1.
    index : ndarray of int, optional
        The rows of X that are meant; all by default.
    standardize : bool
        Whether columns get mean 0 and standard deviation 1.
    device : torch.device
        Where the products are taken.
    dtype : torch.dtype
        Type of the factors of the products: float32, float64 or bfloat16.
        Sums and logits are float32 at least.
    chunk_rows : int, optional
        Rows at a time; by default what fits the cache or a share of memory.
    positive : bool
        Whether solvers keep weights at 0 or above.

    Attributes
    ----------
    mean, scale : Tensor of shape (M,)
        Statistics of the columns; 0 and 1 without `standardize`. The scale of
        a constant column is 1.
    constant : ndarray of int64
        Columns with no spread.
    loss : Loss
        Of the kind of target.
    total : float
        Sum of the weights as given; n without.
    unit : float
        What gradients are measured in: the largest standard deviation of numbers, else 1.
    """

    def __init__(
        self,
        X: Any,
        target: Target,
        *,
        weight: np.ndarray | None = None,
        index: np.ndarray | None = None,
        standardize: bool,
        device: torch.device,
        dtype: torch.dtype,
        chunk_rows: int | None = None,
        positive: bool = False,
    ) -> None:
        self.positive = positive
        self.n, self.M = len(target), int(X.shape[1])
        self.K = len(target.names)
        self.loss: Loss = LOSSES[target.kind]
        self.device, self.dtype = device, dtype
        self.sum_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        width = torch.finfo(self.sum_dtype).bits // 8 * (self.M + 4 * self.K)
        budget = _CACHE if device.type == "cpu" else _CHUNK
        self.chunk_rows = chunk_rows or max(256, min(self.n, budget // width))
        self.target = torch.as_tensor(
            target.values,
            dtype=torch.int64 if target.kind == "classes" else self.sum_dtype,
            device=device,
        )
        self.total = float(self.n) if weight is None else float(weight.sum())
        self.weight: torch.Tensor | None = None
        if weight is not None:
            share = torch.as_tensor(weight * (self.n / self.total), device=device)
            self.weight = share.to(self.sum_dtype)
        means = _target_mean(target, weight)
        self.unit = 1.0
        if target.kind == "values":  # gradients are in the units of y
            spread = np.average((target.values - means) ** 2, axis=0, weights=weight)
            self.unit = float(np.sqrt(spread.max())) or 1.0
        self.target_mean = torch.as_tensor(means, dtype=torch.float64, device=device)
        self._raw, self._index = X, index
        mean, scale = self._statistics()
        self.constant = np.flatnonzero(scale == 0)
        if not standardize:
            mean, scale = np.zeros(self.M), np.ones(self.M)
        scale[scale == 0] = 1.0
        self.mean = torch.as_tensor(mean, device=device)
        self.scale = torch.as_tensor(scale, device=device)
        # Chunks are kept transposed, (M, c), as a sparse matrix of weights wants them;
        # dense products take either layout at the same speed.
        self._kept: list[torch.Tensor] = []
        if not isinstance(X, np.memmap):
            self._kept = [self._standardised(r, dtype).mT.contiguous() for r in self.slices()]

    def weigh(self, values: torch.Tensor, rows: slice) -> torch.Tensor:
        """Multiply values (c,) or (c, K) of a chunk by the weights of its rows, in place."""
        if self.weight is None:
            return values
        share = self.weight[rows].to(values)
        return values.mul_(share if values.ndim == 1 else share[:, None])

    def residual(self, P: torch.Tensor, rows: slice) -> torch.Tensor:
        """Give weight times (P less the targets) of a chunk, (c, K), in a new tensor."""
        return self.weigh(self.loss.residual(P, self.target[rows]), rows)

    def slices(self) -> Iterator[slice]:
        """Give the rows of every chunk."""
        for start in range(0, self.n, self.chunk_rows):
            yield slice(start, min(start + self.chunk_rows, self.n))

    def batches(self, size: int) -> Iterator[slice]:
        """Give the rows of batches of about this size, none across two chunks."""
        for rows in self.slices():
            length = rows.stop - rows.start
            step = -(-length // max(1, round(length / size)))
            for start in range(rows.start, rows.stop, step):
                yield slice(start, min(start + step, rows.stop))

    def release(self) -> None:
        """Let go of the rows as they were given; the chunks stay."""
        self._raw = None

    def _read(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        part = self._raw[rows if self._index is None else self._index[rows]]
        if isinstance(part, torch.Tensor):  # a copy, since the caller works in place
            return part.to(self.device, dtype, copy=True)
        return torch.from_numpy(np.array(part)).to(self.device, dtype)

    def _standardised(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        # The difference is taken in float64 or in float32, before any rounding to bfloat16.
        wide = ArrayKind.of(self._raw).compute_dtype if dtype != torch.float64 else dtype
        part = self._read(rows, wide)
        return part.sub_(self.mean.to(wide)).div_(self.scale.to(wide)).to(dtype)

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Give mean and standard deviation (0 where it is only rounding), in two passes."""
        total = torch.zeros(self.M, dtype=torch.float64, device=self.device)
        for rows in self.slices():
            total += self.weigh(self._read(rows, torch.float64), rows).sum(0)
        mean = total / self.n
        square = torch.zeros_like(total)
        for rows in self.slices():
            part = self._read(rows, torch.float64).sub_(mean).square_()
            square += self.weigh(part, rows).sum(0)
        deviation = (square / self.n).sqrt_()
        tiny = 1e-6 if ArrayKind.of(self._raw).compute_dtype == torch.float32 else 1e-13
        deviation[deviation <= tiny * mean.abs()] = 0.0
        return mean.double().cpu().numpy(), deviation.double().cpu().numpy()

    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Give least and largest value, and 5 % and 95 % quantiles, of the columns as given.

        Returns
        -------
        limits, levels : ndarray of shape (M, 2), float64
            Quantiles are those of at most 4096 rows, evenly taken.
        """
        wide = ArrayKind.of(self._raw).compute_dtype
        ends = [torch.stack(self._read(r, wide).aminmax(dim=0)) for r in self.slices()]
        every = torch.stack(ends)
        lows, highs = every[:, 0].amin(0), every[:, 1].amax(0)
        some, _, share = self.sample()
        limits = torch.stack([lows, highs], dim=1).double().cpu().numpy()
        return limits, weighted_quantiles(some, _LEVELS, share)

    def sample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Give at most 4096 rows as they were given, evenly taken, which they are, and weights."""
        evenly = slice(None, None, -(-self.n // _SAMPLE))
        wide = ArrayKind.of(self._raw).compute_dtype
        some = self._read(evenly, wide).double().cpu().numpy()
        share = None if self.weight is None else self.weight[evenly].double().cpu().numpy()
        return some, np.arange(self.n)[evenly], share

    def rows(self, rows: slice, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Give standardised rows (c, M)."""
        dtype = dtype or self.dtype
        if not self._kept or torch.finfo(dtype).bits > torch.finfo(self.dtype).bits:
            return self._standardised(rows, dtype)
        number, start = divmod(rows.start, self.chunk_rows)
        return self._kept[number][:, start : start + rows.stop - rows.start].mT.to(dtype)

    @property
    def quick(self) -> bool:
        """Whether any few rows are at hand: all are in memory, on the CPU."""
        return bool(self._kept) and self.device.type == "cpu"

    def new_logits(self) -> torch.Tensor:
        """Make an empty (n, K) matrix of logits."""
        return torch.empty((self.n, self.K), dtype=self.sum_dtype, device=self.device)

    def compact(self, W: torch.Tensor) -> torch.Tensor:
        """Give weights in the layout in which :meth:`logits` is fastest."""
        if self.device.type != "cpu" or not self._kept or self.dtype != W.dtype:
            return W
        if W.numel() < _SMALL or int(torch.count_nonzero(W)) > _SPARSE * W.numel():
            return W
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
            return W.to_sparse_csr()

    def logits(
        self, rows: slice, W: torch.Tensor, b: torch.Tensor, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Compute the logits (c, K) of a chunk; W is dense or from :meth:`compact`."""
        part = self.rows(rows, dtype)
        if W.layout == torch.sparse_csr:
            return torch.sparse.mm(W, part.mT).mT + b
        if part.dtype == W.dtype:
            return torch.addmm(b, part, W.mT)
        return (part @ W.mT.to(part.dtype)).to(W.dtype) + b

    def pull_back(
        self, rows: slice, residual: torch.Tensor, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Compute residualᵀ X (K, M) of a chunk."""
        part = self.rows(rows, dtype)
        return (residual.mT.to(part.dtype) @ part).to(residual.dtype)


def _target_mean(target: Target, weight: np.ndarray | None) -> np.ndarray:
    if target.kind != "classes":
        return np.asarray(np.average(target.values, axis=0, weights=weight))
    counts = np.bincount(target.values, weights=weight, minlength=len(target.names))
    return np.asarray(counts / counts.sum())
