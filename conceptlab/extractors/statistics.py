"""Sufficient statistics of a factorisation, which can be summed over shards and workers."""

from __future__ import annotations

__all__ = ["NMFStatistics"]

from dataclasses import dataclass

import numpy as np
import torch

from conceptlab.distributed.world import World
from conceptlab.errors import InputError


@dataclass(frozen=True)
class NMFStatistics:
    """All that the update of W needs to know of rows A (n, p) and their codes U (n, k).

    Statistics of different rows under the same W add up, so that shards or workers can make
    theirs apart: ``a + b``, ``sum([...])``, and ``0.5 * a`` to forget.

    Attributes
    ----------
    UU : numpy.ndarray of shape (k, k)
        U'U, float64.
    UA : numpy.ndarray of shape (k, p)
        U'A, float64.
    energy : float
        Sum of A squared.
    n : float
        Number of rows (of effective rows, after forgetting).
    """

    UU: np.ndarray
    UA: np.ndarray
    energy: float
    n: float

    def __add__(self, other: NMFStatistics | int) -> NMFStatistics:
        if isinstance(other, int) and other == 0:  # so that sum() works
            return self
        if not isinstance(other, NMFStatistics):
            return NotImplemented
        if self.UA.shape != other.UA.shape:
            raise InputError(
                f"Statistics of {self.UA.shape[0]} concepts x {self.UA.shape[1]} features cannot "
                f"be added to those of {other.UA.shape[0]} x {other.UA.shape[1]}. Make both with "
                "the same fitted extractor.",
                code="CL-INPUT-SHAPE",
            )
        return NMFStatistics(
            self.UU + other.UU, self.UA + other.UA, self.energy + other.energy, self.n + other.n
        )

    __radd__ = __add__

    def __mul__(self, weight: float) -> NMFStatistics:
        return NMFStatistics(
            self.UU * weight, self.UA * weight, self.energy * weight, self.n * weight
        )

    __rmul__ = __mul__

    def rescaled(self, scale: np.ndarray) -> NMFStatistics:
        """Give the statistics of codes U * scale, for a W whose rows were divided by it."""
        return NMFStatistics(
            self.UU * np.outer(scale, scale), self.UA * scale[:, None], self.energy, self.n
        )

    def over(self, world: World) -> NMFStatistics:
        """Add up the statistics of all processes, which must code with the same W."""
        if world.size == 1:
            return self
        flat = np.concatenate([self.UU.ravel(), self.UA.ravel(), [self.energy, self.n]])
        total = world.sum(torch.from_numpy(flat)).numpy()
        k, p = self.UA.shape
        return NMFStatistics(
            total[: k * k].reshape(k, k), total[k * k : -2].reshape(k, p), *map(float, total[-2:])
        )

    def squared_error(self, W: np.ndarray) -> float:
        """Compute the sum of (A - U W) squared for these rows, codes and `W` (k, p)."""
        W = np.asarray(W, dtype=np.float64)
        cross, square = float((self.UA * W).sum()), float((self.UU * (W @ W.T)).sum())
        return max(self.energy - 2 * cross + square, 0.0)
