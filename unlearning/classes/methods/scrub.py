"""SCRUB: away from the original on the class, towards it on the rest, by turns."""

from __future__ import annotations

__all__ = ["SCRUB"]

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.distillation import kl_to_teacher
from unlearning.classes.job import Job
from unlearning.data import Samples
from unlearning.heads import run_model


class SCRUB(Unlearner):
    """Disobey the original on the class and obey it on the rest, by turns.

    Each of the first `max_epochs` epochs first goes through the forget set and
    maximises ``KL(original ‖ student)``; every epoch goes through the retain
    set and minimises ``gamma · CE + alpha · KL(original ‖ student)``.

    Parameters
    ----------
    epochs : int
        Number of epochs in all.
    lr : float
        Of the optimiser.
    max_epochs : int
        Epochs that begin with a pass of maximisation (``msteps``).
    alpha, gamma : float
        Weights of divergence and cross-entropy on the retain set.
    temperature : float
        Of both distributions; the divergence is multiplied by its square.
    decay_epochs : sequence of int
        After which epochs the rate is divided by 10.
    optimizer : {"adam", "sgd"}
        Adam was published for small problems.
    rewind : bool
        SCRUB+R: go back to the epoch whose error on the forget set is nearest
        the error on held-out samples of the forgotten classes, as the last
        model makes it. Needs ``valid`` with such samples. Meant for single
        samples that should be forgotten; for a whole class the held-out error
        is near 100 %, and it goes back only from an overshoot.
    batch_size : int
        On the retain set.
    forget_batch_size : int, optional
        On the forget set; by default `batch_size`.
    momentum : float
        Of SGD.
    weight_decay : float
        Of the optimiser.
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
        For the order of batches.

    References
    ----------
    Kurmanji, Triantafillou, Hayes and Triantafillou, Towards Unbounded Machine
    Unlearning, NeurIPS 2023: the alternating objective of SCRUB, and the rewinding of SCRUB+R.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3)
    >>> _ = nn.init.eye_(net.weight)
    >>> forget, retain = split_classes((X, y), 0)
    >>> method = SCRUB(lr=0.1, batch_size=16, random_state=0)
    >>> result = method.unlearn(net, forget=forget, retain=retain)
    >>> int((result.model(X[y == 0]).argmax(1) == 0).sum())
    0
    """

    _rules = Rules(
        optimizer=OneOf("adam", "sgd"),
        max_epochs=Whole(0),
        temperature=Real(above=0),
        alpha=Real(least=0),
        gamma=Real(least=0),
        forget_batch_size=Whole(1) | None,
    )

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 5e-4,
        *,
        max_epochs: int = 3,
        alpha: float = 0.5,
        gamma: float = 1.0,
        temperature: float = 2.0,
        decay_epochs: Sequence[int] = (5, 8, 9),
        optimizer: str = "adam",
        rewind: bool = False,
        batch_size: int = 128,
        forget_batch_size: int | None = None,
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
        self.max_epochs = max_epochs
        self.alpha = alpha
        self.gamma = gamma
        self.temperature = temperature
        self.decay_epochs = decay_epochs
        self.optimizer = optimizer
        self.rewind = rewind
        self.batch_size = batch_size
        self.forget_batch_size = forget_batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        held = self._held_out(job)
        optimizer = job.adam() if self.optimizer == "adam" else job.sgd()
        teacher = _Teacher(job, self.augment is None)
        T = float(self.temperature)
        job.memory.setdefault("epochs", [])
        decay = {int(e) for e in self.decay_epochs}

        def batches(epoch: int) -> Iterator[tuple[str, Any]]:
            if epoch < self.max_epochs:
                for batch in job.batches(teacher.numbered("forget"), self.forget_batch_size):
                    yield "forget", batch
            for batch in job.batches(teacher.numbered("retain")):
                yield "retain", batch

        def loss(step: tuple[str, Any]) -> torch.Tensor:
            part, (inputs, rows) = step
            student = run_model(job.model, inputs)
            divergence = T**2 * kl_to_teacher(student, teacher(part, inputs, rows), T)
            if part == "forget":
                return -divergence
            entropy = functional.cross_entropy(student, teacher.labels[rows])
            return float(self.gamma) * entropy + float(self.alpha) * divergence

        def end(row: dict[str, Any]) -> None:
            if row["epoch"] in decay:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.1
            if held is not None:
                error = 1.0 - job.accuracy(job.model, job.forget)
                job.memory["epochs"].append({"error": error, "state": job.snapshot()})
                row["forget_error"] = error

        job.train(
            batches,
            loss,
            optimizer,
            epochs=self.epochs,
            description="disobey, obey",
            look=end,
        )
        record: list[dict[str, Any]] = job.memory["epochs"]
        if held is None or not record:
            return {}
        reference = 1.0 - job.accuracy(job.model, held)
        best = min(range(len(record)), key=lambda i: (abs(record[i]["error"] - reference), -i))
        job.restore(record[best]["state"])
        errors = [row["error"] for row in record]
        return {"rewound_to_epoch": best + 1, "reference_error": reference, "forget_error": errors}

    def _held_out(self, job: Job) -> Samples | None:
        if not self.rewind:
            return None
        of_class = torch.zeros(0, dtype=torch.bool)
        if job.valid is not None:
            of_class = torch.isin(job.valid.y, torch.tensor(job.classes))
        if job.valid is None or not bool(of_class.any()):
            shown = "no `valid`" if job.valid is None else f"classes {job.valid.classes}"
            raise InputError(
                "SCRUB(rewind=True) compares with held-out samples of the forgotten classes "
                f"{job.classes}, and got {shown}. Give valid=(X, y) that holds them, or "
                "rewind=False.",
                code="CL-INPUT-EMPTY",
            )
        return job.valid.select(of_class)


class _Teacher:
    """The original's logits: asked once, or for each augmented batch."""

    def __init__(self, job: Job, once: bool) -> None:
        self.job = job
        self.samples = {"forget": job.forget, "retain": job.retain}
        self.labels = job.retain.y.to(job.device)
        self.tables: dict[str, torch.Tensor] = {}
        if once:
            self.tables = {
                part: job.predict(job.original, samples).to(job.device)
                for part, samples in self.samples.items()
            }

    def numbered(self, part: str) -> Samples:
        """Give the samples with their numbers in place of labels."""
        samples = self.samples[part]
        return samples.with_labels(torch.arange(len(samples)))

    def __call__(self, part: str, inputs: Any, rows: torch.Tensor) -> torch.Tensor:
        if part in self.tables:
            return self.tables[part][rows]
        with torch.no_grad():
            return run_model(self.job.original, inputs)
