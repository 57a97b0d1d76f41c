"""Fisher forgetting: noise where the retained data do not mind it."""

from __future__ import annotations

__all__ = ["FisherForgetting", "noise_variance"]

from collections.abc import Iterator
from typing import Any

import torch

from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.progress import track
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.curvature import fisher_diagonal, trained
from unlearning.classes.job import Job

_FLOOR = 1e-8  # added to the Fisher information, as published
_MOST, _MOST_HEAD = 1e3, 1e2
_TENFOLD = 10.0  # head, and vectors such as those of normalisation layers
_ROW = 1e-4  # variance of the head's row of the class, before the factor above


def noise_variance(fisher: torch.Tensor, alpha: float, *, head: bool = False) -> torch.Tensor:
    """Compute the variance of the noise on one parameter.

    Parameters
    ----------
    fisher : Tensor
        Diagonal of the Fisher information, in the shape of the parameter.
    alpha : float
        Strength.
    head : bool
        Whether it belongs to the last layer.

    Returns
    -------
    Tensor of the same shape
        ``alpha / (F + 1e-8)`` with 1/F at most 1000 (head: 100), averaged over
        the second axis of matrices and kernels, ten times as large on the head
        and on vectors.

    Examples
    --------
    >>> noise_variance(torch.tensor([[0.01, 0.1], [0.0, 1.0]]), 1e-3)
    tensor([[0.0550, 0.0550],
            [0.5005, 0.5005]])
    """
    variance = alpha * (1.0 / (fisher + _FLOOR)).clamp(max=_MOST_HEAD if head else _MOST)
    if variance.ndim > 1:
        variance = variance.mean(dim=1, keepdim=True).expand_as(fisher)
    return variance * _TENFOLD if head or fisher.ndim == 1 else variance


class FisherForgetting(Unlearner):
    """Add noise to the weights that the retained data do not determine.

    ``θ ~ N(θ, alpha · F_r⁻¹)``, with the diagonal of the Fisher information on
    the retain set. The head's row of the class is set to zero first, and with
    little noise that row is what makes the class go.

    Parameters
    ----------
    alpha : float
        Strength of the noise; 1e-9 to 3e-6 was searched.
    labels : {"exact", "sampled"}
        How the Fisher information is computed: exactly, sample by sample over
        all classes, or unbiased with one backward pass a batch, which is far
        faster; see :func:`unlearning.classes.curvature.fisher_diagonal`.
    n_samples : int, optional
        Retained samples to compute it on, drawn at random; None takes all.
    zero_row : bool
        Whether to set the head's rows of the classes to zero.
    head : str, optional
        Name of the last layer, where it is not found.
    batch_size : int
        For ``"sampled"``.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the noise, and for the samples.

    Notes
    -----
    Normalisation layers run in evaluation mode and keep their statistics. The
    head is found by what it does, not by the shape of its weights.

    References
    ----------
    Golatkar, Achille and Soatto, Eternal Sunshine of the Spotless Net, CVPR
    2020: Fisher forgetting; limits and factors as in its released code. There
    the standard deviation goes with ``F^(-1/2)``, and so it does here; the
    paper's own optimum goes with ``F^(-1/4)``.

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
    >>> result = FisherForgetting(random_state=0).unlearn(net, forget=forget, retain=retain)
    >>> result.model.weight.diagonal().detach().round().abs().tolist()
    [0.0, 5.0, 5.0]
    """

    _rules = Rules(alpha=Real(least=0), labels=OneOf("exact", "sampled"), n_samples=Whole(1) | None)

    def __init__(
        self,
        alpha: float = 1e-8,
        *,
        labels: str = "exact",
        n_samples: int | None = None,
        zero_row: bool = True,
        head: str | None = None,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.alpha = alpha
        self.labels = labels
        self.n_samples = n_samples
        self.zero_row = zero_row
        self.head = head
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        model, head = job.model.eval(), job.head
        own = {id(p) for p in head.linear.parameters()}
        order = torch.randperm(len(job.retain), generator=job.generator)
        samples = job.retain.select(order[: self.n_samples])

        def inputs() -> Iterator[Any]:
            batches = samples.batches(job.batch_size)
            total = -(-len(samples) // job.batch_size)
            for found, _ in track(
                batches, description="Fisher information", total=total, progress=job.progress
            ):
                yield job.to_device(found)

        fisher = fisher_diagonal(model, inputs(), labels=self.labels, generator=job.generator)
        with torch.no_grad():
            for name, p in trained(model).items():
                last = id(p) in own
                variance = noise_variance(fisher[name], float(self.alpha), head=last).clone()
                if last and self.zero_row:
                    p[job.classes] = 0.0
                    variance[job.classes] = _ROW * _TENFOLD
                noise = torch.randn(p.shape, generator=job.generator).to(p)
                p.add_(variance.sqrt() * noise)
        trace = sum(float(value.sum()) for value in fisher.values())
        return {"samples": len(samples), "fisher_trace": trace}
