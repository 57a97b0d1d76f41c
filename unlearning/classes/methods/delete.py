"""The original's answers without the class, taught on the class's samples alone."""

from __future__ import annotations

__all__ = ["DELETE"]

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.distillation import soft_targets
from unlearning.classes.job import Job


class DELETE(Unlearner):
    """Distil the original with the class masked, on the samples to forget alone.

    Each step minimises KL(t ‖ f(x)) over samples of the class, where t is the
    softmax of the original's logits with those of forgotten classes at minus
    infinity. The class's own probability is driven to 0 (the paper's forgetting
    term) while the proportions of all others stay as they were (its retention
    term). No retained sample is trained on.

    Parameters
    ----------
    epochs : int
        Passes over the samples to forget.
    lr : float
        Learning rate.
    temperature : float
        Of the targets; 1 in the paper.
    batch_size : int
        Samples in a batch.
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics. With
        "update" they become those of the forgotten class alone.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training; the
        targets are those of the plain images.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the order of batches.

    Notes
    -----
    The targets are those of :class:`SoftRelabel`, which trains on retained data
    too. `retain` is asked for by the common interface: its labels say which
    classes stay, and its samples tell at the end whether they are kept.

    References
    ----------
    Zhou et al., "Decoupled Distillation to Erase: A General Unlearning Method
    for Any Class-centric Tasks", CVPR 2025 (arXiv 2503.23751).

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = DELETE(epochs=40, lr=1.0, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> bool(result.model(X[:1]).softmax(1)[0, 0] < 0.1)
    True
    """

    _rules = Rules(temperature=Real(above=0))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.01,
        *,
        temperature: float = 1.0,
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
        self.temperature = temperature
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        targets = soft_targets(job, job.forget, self.temperature).to(job.device)
        # The place of each sample stands in for its label, to find its target in a batch.
        numbered = job.forget.with_labels(torch.arange(len(job.forget)))

        def loss(batch: Any) -> torch.Tensor:
            inputs, index = batch
            said = job.logits(job.model, inputs).log_softmax(dim=1)
            return functional.kl_div(said, targets[index].to(said), reduction="batchmean")

        job.train(
            lambda _epoch: job.batches(numbered),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(numbered),
            description="distil without the class",
        )
        return {"mean_target": [float(v) for v in targets.mean(dim=0)]}
