"""Each sample's own second thoughts as its label."""

from __future__ import annotations

__all__ = ["SoftRelabel"]

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import OneOf, Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.distillation import soft_targets
from unlearning.classes.job import Job
from unlearning.data import concat


class SoftRelabel(Unlearner):
    """Teach what the model itself would say if the class did not exist.

    The target of a sample to forget is ``t_j = f_j(x) / (1 - f_c(x))`` for the
    retained classes j, with f the probabilities of the original model. It is
    close to what a retrained model answers, without the over-confidence of one
    hard label for all.

    Parameters
    ----------
    epochs : int
        Passes over all data, in mixed batches.
    lr : float
        Learning rate.
    retain_targets : {"labels", "original"}
        What is taught on retained data: the labels, or what the original
        model says without the forgotten classes. The second changes the model
        less where the labels are fitted to 100 % already.
    temperature : float
        Of the targets; above 1 they are softer.
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

    Notes
    -----
    The targets are the softmax of the original logits with the forgotten
    classes left out, which is the same formula without the division by a
    number near 0. No paper has this baseline under this name; :class:`DELETE`
    teaches the same targets without retained data, TRW (2026) tilts similar
    ones by the likeness of classes.

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = SoftRelabel(epochs=1, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> result.details["mean_target"][0]
    0.0
    """

    _rules = Rules(retain_targets=OneOf("labels", "original"), temperature=Real(above=0))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.01,
        *,
        retain_targets: str = "labels",
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
        self.retain_targets = retain_targets
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
        both = concat(job.forget, job.retain)
        gone = soft_targets(job, job.forget, self.temperature)
        if self.retain_targets == "original":
            kept = soft_targets(job, job.retain, self.temperature)
        else:
            kept = functional.one_hot(job.retain.y, job.n_classes).to(gone)
        targets = torch.cat([gone, kept]).to(job.device)
        # The place of each sample stands in for its label, to find its target in a batch.
        numbered = both.with_labels(torch.arange(len(both)))

        def loss(batch: Any) -> torch.Tensor:
            inputs, index = batch
            return functional.cross_entropy(job.logits(job.model, inputs), targets[index])

        job.train(
            lambda _epoch: job.batches(numbered),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(numbered),
            description="soft relabel",
        )
        return {"mean_target": [float(v) for v in gone.mean(dim=0)]}
