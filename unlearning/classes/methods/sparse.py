"""l1-sparse: fine-tune on what is kept under a penalty that fades."""

from __future__ import annotations

__all__ = ["L1Sparse"]

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job
from unlearning.heads import run_model


class L1Sparse(Unlearner):
    """Fine-tune on the retained data with an l1 penalty that fades out.

    Parameters
    ----------
    epochs : int
        Passes over the retained data.
    lr : float
        Of SGD; 0.01 to 0.1 was searched.
    alpha : float
        Weight of ``|θ|₁`` in the first epoch, over all weights that learn; it
        falls linearly to 0 after the last. 1e-5 to 5e-4 was searched.
    batch_size : int
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics; published
        with "update".
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
    Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu, Model Sparsity Can Simplify
    Machine Unlearning, NeurIPS 2023: l1-sparse unlearning, with the decreasing
    schedule of the penalty.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3)
    >>> forget, retain = split_classes((X, y), 0)
    >>> weak, strong = (
    ...     L1Sparse(alpha=alpha, random_state=0).unlearn(net, forget=forget, retain=retain).model
    ...     for alpha in (0.0, 0.1)
    ... )
    >>> bool(strong.weight.abs().sum() < weak.weight.abs().sum())
    True
    """

    _rules = Rules(alpha=Real(least=0))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.01,
        *,
        alpha: float = 1e-4,
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
        self.alpha = alpha
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
        weights = job.trainable()

        def loss(batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
            inputs, y = batch
            alpha = float(self.alpha) * (1 - job.epoch / self.epochs)
            entropy = functional.cross_entropy(run_model(job.model, inputs), y)
            size = torch.stack([p.abs().sum() for p in weights]).sum()
            return entropy + alpha * size, {"l1": float(size.detach()), "alpha": alpha}

        job.train(
            lambda _epoch: job.batches(job.retain),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(job.retain),
            description="fine-tune, l1",
        )
        with torch.no_grad():
            small = sum(int((p.abs() < 1e-3).sum()) for p in weights)
        return {"share_below_0.001": small / sum(p.numel() for p in weights)}
