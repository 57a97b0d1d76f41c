"""Small descents: a few tensors, a loss, some steps; no files."""

from __future__ import annotations

__all__ = ["descend"]

from collections.abc import Callable, Iterable
from typing import Any

import torch

from conceptlab.progress import Progress
from conceptlab.training.loop import Engine
from conceptlab.training.parts import Tensors
from conceptlab.training.schedules import Schedule
from conceptlab.training.terms import Look


def descend(
    parameters: Iterable[torch.Tensor],
    loss: Callable[[int], Any],
    *,
    steps: int,
    lr: float = 1e-3,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    average: float = 0.0,
    look: Look | None = None,
    look_every: int | None = None,
    description: str = "descend",
    progress: Progress = False,
) -> Engine:
    """Make a loss small over a few tensors.

    Parameters
    ----------
    parameters : iterable of Tensor
        Changed in place; leaves that require gradients.
    loss : callable
        From the step's number to what :data:`conceptlab.training.terms.Loss` may give.
    steps : int
        At most.
    lr : float
        Of Adam, where no optimiser is given.
    optimizer : torch.optim.Optimizer, optional
        Over `parameters`.
    schedule, clip, average, look, look_every
        As in :meth:`conceptlab.training.loop.Engine.train`; the row that a look
        gets is that of the last step.
    description : str
        For the progress bar.
    progress : bool, callable or None
        See ``conceptlab.progress``; silent by default.

    Returns
    -------
    Engine
        After the run: ``history`` (a row for each step), ``stopped``, ``steps`` and
        ``warnings``. After a NaN the tensors are those of the last good state.

    Examples
    --------
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> run = descend([x], lambda step: (x - 1).square().sum(), steps=200, lr=0.1)
    >>> run.stopped, bool((x - 1).abs() < 1e-2)
    ('done', True)
    """
    tensors = list(parameters)
    engine = Engine({"parameters": Tensors(tensors)}, progress=progress)
    if steps > 0:
        engine.train(
            lambda _epoch: range(steps),
            loss,
            torch.optim.Adam(tensors, lr=lr) if optimizer is None else optimizer,
            steps=steps,
            description=description,
            schedule=schedule,
            clip=clip,
            average=average,
            look=look,
            look_every=look_every,
            row_every=1,
        )
    return engine
