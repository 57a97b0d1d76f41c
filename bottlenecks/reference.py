"""The concept layer of Sparse-CBM as released, for comparison only."""

from __future__ import annotations

__all__ = ["LOSSES", "ReferenceResult", "ReferenceSettings", "train_reference"]

from dataclasses import dataclass

import torch

from bottlenecks.losses import reference_contrastive, reference_gumbel, reference_l1
from conceptlab.seeds import torch_generator

LOSSES = ("gumbel", "contrastive", "l1")


@dataclass(frozen=True)
class ReferenceSettings:
    """How the layer is trained.

    Attributes
    ----------
    loss : {"gumbel", "contrastive", "l1"}
    epochs, batch_size : int
    learning_rate : float
        Of both optimisers.
    seed : int
    """

    loss: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, eq=False)
class ReferenceResult:
    """What training gave.

    Attributes
    ----------
    concept_map : Tensor of shape (M, M)
    head : Tensor of shape (K, M)
    losses : list of float
        Mean of concept loss and cross-entropy together, by epoch.
    """

    concept_map: torch.Tensor
    head: torch.Tensor
    losses: list[float]


def train_reference(
    scores: torch.Tensor, y: torch.Tensor, n_classes: int, settings: ReferenceSettings
) -> ReferenceResult:
    """Train an M by M map without bias from random weights, and a linear head on it.

    Two optimisers step on each batch: the map gets the gradient of concept loss and
    cross-entropy with equal weight, the head that of the cross-entropy. In the released code
    the head's optimiser holds other parameters, so that the head stays as it started; here it
    is trained, as is meant.

    Parameters
    ----------
    scores : Tensor of shape (n, M)
        Concept logits.
    y : Tensor of shape (n,), int64
    n_classes : int
    settings : ReferenceSettings

    Returns
    -------
    ReferenceResult
    """
    n, M = scores.shape
    generator = torch_generator(settings.seed)
    concept_map = _start(M, M, generator).to(scores).requires_grad_()
    head = _start(n_classes, M, generator).to(scores).requires_grad_()
    optimisers = [
        torch.optim.Adam([part], lr=settings.learning_rate) for part in (concept_map, head)
    ]
    losses = []
    for _ in range(settings.epochs):
        total = 0.0
        for rows in (
            torch.randperm(n, generator=generator)
            .to(scores.device)
            .split(min(settings.batch_size, n))
        ):
            a = scores[rows] @ concept_map.T
            loss = torch.nn.functional.cross_entropy(a @ head.T, y[rows])
            if settings.loss == "gumbel":
                loss = loss + reference_gumbel(a, 1.0, generator)
            elif settings.loss == "contrastive":
                loss = loss + reference_contrastive(a)
            else:
                loss = loss + reference_l1(concept_map)
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / n)
    return ReferenceResult(concept_map.detach(), head.detach(), losses)


def _start(n_out: int, n_in: int, generator: torch.Generator) -> torch.Tensor:
    """Draw weights as ``torch.nn.Linear`` does: uniform within 1 / sqrt(n_in)."""
    return (2 * torch.rand(n_out, n_in, generator=generator) - 1) / n_in**0.5
