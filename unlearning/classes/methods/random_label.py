"""Wrong labels for the class, right ones for the rest."""

from __future__ import annotations

__all__ = ["RandomLabel", "random_labels"]

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job
from unlearning.data import concat, n_batches


class RandomLabel(Unlearner):
    """Train on all data, with random labels for the samples to forget.

    The labels are drawn from the retained classes only: a label that is the
    forgotten one would teach the class.

    Parameters
    ----------
    epochs : int
        Passes over all data, in mixed batches.
    lr : float
        Learning rate.
    redraw : bool
        Draw new labels in each epoch, which leads to even probabilities;
        otherwise once, which is learnt by heart.
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
        For the labels and the order of batches.

    References
    ----------
    Graves et al., "Amnesiac Machine Learning", 2020 (arXiv 2010.10981), the
    relabelling variant; settings of Fan et al., "SalUn", 2024
    (arXiv 2310.12508).

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = RandomLabel(epochs=1, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> 0 in result.details["labels"]
    False
    """

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.013,
        *,
        redraw: bool = False,
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
        self.redraw = redraw
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
        first = random_labels(job, 0)

        def batches(epoch: int) -> Iterator[Any]:
            labels = random_labels(job, epoch) if self.redraw else first
            return job.batches(concat(job.forget.with_labels(labels), job.retain))

        def loss(batch: Any) -> torch.Tensor:
            inputs, y = batch
            return functional.cross_entropy(job.logits(job.model, inputs), y)

        job.train(
            batches,
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=n_batches(len(job.forget) + len(job.retain), self.batch_size),
            description="relabel",
        )
        return {"labels": [] if self.redraw else first.tolist()}


def random_labels(job: Job, epoch: int = 0) -> torch.Tensor:
    """Draw a retained class for each sample to forget.

    Parameters
    ----------
    job : Job
        The run.
    epoch : int
        Each epoch has labels of its own, also after an interruption.

    Returns
    -------
    torch.Tensor of shape (n_forget,), int64
        Never a forgotten class, nor one that `retain` does not hold.
    """
    seed = np.random.SeedSequence([job.seed, 7919, epoch]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(seed))
    kept = torch.tensor(job.retained)
    return kept[torch.randint(len(kept), (len(job.forget),), generator=generator)]
