"""Gradient descent on a copy of a model, as an attacker would do it."""

from __future__ import annotations

__all__ = ["mixed_batches", "train_copy"]

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from unlearning.audit.options import Training
from unlearning.audit.reading import borrowed_copy, device_of, moved
from unlearning.data import Samples, join_inputs
from unlearning.heads import run_model


def mixed_batches(
    forget: Samples, retain: Samples, how: Training, generator: torch.Generator
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Give batches of forget and retained samples without end."""
    first = max(1, round(how.batch_size * how.forget_share))
    streams = (
        _endless(forget, first, generator),
        _endless(retain, max(1, how.batch_size - first), generator),
    )
    for (x, y), (other, labels) in zip(*streams, strict=False):
        yield join_inputs(x, other), torch.cat([y, labels])


def _endless(
    samples: Samples, size: int, generator: torch.Generator
) -> Iterator[tuple[Any, torch.Tensor]]:
    while True:
        yield from samples.batches(
            min(size, len(samples)), generator, drop_last=len(samples) >= size
        )


def train_copy(
    model: nn.Module,
    batches: Iterator[tuple[Any, torch.Tensor]],
    how: Training,
    after_step: Callable[[nn.Module, int], bool],
    *,
    copied: Callable[[nn.Module], nn.Module] = borrowed_copy,
) -> tuple[nn.Module, bool]:
    """Train a copy of a model until a caller has seen enough.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    batches : iterator of (inputs, labels)
        One for each step.
    how : Training
        Learning rate and momentum.
    after_step : callable
        Gets the copy and the number of steps done; True ends it.
    copied : callable
        Makes the copy, with what is to be trained open to it.

    Returns
    -------
    model : torch.nn.Module
        The trained copy.
    healthy : bool
        False when the loss was no longer finite.
    """
    twin = copied(model)
    device = device_of(twin)
    weights = [w for w in twin.parameters() if w.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=how.lr, momentum=how.momentum)
    for step, (inputs, labels) in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = cross_entropy(run_model(twin, moved(inputs, device)), labels.to(device))
            if not torch.isfinite(loss):
                return twin, False
            loss.backward()
        if how.clip is not None:
            nn.utils.clip_grad_norm_(weights, how.clip)
        optimizer.step()
        if after_step(twin, step):
            break
    return twin, True
