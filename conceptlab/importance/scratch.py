"""Memory that is used again, for large tensors that are made and dropped many times."""

from __future__ import annotations

__all__ = ["Scratch"]

import math

import torch


class Scratch:
    """Room for one tensor after the other.

    Tensors of some megabytes go back to the system when they are dropped, and each new one
    pays for its pages again: with masked activations a third of the time. On other devices
    torch keeps such memory itself.
    """

    def __init__(self) -> None:
        self._held = torch.empty(0)

    def take(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor | None:
        """Give room for a tensor; what was taken before is written over.

        Parameters
        ----------
        shape : tuple of int
            Of the tensor.
        like : torch.Tensor
            Tells dtype and device.

        Returns
        -------
        torch.Tensor of that shape, or None
            None where a new tensor is better: off the CPU, and where gradients are recorded.
        """
        if like.device.type != "cpu" or torch.is_grad_enabled():
            return None
        size = math.prod(shape)
        if len(self._held) < size or self._held.dtype != like.dtype:
            self._held = torch.empty(size, dtype=like.dtype)
        return self._held[:size].view(shape)
