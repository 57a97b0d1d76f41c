"""What a run is told: batches and their loss, looks and why they end it."""

from __future__ import annotations

__all__ = ["Batch", "Look", "Loss", "Stop", "loss_and_numbers"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Batch = Any
Loss = Callable[
    [Batch],
    "torch.Tensor | tuple[torch.Tensor, Mapping[str, float]] | Mapping[str, torch.Tensor]",
]
"""From a batch to the loss; or to the loss and further numbers for the history; or to named
terms whose sum is the loss."""


@dataclass(frozen=True)
class Stop:
    """Why a look ends the training.

    Attributes
    ----------
    reason : str
        What :attr:`Engine.stopped` will say.
    rewind : bool
        Whether the weights go back to the last look that passed.

    Examples
    --------
    >>> from conceptlab.training import descend
    >>> x = torch.zeros(1, requires_grad=True)
    >>> look = lambda row: Stop("far")
    >>> run = descend([x], lambda step: -x.sum(), steps=9, look=look, look_every=3)
    >>> run.stopped, run.steps
    ('far', 3)
    """

    reason: str
    rewind: bool = False


Look = Callable[[dict[str, Any]], Stop | str | bool | None]
"""From the last row of the history, to add to it, to why the stage ends, if it does."""


def loss_and_numbers(answer: Any) -> tuple[torch.Tensor, Mapping[str, float]]:
    """Divide what a :data:`Loss` gives into the loss and its numbers for the history."""
    if isinstance(answer, tuple):
        return answer
    if isinstance(answer, Mapping):
        total = torch.stack(list(answer.values())).sum()
        return total, {name: float(term.detach()) for name, term in answer.items()}
    return answer, {}
