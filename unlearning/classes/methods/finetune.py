"""Fine-tuning on what is kept: the model drifts away from the class."""

from __future__ import annotations

__all__ = ["FineTune"]

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job


class FineTune(Unlearner):
    """Train on with the retained data only.

    Parameters
    ----------
    epochs : int
        Passes over the retained data.
    lr : float
        Learning rate. Forgetting is by drift alone: below about 0.05 most of
        the class stays.
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
    Warnecke et al., "Machine Unlearning of Features and Labels", 2021
    (arXiv 2108.11577), as a baseline in Jia et al., "Model Sparsity Can
    Simplify Machine Unlearning", 2023 (arXiv 2304.04934), appendix C.

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = FineTune(epochs=1, lr=0.1, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> result.stopped
    'done'
    """

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.05,
        *,
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        norm: str = "update",
        augment: Callable[..., Any] | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
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
            return functional.cross_entropy(job.logits(job.model, inputs), y)

        job.train(
            lambda _epoch: job.batches(job.retain),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(job.retain),
            description="fine-tune",
        )
