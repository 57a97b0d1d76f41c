"""Bad teacher: be like an ignorant network on the class, and like oneself on the rest."""

from __future__ import annotations

__all__ = ["BadTeacher"]

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from conceptlab.errors import InputError
from conceptlab.models.session import model_copy
from conceptlab.parameters import Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.distillation import kl_to_teacher, random_teacher
from unlearning.classes.job import Job
from unlearning.data import Samples, concat
from unlearning.heads import run_model


class BadTeacher(Unlearner):
    """Learn from an ignorant teacher on the class and from the original on the rest.

    The loss is ``mean KL(teacher ‖ student)`` over batches that hold the forget
    set, where the teacher is a network with random weights, and a part of the
    retain set, where it is the original.

    Parameters
    ----------
    epochs : int
        Passes over that data.
    lr : float
        Of Adam.
    temperature : float
        Of both distributions.
    retain_share : float
        Share of the retain set that is used, in (0, 1]; drawn once.
    teacher : torch.nn.Module, optional
        The ignorant network; by default one of the model's build with weights
        drawn anew at every depth.
    batch_size : int
        256 in the released code.
    weight_decay : float
        Of Adam.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics; the
        released code updates them.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the teacher, the part of the retain set and the order of batches.

    Notes
    -----
    The divergence is averaged over samples; the released code averages over
    classes too. Teachers are asked once for each sample where there is no
    augmentation.

    References
    ----------
    Chundawat, Tarun, Mandal and Kankanhalli, Can Bad Teaching Induce
    Forgetting?, AAAI 2023: the objective with a competent and an incompetent
    teacher.

    Examples
    --------
    >>> from unlearning import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3, bias=False)
    >>> _ = nn.init.eye_(net.weight)
    >>> forget, retain = split_classes((X, y), 0)
    >>> teacher = nn.Linear(3, 3, bias=False)
    >>> _ = nn.init.zeros_(teacher.weight)
    >>> method = BadTeacher(20, 0.1, teacher=teacher, batch_size=16, random_state=0)
    >>> result = method.unlearn(net, forget=forget, retain=retain)
    >>> before, after = (m(X[y == 0]).softmax(1)[:, 0].mean() for m in (net, result.model))
    >>> bool(after < before)
    True
    """

    _rules = Rules(temperature=Real(above=0), retain_share=Real(above=0, most=1))

    def __init__(
        self,
        epochs: int = 1,
        lr: float = 1e-4,
        *,
        temperature: float = 1.0,
        retain_share: float = 0.3,
        teacher: nn.Module | None = None,
        batch_size: int = 256,
        weight_decay: float = 0.0,
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
        self.retain_share = retain_share
        self.teacher = teacher
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.teacher is not None and not isinstance(self.teacher, nn.Module):
            raise InputError(
                f"teacher must be a torch.nn.Module or None, got {type(self.teacher).__name__}.",
                code="CL-INPUT-TYPE",
            )

    def _unlearn(self, job: Job) -> dict[str, Any]:
        ignorant = self._teacher(job)
        n = max(1, round(float(self.retain_share) * len(job.retain)))
        part = job.retain.select(torch.randperm(len(job.retain), generator=job.generator)[:n])
        samples, n_forget = concat(job.forget, part), len(job.forget)
        table = None
        if self.augment is None:
            table = torch.cat(
                [job.predict(ignorant, job.forget), job.predict(job.original, part)]
            ).to(job.device)
        # Labels are not used: their place holds the sample's number.
        numbered: Samples = samples.with_labels(torch.arange(len(samples)))

        def loss(batch: Any) -> torch.Tensor:
            inputs, rows = batch
            if table is not None:
                target = table[rows]
            else:
                with torch.no_grad():
                    none, own = (run_model(m, inputs) for m in (ignorant, job.original))
                target = torch.where((rows < n_forget)[:, None], none, own)
            return kl_to_teacher(run_model(job.model, inputs), target, float(self.temperature))

        job.train(
            lambda _epoch: job.batches(numbered),
            loss,
            job.adam(),
            epochs=self.epochs,
            per_epoch=job.count(numbered),
            description="two teachers",
        )
        return {"retained_samples_used": n}

    def _teacher(self, job: Job) -> nn.Module:
        if self.teacher is None:
            return random_teacher(job.original, job.seed)
        return model_copy(self.teacher).to(job.device).eval().requires_grad_(False)
