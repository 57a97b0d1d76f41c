"""Boundary unlearning: give the class to its neighbours, or to an output that is cut off."""

from __future__ import annotations

__all__ = ["BoundaryExpand", "BoundaryShrink", "nearest_labels", "perturb"]

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from conceptlab.errors import unknown_name
from conceptlab.parameters import OneOf, Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner, only_images
from unlearning.classes.job import Job
from unlearning.heads import run_model

STAY = ("second", "keep")


def perturb(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    bound: float,
    clip: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Take one step away from the label: the fast gradient sign method.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    x : Tensor (n, ...)
        Inputs, floats.
    y : Tensor (n,), int64
        Labels to leave.
    bound : float
        Length of the step in each entry, in units of the inputs.
    clip : (float, float), optional
        Range of valid inputs.

    Returns
    -------
    Tensor of the shape of `x`
        ``x + bound · sign(d CE(f(x), y)/dx)``, clipped.

    Examples
    --------
    >>> net = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(net.weight)
    >>> perturb(net, torch.tensor([[0.5, 0.0]]), torch.tensor([0]), 0.25)
    tensor([[0.2500, 0.2500]])
    """
    with torch.enable_grad():
        moved = x.detach().clone().requires_grad_(True)
        loss = F.cross_entropy(run_model(model, moved), y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, moved)
    moved = x + bound * slope.sign()
    return moved if clip is None else moved.clamp(*clip)


def nearest_labels(
    logits: torch.Tensor, y: torch.Tensor, classes: list[int], stay: str = "second"
) -> torch.Tensor:
    """Read the neighbouring class off the logits of perturbed inputs.

    Parameters
    ----------
    logits : Tensor (n, C)
        Of the perturbed inputs.
    y : Tensor (n,)
        True labels.
    classes : list of int
        All forgotten classes.
    stay : {"second", "keep"}
        What to give to an input that the step did not drive out: the most
        likely class that is kept, or its label.

    Returns
    -------
    Tensor (n,), int64

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    >>> nearest_labels(logits, torch.tensor([0, 0]), [0])
    tensor([1, 2])
    >>> nearest_labels(logits, torch.tensor([0, 0]), [0], "keep")
    tensor([0, 2])
    """
    if stay == "keep":
        return logits.argmax(dim=1)
    others = logits.clone()
    others[:, classes] = -torch.inf
    return others.argmax(dim=1)


class BoundaryShrink(Unlearner):
    """Train the forget set on the labels of its nearest neighbours.

    Each forget sample takes one adversarial step; the class at which it arrives
    becomes its label, and the model is trained on the forget set alone.

    Parameters
    ----------
    epochs : int
    lr : float
        1e-5 in the released code. Small networks need more: there are few steps.
    bound : float
        Length of the step, in units of the inputs.
    clip : "data", (float, float) or None
        Range of valid inputs; ``"data"`` takes that of the forget set.
    stay : {"second", "keep"}
        What becomes of samples that the step leaves in the class. The paper
        asks for the nearest *incorrect* label, which ``"second"`` gives; the
        released code keeps the true one, so that much of the class stays (55 %
        on handwritten digits).
    batch_size : int
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether batch norm keeps its running statistics, and uses them, or
        updates them, as released, with forget samples alone. Small networks
        were damaged far more with "frozen".
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
        Labels are those of the plain images.
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
    The labels are found once: the step starts from the original model and has
    no randomness, so that the released code, which repeats it, finds the same.
    Its two extras (a term for curvature, weights by distance) are not here.

    References
    ----------
    Chen, Gao, Liu, Peng and Wang, Boundary Unlearning, CVPR 2023: Boundary
    Shrink.

    Examples
    --------
    >>> from unlearning.data import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3)
    >>> _ = nn.init.eye_(net.weight)
    >>> forget, retain = split_classes((X, y), 0)
    >>> shrink = BoundaryShrink(lr=1.0, random_state=0)
    >>> result = shrink.unlearn(net, forget=forget, retain=retain)
    >>> int((result.model(X[y == 0]).argmax(1) == 0).sum())
    0
    """

    _rules = Rules(bound=Real(above=0), stay=OneOf(*STAY))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 1e-5,
        *,
        bound: float = 0.1,
        clip: Any = "data",
        stay: str = "second",
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        norm: str = "update",
        augment: Callable[..., Any] | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.bound = bound
        self.clip = clip
        self.stay = stay
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
        inputs = only_images(job, "BoundaryShrink")
        clip = self._range(inputs)
        labels = []
        for x, y in job.forget.batches(job.batch_size):
            x, y = job.to_device(x), y.to(job.device)
            moved = perturb(job.original, x, y, float(self.bound), clip)  # type: ignore[arg-type]
            with torch.no_grad():
                logits = job.logits(job.original, moved)
            labels.append(nearest_labels(logits, y, job.classes, self.stay).cpu())
        new = torch.cat(labels)
        samples = job.forget.with_labels(new)

        def loss(batch: Any) -> torch.Tensor:
            x, y = batch
            return F.cross_entropy(run_model(job.model, x), y)

        job.train(
            lambda epoch: job.batches(samples),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(samples),
            description="labels of the neighbours",
        )
        found, number = torch.unique(new, return_counts=True)
        return {"labels": {str(int(c)): int(n) for c, n in zip(found, number, strict=True)}}

    def _range(self, inputs: torch.Tensor) -> tuple[float, float] | None:
        if self.clip is None:
            return None
        if isinstance(self.clip, str):
            if self.clip != "data":
                raise unknown_name("value of clip", self.clip, ("data",))
            return float(inputs.min()), float(inputs.max())
        low, high = self.clip
        return float(low), float(high)


class BoundaryExpand(Unlearner):
    """Train the forget set to an output of its own, and cut that output off.

    Parameters
    ----------
    epochs : int
    lr : float
        1e-5 in the released code. Small networks need more: there are few steps.
    batch_size : int
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether batch norm keeps its running statistics, and uses them, or
        updates them, as released, with forget samples alone. Small networks
        were damaged far more with "frozen".
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the further output and the order of batches.

    Notes
    -----
    The further output is a linear function of what enters the head, drawn as
    ``nn.Linear`` draws a row. It lives outside the model, so that the model
    has its C outputs and its parameters throughout, whatever happens.

    References
    ----------
    Chen, Gao, Liu, Peng and Wang, Boundary Unlearning, CVPR 2023: Boundary
    Expanding.

    Examples
    --------
    >>> from unlearning.data import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3)
    >>> _ = nn.init.eye_(net.weight)
    >>> forget, retain = split_classes((X, y), 0)
    >>> expand = BoundaryExpand(lr=1.0, random_state=0)
    >>> result = expand.unlearn(net, forget=forget, retain=retain)
    >>> result.model(X).shape, int((result.model(X[y == 0]).argmax(1) == 0).sum())
    (torch.Size([60, 3]), 0)
    """

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 1e-5,
        *,
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
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

    def _unlearn(self, job: Job) -> dict[str, Any]:
        width = job.head.n_features
        scale = width**-0.5
        drawn = torch.rand(width + 1, generator=job.generator).mul_(2).sub_(1).mul_(scale)
        dtype = job.head.linear.weight.dtype
        row = nn.Parameter(drawn[:-1].to(job.device, dtype))
        constant = nn.Parameter(drawn[-1:].to(job.device, dtype))

        def loss(batch: Any) -> torch.Tensor:
            inputs, y = batch
            features, logits = job.features_and_logits(job.model, inputs)
            wide = torch.cat([logits, (features @ row + constant)[:, None]], dim=1)
            return F.cross_entropy(wide, torch.full_like(y, job.n_classes))

        job.train(
            lambda epoch: job.batches(job.forget),
            loss,
            job.sgd([*job.trainable(), row, constant]),
            epochs=self.epochs,
            per_epoch=job.count(job.forget),
            description="a further output",
        )
        return {}
