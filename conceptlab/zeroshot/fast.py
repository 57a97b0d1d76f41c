"""The pooling rules for many rows on the CPU, with a uniform prior.

Rows are sorted in place by NumPy's vectorised sort and then turned, so that
every further step runs along long contiguous lines instead of rows of some
fifty numbers. The scale is the smallest reach of any window of ``k + 1`` sorted
neighbours about the median, which spares a second sort. Buffers are kept from
chunk to chunk, because fresh memory costs more than the arithmetic.
"""

from __future__ import annotations

__all__ = ["CHUNK", "RowPooler"]

from typing import Any

import numpy as np
import torch

from conceptlab.zeroshot.rules import Options

CHUNK = 128 * 1024  # numbers at once: a call costs microseconds, what does not fit a cache more
_TURNED = 512  # rows turned at once; twice as fast as all of a chunk


class RowPooler:
    """Pool rows of C similarities by one rule; keeps its buffers between calls.

    Not for several threads at once: give each its own.

    Parameters
    ----------
    rule : str
        A key of :data:`conceptlab.zeroshot.rules.RULES` that pools.
    options : dict
        Complete and checked.
    C : int
        Numbers a row.
    dtype : dtype
        float32 or float64.
    chunk : int
        Numbers worked on at once.

    Examples
    --------
    >>> RowPooler("max", {}, 2, np.float64)(np.array([[1.0, 2.0], [4.0, 3.0]]))
    array([2., 4.])
    """

    def __init__(
        self, rule: str, options: Options, C: int, dtype: Any, *, chunk: int = CHUNK
    ) -> None:
        self.rule, self.options = rule, options
        self.C, self.k, self.dtype = C, (C - 1) // 2, np.dtype(dtype)
        self.step = max(1, chunk // C)
        if rule == "trimmed_mean":
            edges = np.arange(C + 1) / C
            share = options["share"]
            kept = np.minimum(edges[1:], 1 - share) - np.maximum(edges[:-1], share)
            self._kept = (kept.clip(min=0) / kept.clip(min=0).sum()).astype(self.dtype)
        if "kappa" in options:
            counts = np.arange(C + 1.0)
            with np.errstate(divide="ignore"):
                slopes = np.log((C - counts) / counts)
            self._slopes: np.ndarray = slopes.clip(*options["kappa"]).astype(self.dtype)
        self._rows = self._room = 0
        self._signed = False

    def __call__(self, S: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Pool rows.

        Parameters
        ----------
        S : ndarray of shape (R, C), C-contiguous
            Overwritten.
        out : ndarray of shape (R,), optional
            Where to write.

        Returns
        -------
        ndarray of shape (R,)
        """
        R = len(S)
        out = np.empty(R, dtype=self.dtype) if out is None else out
        # Not kept: a bound method would hold the buffers until the garbage collector comes.
        kernel = getattr(self, f"_{self.rule}")
        step = -(-R // max(1, -(-R // self.step)))  # chunks of one size, or nearly
        for start in range(0, R, max(1, step)):
            rows = S[start : start + step]
            if len(rows) != self._rows:
                self._buffers(len(rows))
            kernel(rows, out[start : start + step])
        return out

    def _buffers(self, R: int) -> None:
        """Shape the buffers for R rows; the last chunk of a call may have fewer than the others."""
        if self.rule not in {"trim", "sym", "gated", "tukey"}:
            return
        if self._room < R:
            size, self._room = self.C * R, R
            self._numbers = np.empty(size, dtype=self.dtype)
            self._flags = np.empty(size, dtype=bool)
            self._lines = np.empty((3, R), dtype=self.dtype)
            self._counts = np.empty(R, dtype=np.uint8 if self.C < 256 else np.int64)
        self._rows = R
        shape = (self.C, R)
        self._r = self._numbers[: self.C * R].reshape(shape)
        self._far = self._flags[: self.C * R].reshape(shape)
        self._mad, self._a, self._b = (line[:R] for line in self._lines)
        self._count: np.ndarray = self._counts[:R]

    def _sort(self, S: np.ndarray) -> None:
        """Sort rows in place, as integers while no number is negative: a third faster.

        The bits of numbers that are not negative rise with the number, and an integer
        sort need not look for NaN. A negative number has a negative integer, so it
        comes first in its row and shows itself there; such rows are sorted again.
        """
        if not self._signed:
            bits = S.view(f"i{S.itemsize}")
            bits.sort(axis=1)
            if bits[:, 0].min(initial=0) >= 0:
                return
            wrong = np.flatnonzero(bits[:, 0] < 0)
            self._signed = len(wrong) > len(S) // 8  # then the next chunks will have them too
            if not self._signed:
                S[wrong] = np.sort(S[wrong], axis=1)
                return
        S.sort(axis=1)

    # -- location and scale by the sorted row -------------------------------------
    def _turn(self, S: np.ndarray) -> np.ndarray:
        """Sort rows, turn them to columns of distances, find MAD; give the medians."""
        r, k = self._r, self.k
        self._sort(S)
        for start in range(0, len(S), _TURNED):
            rows = slice(start, start + _TURNED)
            np.copyto(r[:, rows], S[rows].T)
        m = r[k].copy()
        self._w = S.reshape(r.shape)  # the rows are not needed any more, so their memory is
        self._tr, self._tw, middle = map(torch.from_numpy, (r, self._w, m))
        torch.sub(middle, self._tr[:k], out=self._tr[:k])
        self._tr[k:] -= middle
        reach = self._w[: self.C - k]
        np.maximum(r[: self.C - k], r[k:], out=reach)
        np.minimum.reduce(reach, axis=0, out=self._mad)
        self._mad += self.dtype.type(self.options["eps"])
        return m

    def _gate(self) -> torch.Tensor:
        """Count outliers and give ``kappa / MAD``."""
        np.multiply(self._mad, self.dtype.type(self.options["lam"]), out=self._a)
        np.greater(self._r, self._a, out=self._far)
        np.add.reduce(self._far.view(np.uint8), axis=0, dtype=self._count.dtype, out=self._count)
        self._slopes.take(self._count, out=self._b, mode="clip")
        np.divide(self._b, self._mad, out=self._a)
        return torch.from_numpy(self._a)

    def _average(self, m: np.ndarray, out: np.ndarray) -> None:
        """Write ``m + sum(w d) / sum(w)``, d below zero in the lower lines."""
        r, w, k = self._r, self._w, self.k
        np.add.reduce(w, axis=0, out=self._b)
        np.einsum("ij,ij->j", r[k:], w[k:], out=self._a)
        np.einsum("ij,ij->j", r[:k], w[:k], out=self._mad)
        self._a -= self._mad
        np.divide(self._a, self._b, out=self._a)
        np.add(m, self._a, out=out)

    def _trim(self, S: np.ndarray, out: np.ndarray) -> None:
        m, k = self._turn(S), self.k
        slope = self._gate()
        torch.mul(self._tr[k:], slope, out=self._tw[k:])
        torch.mul(self._tr[:k], slope.neg_(), out=self._tw[:k])
        self._tw.sigmoid_()
        self._average(m, out)

    def _sym(self, S: np.ndarray, out: np.ndarray) -> None:
        m = self._turn(S)
        slope = self._gate().mul_(-self.options["slope"])
        torch.mul(self._tr, slope, out=self._tw).sigmoid_()
        self._average(m, out)

    def _gated(self, S: np.ndarray, out: np.ndarray) -> None:
        m = self._turn(S)
        slope = self._gate().neg_()
        kappa = torch.from_numpy(self._b).mul_(self.options["lam"])  # left there by _gate
        torch.addcmul(kappa, self._tr, slope, out=self._tw).sigmoid_()
        self._average(m, out)

    def _tukey(self, S: np.ndarray, out: np.ndarray) -> None:
        m = self._turn(S)
        self._mad *= self.dtype.type(self.options["cutoff"])
        u = torch.div(self._tr, torch.from_numpy(self._mad), out=self._tw)
        u.square_().neg_().add_(1).clamp_(min=0).square_()
        self._average(m, out)

    # -- rules without a scale ----------------------------------------------------
    def _mean(self, S: np.ndarray, out: np.ndarray) -> None:
        np.matmul(S, np.full(self.C, 1 / self.C, dtype=self.dtype), out=out)

    def _max(self, S: np.ndarray, out: np.ndarray) -> None:
        np.maximum.reduce(S, axis=1, out=out)

    def _median(self, S: np.ndarray, out: np.ndarray) -> None:
        self._sort(S)
        out[:] = S[:, self.k]

    def _trimmed_mean(self, S: np.ndarray, out: np.ndarray) -> None:
        self._sort(S)
        np.matmul(S, self._kept, out=out)

    def _lse(self, S: np.ndarray, out: np.ndarray) -> None:
        T = self.dtype.type(self.options["temperature"])
        np.maximum.reduce(S, axis=1, out=out)
        S -= out[:, None]
        if T != 1:
            S /= T
        rows = torch.from_numpy(S).exp_().sum(dim=1).div_(self.C).log_()
        out += T * rows.numpy()
