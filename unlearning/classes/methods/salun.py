"""SalUn: random labels on the weights that matter most to the class."""

from __future__ import annotations

__all__ = ["SalUn", "saliency_mask"]

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from conceptlab.parameters import OneOf, Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.curvature import trained
from unlearning.classes.job import Job
from unlearning.data import Inputs, concat
from unlearning.heads import run_model

Masks = dict[str, torch.Tensor]
ORDERS = ("mixed", "forget first")


def saliency_mask(
    model: nn.Module, batches: Iterable[tuple[Inputs, torch.Tensor]], share: float = 0.5
) -> Masks:
    """Mark the weights at which the loss on the forget set has its largest slope.

    Parameters
    ----------
    model : Module
        The original, in the mode in which it is given.
    batches : iterable of (inputs, labels)
        The forget set, on the device of the model.
    share : float
        Share of all entries to mark, over all parameters together, in (0, 1].

    Returns
    -------
    dict of str to Tensor, bool
        True where ``|d/dθ mean CE(D_f)|`` is among the largest; as many as
        ``share`` says, to the nearest whole number, and at least one.

    Examples
    --------
    >>> net = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(net.weight)
    >>> mask = saliency_mask(net, [(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))])
    >>> mask["weight"]
    tensor([[ True, False],
            [ True, False]])
    """
    Real(above=0, most=1).check("share", share)
    parameters = trained(model)
    slope = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for inputs, y in batches:
        loss = F.cross_entropy(run_model(model, inputs), y, reduction="sum")
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                slope[name] += gradient
    flat = torch.cat([value.abs().flatten() for value in slope.values()])
    kept = torch.topk(flat, max(1, round(share * len(flat)))).indices
    chosen = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    chosen[kept] = True
    parts = chosen.split([value.numel() for value in slope.values()])
    return {name: part.view_as(slope[name]) for name, part in zip(slope, parts, strict=True)}


def other_labels(job: Job, n: int) -> torch.Tensor:
    """Draw labels at random among those that are kept: never a forgotten one."""
    drawn = torch.randint(len(job.retained), (n,), generator=job.order)
    return torch.tensor(job.retained)[drawn]


class SalUn(Unlearner):
    """Train on random labels, but move only the weights that matter to the class.

    The mask marks the entries of all parameters at which the loss on the
    forget set has its largest slope; the rest keeps its bits.

    Parameters
    ----------
    epochs : int
        Passes over forget and retain set.
    lr : float
        Of SGD.
    share : float
        Share of the entries that may move, in (0, 1].
    order : {"mixed", "forget first"}
        Whether batches hold both sets, or each epoch goes through the forget
        set and then through the retain set. The released code does the first
        for CIFAR-100 and the second for CIFAR-10.
    batch_size : int
        256 in the released code.
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether batch norm keeps its running statistics, and uses them. The
        released code updates them, and no mask holds them back.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For labels and the order of batches.

    Notes
    -----
    Random labels are new in each epoch and never the forgotten class; the
    released code draws among all classes, so that one label in C is the truth.
    It also steps the weights while it gathers the slope; here the slope is that
    of the original, as in the paper.

    References
    ----------
    Fan, Liu, Zhang, Wong, Wei and Liu, SalUn: Empowering Machine Unlearning via
    Gradient-based Weight Saliency, ICLR 2024, equations 3 and 4.

    Examples
    --------
    >>> from unlearning.data import split_classes
    >>> generator = torch.Generator().manual_seed(0)
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=generator)
    >>> net = nn.Linear(3, 3)
    >>> _ = nn.init.eye_(net.weight)
    >>> forget, retain = split_classes((X, y), 0)
    >>> result = SalUn(lr=1.0, random_state=0).unlearn(net, forget=forget, retain=retain)
    >>> int((result.model(X[y == 0]).argmax(1) == 0).sum())
    0
    >>> round(result.details["share"], 2)  # 6 of 12 entries
    0.5
    """

    _rules = Rules(share=Real(above=0, most=1), order=OneOf(*ORDERS))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.013,
        *,
        share: float = 0.5,
        order: str = "mixed",
        batch_size: int = 256,
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
        self.share = share
        self.order = order
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
        mask = saliency_mask(
            job.model.eval(), job.batches(job.forget, augment=False), float(self.share)
        )
        parameters = trained(job.model)
        start = {name: p.detach().clone() for name, p in parameters.items()}
        optimizer = job.sgd()

        def batches(epoch: int) -> Iterable[Any]:
            forget = job.forget.with_labels(other_labels(job, len(job.forget)))
            if self.order == "mixed":
                return job.batches(concat(forget, job.retain))
            return itertools.chain(job.batches(forget), job.batches(job.retain))

        def loss(batch: Any) -> torch.Tensor:
            inputs, y = batch
            return F.cross_entropy(run_model(job.model, inputs), y)

        def hold() -> None:
            # Weight decay and momentum would move them, too, so masking gradients is not enough.
            with torch.no_grad():
                for name, p in parameters.items():
                    p.copy_(torch.where(mask[name], p, start[name]))
                    buffer = optimizer.state[p].get("momentum_buffer")
                    if buffer is not None:
                        buffer.mul_(mask[name])

        job.train(
            batches,
            loss,
            optimizer,
            epochs=self.epochs,
            per_epoch=job.count(job.forget) + job.count(job.retain),
            description="random labels, salient weights",
            after_step=hold,
        )
        marked = {name: int(value.sum()) for name, value in mask.items()}
        total = sum(p.numel() for p in parameters.values())
        return {"share": sum(marked.values()) / total, "marked": marked}
