"""Training a generator's weights: the engine, with Adam, a rate that ends in a line, and looks."""

from __future__ import annotations

__all__ = ["finetune", "rows_of"]

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from conceptlab.progress import Progress
from conceptlab.training import Engine, Stop, Tensors
from conceptlab.training.schedules import line

Terms = dict[str, torch.Tensor]
_COLLAPSED = 0.35  # of the spread of images before
_OF_ENGINE = {"stage", "epoch", "steps", "lr", "seconds", "loss"}


def finetune(
    parameters: Sequence[nn.Parameter],
    losses: Callable[[int], Terms],
    *,
    steps: int,
    lr: float,
    draws: torch.Generator,
    average: float = 0.0,
    check: Callable[[], dict[str, float]] | None = None,
    check_every: int = 25,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    progress: Progress = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key: dict[str, Any] | None = None,
    seed: int = 0,
    description: str = "unlearn",
) -> Engine:
    """Train parameters of a generator, which stays in evaluation mode.

    Parameters
    ----------
    parameters : sequence of Parameter
    losses : callable
        Gives named terms, already weighted, for a step's number.
    steps : int
    lr : float
        Of Adam; the last two fifths of the steps go down in a line.
    draws : torch.Generator
        All that `losses` draws from; its state is part of a checkpoint.
    average : float
        Decay of the running mean of the weights that is given back; 0 gives the last.
    check : callable, optional
        Gives figures on held-out latents; ``"spread"`` is the spread of the images as a
        share of that before, and the training is rewound where it collapses;
        ``"reached"`` ends the training.
    check_every : int
    max_steps, max_seconds : optional
        Budget.
    progress : bool, callable or None
    checkpoint : path-like, optional
        Folder from which an interrupted run, or one at its budget's end, goes on.
    key : dict
        What a checkpoint must match.
    seed : int
        Noted in a checkpoint.
    description : str

    Returns
    -------
    Engine
        After the run; :func:`rows_of` gives its history. Call ``finish()`` when the
        result is safe.
    """

    def look(row: dict[str, Any]) -> Stop | str | None:
        found = {} if check is None else check()
        reached = found.pop("reached", 0.0)
        row.update({f"held-out {name}": value for name, value in found.items()})
        if found.get("spread", 1.0) < _COLLAPSED:
            return Stop("collapse: rewound", rewind=True)
        return "reached on held-out latents" if reached else None

    engine = Engine(
        {"parameters": Tensors(parameters)},
        generators={"draws": draws},
        seed=seed,
        max_steps=max_steps,
        max_seconds=max_seconds,
        progress=progress,
        checkpoint=checkpoint,
        key=key,
    )
    engine.train(
        lambda _epoch: range(steps),
        losses,
        torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.99)),
        steps=steps,
        description=description,
        schedule=line,
        clip=10.0,
        average=average,
        look=look,
        look_every=check_every,
        row_every=1,
    )
    return engine


def rows_of(engine: Engine) -> list[dict[str, Any]]:
    """Give the history with a row for each step: its number from 0, its terms, and figures."""
    return [
        {"step": row["steps"] - 1, **{k: v for k, v in row.items() if k not in _OF_ENGINE}}
        for row in engine.history
    ]
