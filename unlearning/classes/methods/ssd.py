"""Selective synaptic dampening: shrink the weights that matter to the class alone."""

from __future__ import annotations

__all__ = ["SSD", "dampening"]

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules
from conceptlab.progress import track
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.curvature import squared_gradients, trained
from unlearning.classes.job import Job
from unlearning.data import Samples, concat
from unlearning.heads import run_model


def dampening(
    whole: torch.Tensor, forget: torch.Tensor, alpha: float = 10.0, lam: float = 1.0
) -> torch.Tensor:
    """Compute by how much each weight is multiplied.

    Parameters
    ----------
    whole, forget : Tensor
        Importance on all training data and on the forget set, >= 0.
    alpha : float
        From how many times the importance on all data a weight is dampened.
    lam : float
        Strength.

    Returns
    -------
    Tensor
        ``min(lam · whole / forget, 1)`` where ``forget > alpha · whole``, else 1.

    Examples
    --------
    >>> dampening(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([5.0, 20.0, 3.0]))
    tensor([1.0000, 0.0500, 0.0000])
    """
    chosen = forget > alpha * whole
    safe = torch.where(chosen, forget, torch.ones_like(forget))
    return torch.where(chosen, (lam * whole / safe).clamp(max=1.0), torch.ones_like(whole))


class SSD(Unlearner):
    """Dampen the weights that matter far more to the class than to all data.

    No training: two passes for the importance, and one multiplication.

    Parameters
    ----------
    alpha : float
        From how many times the importance on all data a weight is dampened. 10
        was published for residual networks, 5 for vision transformers, 50 for
        faces.
    lam : float
        Strength; 1 (0.1 in one of the published tasks).
    batch_size : int
        The importance is the mean over batches of the squared gradient of the
        batch's mean loss. It depends on the size: with 1 it is the empirical
        Fisher information.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the order of batches.

    Notes
    -----
    All parameters count, whatever their layer. Normalisation layers run in
    evaluation mode and keep their statistics.

    References
    ----------
    Foster, Schoepf and Brintrup, Fast Machine Unlearning Without Retraining
    Through Selective Synaptic Dampening, AAAI 2024: its rules of selection
    (alpha) and of dampening (beta).

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import split_classes
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(3, 3)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(5 * torch.eye(3))
    >>> forget, retain = split_classes((X, y), 0)
    >>> result = SSD(alpha=2.0, random_state=0).unlearn(net, forget=forget, retain=retain)
    >>> result.details["dampened"] > 0
    True
    """

    _rules = Rules(alpha=Real(above=0), lam=Real(above=0))

    def __init__(
        self,
        alpha: float = 10.0,
        lam: float = 1.0,
        *,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.alpha = alpha
        self.lam = lam
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        model = job.model.eval()

        def loss(batch: Any) -> torch.Tensor:
            inputs, y = batch
            return functional.cross_entropy(run_model(model, inputs), y)

        def batches(samples: Samples, description: str) -> Iterator[Any]:
            yield from track(
                job.batches(samples, augment=False),
                description=description,
                total=-(-len(samples) // job.batch_size),
                progress=job.progress,
            )

        forget = squared_gradients(model, batches(job.forget, "importance, forget"), loss)
        everything = concat(job.forget, job.retain)
        whole = squared_gradients(model, batches(everything, "importance, all"), loss)
        count = {}
        with torch.no_grad():
            for name, p in trained(model).items():
                factor = dampening(whole[name], forget[name], float(self.alpha), float(self.lam))
                count[name] = int((factor < 1).sum())
                p.mul_(factor)
        return {"dampened": sum(count.values()), "dampened_by_parameter": count}
