"""Gradient ascent on the class, alone or with descent on what is kept."""

from __future__ import annotations

__all__ = ["GradientAscent", "NegGradPlus"]

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job


class GradientAscent(Unlearner):
    """Raise the loss of the samples to forget.

    The retained data are not used, and nothing bounds the loss: the result
    hangs on the learning rate and the number of steps. Spontaneous recovery is
    common: a little training on retained data brings the class back.

    Parameters
    ----------
    epochs : int
        Passes over the data to forget.
    lr : float
        Learning rate; searched between 1e-5 and 0.1 in the literature.
    until : float, optional
        Stop after the first epoch with this accuracy on the data to forget,
        or less.
    batch_size : int
        Samples in a batch.
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the order of batches.

    References
    ----------
    Thudi et al., "Unrolling SGD: Understanding Factors Influencing Machine
    Unlearning", 2022 (arXiv 2109.13398); class-wise settings of Fan et al.,
    "SalUn", 2024 (arXiv 2310.12508).

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = GradientAscent(epochs=2, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> len(result.history)
    2
    """

    _rules = Rules(until=Real(least=0, most=1) | None)

    def __init__(
        self,
        epochs: int = 5,
        lr: float = 1e-4,
        *,
        until: float | None = None,
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        norm: str = "frozen",
        augment: Callable[..., Any] | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.until = until
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> None:
        def loss(batch: Any) -> torch.Tensor:
            inputs, y = batch
            return -functional.cross_entropy(job.logits(job.model, inputs), y)

        def reached(_row: dict[str, Any]) -> str | None:
            if self.until is None or job.accuracy(job.model, job.forget) > self.until:
                return None
            return f"forget accuracy <= {self.until:g}"

        job.train(
            lambda _epoch: job.batches(job.forget),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(job.forget),
            description="ascend",
            look=reached,
        )


class NegGradPlus(Unlearner):
    """Lower the loss of what is kept while raising that of what is forgotten.

    Each step minimises ``(1 - weight) CE(retain) - weight CE(forget)`` on one
    batch of either; an epoch is one pass over the retained data.

    Parameters
    ----------
    epochs : int
        Passes over the retained data.
    lr : float
        Learning rate.
    weight : float
        Share of the ascent, in (0, 1).
    batch_size : int
        Samples in a batch.
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the order of batches.

    References
    ----------
    Kurmanji et al., "Towards Unbounded Machine Unlearning", 2023
    (arXiv 2302.09880), section 4, baseline NegGrad+.

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = NegGradPlus(epochs=1, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> sorted(result.history[0])[:3]
    ['epoch', 'forget_loss', 'loss']
    """

    _rules = Rules(weight=Real(above=0, most=1))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.01,
        *,
        weight: float = 0.05,
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        norm: str = "frozen",
        augment: Callable[..., Any] | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.weight = weight
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> None:
        def batches(_epoch: int) -> Iterator[Any]:
            return zip(job.batches(job.retain), job.cycle(job.forget), strict=False)

        def loss(batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
            (kept, y_kept), (gone, y_gone) = batch
            retain = functional.cross_entropy(job.logits(job.model, kept), y_kept)
            forget = functional.cross_entropy(job.logits(job.model, gone), y_gone)
            value = (1 - self.weight) * retain - self.weight * forget
            return value, {
                "retain_loss": float(retain.detach()),
                "forget_loss": float(forget.detach()),
            }

        job.train(
            batches,
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(job.retain),
            description="descend and ascend",
        )
