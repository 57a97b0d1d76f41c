"""The running mean of weights over the steps of a run."""

from __future__ import annotations

__all__ = ["Average"]

import contextlib
from collections.abc import Iterator, Sequence

import torch

from conceptlab.training.parts import Tensors


class Average(Tensors):
    """Exponential mean of parameters, which starts slowly: decay ``min(d, (t+1)/(t+10))``.

    The mean of the weights along a run answers more steadily than its last
    weights do (Polyak & Juditsky, 1992).

    Parameters
    ----------
    parameters : sequence of Tensor
        Followed; changed by :meth:`swapped` for a while and by :meth:`apply`.
    decay : float
        Within [0, 1).

    Examples
    --------
    >>> weight = torch.zeros(1)
    >>> mean = Average([weight], 0.5)
    >>> for step in range(3):
    ...     _ = weight.add_(1.0)
    ...     mean.update(step)
    >>> mean.apply()
    >>> weight.round(decimals=2)
    tensor([2.7000])
    """

    def __init__(self, parameters: Sequence[torch.Tensor], decay: float) -> None:
        super().__init__(p.detach().clone() for p in parameters)
        self.parameters, self.decay = list(parameters), decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after step number `step` in."""
        keep = min(self.decay, (step + 1) / (step + 10))
        for mean, parameter in zip(self.tensors, self.parameters, strict=True):
            mean.lerp_(parameter, 1 - keep)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in the place of the weights."""
        for mean, parameter in zip(self.tensors, self.parameters, strict=True):
            parameter.copy_(mean)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the mean in the place of the weights, and give them back."""
        last = Tensors(p.detach().clone() for p in self.parameters)
        self.apply()
        try:
            yield
        finally:
            Tensors(self.parameters).load_state_dict(last.state_dict())
