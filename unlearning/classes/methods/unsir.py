"""UNSIR: impair with noise that the class cannot stand, then repair."""

from __future__ import annotations

__all__ = ["UNSIR"]

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules, Whole
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner, only_images
from unlearning.classes.job import Job
from unlearning.heads import run_model


class UNSIR(Unlearner):
    """Train on noise that maximises the loss of the class, then on what is kept.

    The noise is learnt against the original. *Impair*: one or more epochs on the
    noise, labelled as the class, beside a part of the retain set. *Repair*: as
    many on the retain set.

    Parameters
    ----------
    epochs : int
        Of impairing, and of repairing.
    lr : float
        Of Adam while impairing; published.
    repair_lr : float
        Of Adam while repairing; published.
    n_noise : int
        Noise images for each forgotten class.
    noise_steps : int
        Steps of Adam on the noise.
    noise_lr : float
        Of that Adam.
    noise_l2 : float
        Weight of the mean squared length of the noise.
    repeats : int
        How often each noise image is shown in an epoch.
    n_per_class : int, optional
        Retained samples of each class while impairing; None takes all.
    batch_size : int
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics. Published
        with "update": the noise moves them and the repair brings them back.
    augment : callable, optional
        From (images, generator) to images, for retained images.
    max_steps : int, optional
        Most optimiser steps, with those on the noise.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For noise, selection and the order of batches.

    Notes
    -----
    Needs inputs of floats; texts are refused. The noise carries the label of
    its class; the published notebook gives label 0 to all.

    References
    ----------
    Tarun, Chundawat, Mandal and Kankanhalli, Fast Yet Effective Machine
    Unlearning, IEEE TNNLS 2023: error-maximising noise, impair and repair.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3)
    >>> _ = nn.init.eye_(net.weight)
    >>> forget, retain = split_classes((X, y), 0)
    >>> method = UNSIR(lr=0.1, n_noise=16, repeats=4, batch_size=16, random_state=0)
    >>> result = method.unlearn(net, forget=forget, retain=retain)
    >>> result.details["noise_loss"] > 1.0
    True
    """

    _rules = Rules(
        repair_lr=Real(above=0),
        noise_lr=Real(above=0),
        noise_l2=Real(least=0),
        n_noise=Whole(1),
        noise_steps=Whole(1),
        repeats=Whole(1),
        n_per_class=Whole(1) | None,
    )

    def __init__(
        self,
        epochs: int = 1,
        lr: float = 0.02,
        *,
        repair_lr: float = 0.01,
        n_noise: int = 256,
        noise_steps: int = 40,
        noise_lr: float = 0.1,
        noise_l2: float = 0.1,
        repeats: int = 20,
        n_per_class: int | None = 1000,
        batch_size: int = 256,
        norm: str = "update",
        augment: Callable[..., Any] | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.repair_lr = repair_lr
        self.n_noise = n_noise
        self.noise_steps = noise_steps
        self.noise_lr = noise_lr
        self.noise_l2 = noise_l2
        self.repeats = repeats
        self.n_per_class = n_per_class
        self.batch_size = batch_size
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        noise, y = self._learn_noise(job)
        with torch.no_grad():
            final = functional.cross_entropy(run_model(job.original, noise), y)
        part = self._part(job)

        def impair(_epoch: int) -> Iterator[Any]:
            total = len(noise) * self.repeats + len(part)
            for rows in torch.randperm(total, generator=job.order).split(job.batch_size):
                numbers = rows[rows < total - len(part)] % len(noise)
                kept = part.select(rows[rows >= total - len(part)] - (total - len(part)))
                images = job.to_device(kept.inputs)
                if self.augment is not None and len(kept):
                    images = job.to_device(self.augment(images, job.generator))
                device_rows = numbers.to(job.device)
                yield (
                    torch.cat([noise[device_rows], images]),  # type: ignore[list-item]
                    torch.cat([y[device_rows], kept.y.to(job.device)]),
                )

        def loss(batch: Any) -> torch.Tensor:
            inputs, labels = batch
            return functional.cross_entropy(run_model(job.model, inputs), labels)

        shown = len(noise) * self.repeats + len(part)
        job.train(
            impair,
            loss,
            job.adam(),
            epochs=self.epochs,
            per_epoch=-(-shown // job.batch_size),
            description="impair",
        )
        job.train(
            lambda _epoch: job.batches(job.retain),
            loss,
            job.adam(lr=float(self.repair_lr)),
            epochs=self.epochs,
            per_epoch=job.count(job.retain),
            description="repair",
        )
        return {"noise_loss": float(final)}

    def _learn_noise(self, job: Job) -> tuple[torch.Tensor, torch.Tensor]:
        """Minimise ``-CE(f(noise), c) + noise_l2 · mean |noise|²`` over the noise alone."""
        shape = only_images(job, "UNSIR").shape[1:]
        y = torch.tensor(job.classes).repeat_interleave(self.n_noise)
        drawn = torch.randn(len(y), *shape, generator=job.generator)
        noise: torch.Tensor = job.to_device(drawn).requires_grad_(True)  # type: ignore[union-attr]
        y = y.to(job.device)

        def loss(_step: Any) -> torch.Tensor:
            logits = run_model(job.original, noise)
            size = noise.square().flatten(1).sum(dim=1).mean()
            return float(self.noise_l2) * size - functional.cross_entropy(logits, y)

        optimizer = torch.optim.Adam([noise], lr=float(self.noise_lr))
        job.train(
            lambda _epoch: range(self.noise_steps),
            loss,
            optimizer,
            per_epoch=self.noise_steps,
            description="learn noise",
        )
        return noise.detach(), y

    def _part(self, job: Job) -> Any:
        """Draw up to ``n_per_class`` retained samples of each class."""
        if self.n_per_class is None:
            return job.retain
        chosen = []
        for c in job.retain.classes:
            rows = (job.retain.y == c).nonzero()[:, 0]
            order = torch.randperm(len(rows), generator=job.generator)
            chosen.append(rows[order[: self.n_per_class]])
        return job.retain.select(torch.cat(chosen))
