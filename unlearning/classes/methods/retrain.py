"""The reference: a new model that never sees the class."""

from __future__ import annotations

__all__ = ["Retrain", "redraw_parameters"]

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Rules
from conceptlab.seeds import RandomState
from conceptlab.training.schedules import cosine
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job


class Retrain(Unlearner):
    """Train a new model on the retained data.

    The only exact method for one model, and the reference of the others. Run
    it with two seeds: the difference of the two is the floor below which no
    method can be told from retraining.

    Parameters
    ----------
    build : callable, optional
        Makes a new model with new weights, without arguments. By default a
        copy of the given model with **every** layer's parameters drawn anew;
        an error where a layer cannot be (a reference with old weights in it
        would know the class).
    epochs : int
        Passes over the retained data. Give the recipe of the original
        training; a better or worse recipe makes the comparison worthless.
    lr : float
        Learning rate at the start.
    schedule : {"cosine", "constant"}
        Down to 0 by half a cosine over all steps, or kept.
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
        For the weights and the order of batches.

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = Retrain(lambda: nn.Linear(6, 3), epochs=1, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> result.certificate["method"]
    'Retrain'
    """

    _rules = Rules(schedule=OneOf("cosine", "constant"))

    def __init__(
        self,
        build: Callable[[], nn.Module] | None = None,
        epochs: int = 30,
        lr: float = 0.05,
        *,
        schedule: str = "cosine",
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
        self.build = build
        self.epochs = epochs
        self.lr = lr
        self.schedule = schedule
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.build is not None and not callable(self.build):
            raise InputError(
                f"build must be a callable that makes a model, got {type(self.build).__name__}.",
                code="CL-INPUT-TYPE",
            )

    def _unlearn(self, job: Job) -> None:
        torch.manual_seed(job.seed)
        if self.build is None:
            redraw_parameters(job.model)
        else:
            fresh = self.build()
            if not isinstance(fresh, nn.Module):
                raise InputError(
                    f"build() must return a torch.nn.Module, got {type(fresh).__name__}.",
                    code="CL-INPUT-TYPE",
                )
            if fresh is job.source:
                raise InputError(
                    "build() returned the given model itself; it must make a new one.",
                    code="CL-INPUT-TYPE",
                )
            job.model = fresh.to(job.device)
        found = job.predict(job.model, job.retain.select([0, 1])).shape[1]
        if found != job.n_classes:
            raise InputError(
                f"build() made a model with {found} outputs, and the given one has "
                f"{job.n_classes}. Keep the outputs of all classes, so that the two can be "
                "compared.",
                code="CL-INPUT-SHAPE",
            )

        def loss(batch: Any) -> torch.Tensor:
            inputs, y = batch
            return functional.cross_entropy(job.logits(job.model, inputs), y)

        job.train(
            lambda _epoch: job.batches(job.retain),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(job.retain),
            description="retrain",
            schedule=cosine if self.schedule == "cosine" else None,
        )


def redraw_parameters(model: nn.Module) -> None:
    """Draw every parameter of a model anew, by its layers' own rules.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; draws from torch's global generator.

    Raises
    ------
    InputError
        ``CL-INPUT-TYPE``: a module holds parameters of its own and has no
        ``reset_parameters``.
    """
    done: set[int] = set()
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(
            module, "_reset_parameters", None
        )
        if callable(reset):
            reset()
            done.update(id(p) for p in module.parameters(recurse=False))
    left = [name for name, p in model.named_parameters() if id(p) not in done]
    if left:
        raise InputError(
            f"{len(left)} parameters cannot be drawn anew ({', '.join(left[:3])}): their modules "
            "have no reset_parameters(). Give Retrain(build=...), a function that makes a new "
            "model.",
            code="CL-INPUT-TYPE",
        )
