"""Answers on the class made uncertain, as hot as the class is still known."""

from __future__ import annotations

__all__ = ["LoTUS"]

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job
from unlearning.data import concat


class LoTUS(Unlearner):
    """Teach the original's own answers, on the class with Gumbel noise at a temperature.

    Before each epoch the temperature is ``exp(alpha (A_f - A_u))``: A_f is the model's
    accuracy on the samples to forget, A_u what it should be on samples never seen, which is 0
    where whole classes are withdrawn. Samples to forget are taught a fresh draw of
    ``softmax((z + g) / temperature)`` with z the original's logits and g Gumbel noise,
    retained ones the class that the original names.

    Parameters
    ----------
    epochs : int
        Passes over the samples to forget and a share of the retained ones.
    lr : float
        Learning rate of AdamW.
    alpha : float
        Sharpness of the temperature.
    retain_share : float
        Share of the retained samples, drawn once, that is trained on.
    batch_size : int
        Samples in a batch.
    weight_decay : float
        Of AdamW.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics.
    augment : callable, optional
        From (images, generator) to images; the original answers the same images.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the share, the noise and the order of batches.

    Notes
    -----
    Made for single samples, where the answers should become as uncertain as on new ones. The
    targets keep the withdrawn class's output, and while the class is forgotten the temperature
    falls back to 1, so a class can come back; the run then says that it is not forgotten.
    Formulas are those of the published code; its rates depend on the network, and the
    default here is larger, as for small networks.

    References
    ----------
    Spartalis, Semertzidis, Gavves and Daras, "LoTUS: Large-Scale Machine Unlearning with a
    Taste of Uncertainty", CVPR 2025 (arXiv 2503.18314).

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = LoTUS(epochs=2, retain_share=1.0, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> len(result.details["temperatures"])
    2
    """

    _rules = Rules(alpha=Real(above=0), retain_share=Real(above=0, most=1))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 1e-3,
        *,
        alpha: float = 2.0,
        retain_share: float = 0.3,
        batch_size: int = 64,
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
        self.alpha = alpha
        self.retain_share = retain_share
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        n = max(1, round(float(self.retain_share) * len(job.retain)))
        some = torch.randperm(len(job.retain), generator=job.generator)[:n].sort().values
        kept, gone = job.retain.select(some), job.forget
        # A label of 1 marks samples to forget.
        both = concat(kept.with_labels(torch.zeros(n, dtype=torch.int64)),
                      gone.with_labels(torch.ones(len(gone), dtype=torch.int64)))  # fmt: skip
        job.memory.setdefault("temperatures", [])

        def batches(epoch: int) -> Iterator[Any]:
            found: list[float] = job.memory["temperatures"]
            if len(found) <= epoch:  # not where an interrupted epoch goes on
                found.append(math.exp(float(self.alpha) * job.accuracy(job.model, gone)))
            yield from job.batches(both)

        def loss(batch: Any) -> torch.Tensor:
            inputs, marked = batch
            with torch.no_grad():
                z = job.logits(job.original, inputs).float()
                noise = -torch.empty(z.shape).exponential_(generator=job.generator).log()
                hot = ((z + noise.to(z)) / job.memory["temperatures"][-1]).softmax(dim=1)
                named = functional.one_hot(z.argmax(dim=1), z.shape[1]).to(z)
                targets = torch.where(marked[:, None] == 1, hot, named)
            return functional.cross_entropy(job.logits(job.model, inputs).float(), targets)

        job.train(
            batches,
            loss,
            torch.optim.AdamW(
                job.trainable(), lr=float(self.lr), weight_decay=float(self.weight_decay)
            ),
            epochs=self.epochs,
            per_epoch=job.count(both),
            description="logits made uncertain",
        )
        return {"temperatures": list(job.memory["temperatures"])}
