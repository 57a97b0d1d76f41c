"""Rows and labels of a multinomial problem, read a chunk at a time."""

from __future__ import annotations

__all__ = ["SoftmaxData"]

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayKind

_CHUNK = 1 << 30  # bytes of logits and rows at a time on an accelerator
_CACHE = 4 << 20  # and on the CPU, where a chunk should stay in the cache
_SAMPLE, _LEVELS = 4096, (0.05, 0.95)
_SPARSE, _SMALL = 0.05, 4096  # density and size from which sparse weights are faster


class SoftmaxData:
    """The two matrix products that every solver of the head needs.

    Rows are standardised by their own mean and standard deviation. Matrices
    in memory are standardised once, in a copy; a memory map, or a matrix whose
    copy is not wanted, is standardised chunk by chunk as it is read.

    Parameters
    ----------
    X : ndarray, memmap or Tensor of shape (n, M)
        Finite values.
    target : ndarray of shape (n,), int64
        Class of every row, 0 to K - 1.
    n_classes : int
        K.
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
    """

    def __init__(
        self,
        X: Any,
        target: np.ndarray,
        n_classes: int,
        *,
        standardize: bool,
        device: torch.device,
        dtype: torch.dtype,
        chunk_rows: int | None = None,
        positive: bool = False,
    ) -> None:
        self.positive = positive
        self.n, self.M = int(X.shape[0]), int(X.shape[1])
        self.K = n_classes
        self.device, self.dtype = device, dtype
        self.sum_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        width = torch.finfo(self.sum_dtype).bits // 8 * (self.M + 4 * self.K)
        budget = _CACHE if device.type == "cpu" else _CHUNK
        self.chunk_rows = chunk_rows or max(256, min(self.n, budget // width))
        self.target = torch.as_tensor(target, dtype=torch.int64, device=device)
        counts = np.bincount(target, minlength=n_classes)
        self.frequency = torch.as_tensor(counts / self.n, dtype=torch.float64, device=device)
        self._raw = X
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

    def slices(self) -> Iterator[slice]:
        """Give the rows of every chunk."""
        for start in range(0, self.n, self.chunk_rows):
            yield slice(start, min(start + self.chunk_rows, self.n))

    def release(self) -> None:
        """Let go of the rows as they were given; the chunks stay."""
        self._raw = None

    def _read(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        part = self._raw[rows]
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
            total += self._read(rows, torch.float64).sum(0)
        mean = total / self.n
        square = torch.zeros_like(total)
        for rows in self.slices():
            square += self._read(rows, torch.float64).sub_(mean).square_().sum(0)
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
        some = self._read(slice(None, None, -(-self.n // _SAMPLE)), wide).double().cpu().numpy()
        limits = torch.stack([lows, highs], dim=1).double().cpu().numpy()
        return limits, np.quantile(some, _LEVELS, axis=0).T

    def rows(self, rows: slice, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Give standardised rows (c, M)."""
        dtype = dtype or self.dtype
        if not self._kept or torch.finfo(dtype).bits > torch.finfo(self.dtype).bits:
            return self._standardised(rows, dtype)
        return self._kept[rows.start // self.chunk_rows].mT.to(dtype)

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
