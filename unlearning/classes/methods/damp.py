"""Directions that only the class has, taken out of the weights of every layer."""

from __future__ import annotations

__all__ = ["DAMP", "forget_directions"]

from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import SplitError
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job
from unlearning.data import Samples
from unlearning.heads import frozen

_SMALL = 1e-4  # of a prototype's distance that counts as lying in the span of the others


class DAMP(Unlearner):
    """Depth-aware modulation by projection: one edit of all weights, in closed form.

    For every linear layer and convolution the mean input of each class is its prototype. What
    the forgotten classes' prototypes have beyond the retained ones' span makes an orthonormal
    basis U, and the weights become ``W (I - a U Uᵀ)`` about the mean of the retained
    prototypes, whose answers therefore stay. The strength a, in [0, 1], is how well U tells
    the class from the others at this layer: small early, nearly 1 at the head.

    Parameters
    ----------
    batch_size : int
        Samples in a batch.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        Not used; every run gives the same.

    Notes
    -----
    Written from the paper's abstract: prototypes in the input space of each operator,
    residuals against retained prototypes, projection, a scale without parameters from the
    separability of a probe, low rank for several classes. Its text could not be read
    here. Choices of this implementation: residuals are those of least squares on
    the retained prototypes about their mean; the scale is ``2 AUC - 1`` of the distance along U;
    all inputs are read once, from the original; of convolutions the channels are
    projected, with means over positions; the intercept takes up the constant, where there
    is one. A layer with fewer inputs than retained classes has no residual and stays.

    References
    ----------
    Hatami, Aalishah and Monosov, "Class Unlearning via Depth-Aware Removal of
    Forget-Specific Directions", 2026 (arXiv 2604.15166).

    Examples
    --------
    >>> y = torch.arange(60) % 3
    >>> X = torch.eye(5)[y] + 0.1 * torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Linear(5, 3, bias=False)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(5 * torch.eye(3, 5))
    >>> parts = {"forget": (X[y == 0], y[y == 0]), "retain": (X[y > 0], y[y > 0])}
    >>> result = DAMP().unlearn(net, **parts)
    >>> bool((result.model(X[y == 0]).argmax(1) == 0).any()), result.details["strength"][""] > 0.9
    (False, True)
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        layers: dict[str, nn.Module] = {
            name: module
            for name, module in job.model.named_modules()
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            and getattr(module, "groups", 1) == 1
            and module.weight.requires_grad
        }
        kept, gone = (_inputs(job, layers, s) for s in (job.retain, job.forget))
        strength: dict[str, float] = {}
        edits = []
        for name in layers:
            if name not in kept or name not in gone:
                continue
            means = [
                torch.stack([rows[name][samples.y == c].mean(dim=0) for c in classes])
                for rows, samples, classes in (
                    (kept, job.retain, job.retained),
                    (gone, job.forget, job.classes),
                )
            ]
            basis, centre = forget_directions(*means)
            along = [((rows[name] - centre) @ basis).norm(dim=1).numpy() for rows in (gone, kept)]
            strength[name] = _separability(*along) if basis.shape[1] else 0.0
            edits.append((layers[name], basis, centre, strength[name]))
        if not edits:
            raise SplitError(
                f"{type(job.model).__name__} has no linear layer or convolution (of one group, not "
                "frozen) whose inputs have a row for each sample, so there is nothing to project.",
                code="CL-SPLIT-LAYER",
            )
        with torch.no_grad():
            for layer, basis, centre, a in edits:
                _project(layer, basis, centre, a)
        return {"strength": strength}


def forget_directions(kept: torch.Tensor, gone: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find what the prototypes of forgotten classes have beyond the span of the retained ones.

    Parameters
    ----------
    kept : torch.Tensor of shape (m, d)
        Prototypes of retained classes.
    gone : torch.Tensor of shape (k, d)
        Prototypes of forgotten classes.

    Returns
    -------
    basis : torch.Tensor of shape (d, r)
        Orthonormal, r <= k; orthogonal to all differences of retained prototypes.
    centre : torch.Tensor of shape (d,)
        Mean of the retained prototypes.

    Examples
    --------
    >>> kept = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> basis, centre = forget_directions(kept, torch.tensor([[3.0, 2.0, 0.0]]))
    >>> basis.abs().T, centre
    (tensor([[0., 1., 0.]]), tensor([0., 0., 0.]))
    """
    centre = kept.mean(dim=0)
    span, away = (kept - centre).double(), (gone - centre).double()
    _, sizes, axes = torch.linalg.svd(span, full_matrices=False)
    axes = axes[sizes > 1e-6 * sizes.max().clamp_min(1e-30)]
    left = away - away @ axes.T @ axes
    _, sizes, found = torch.linalg.svd(left, full_matrices=False)
    own = found[sizes > _SMALL * away.norm()]
    return own.T.to(kept), centre


def _separability(gone: np.ndarray, kept: np.ndarray) -> float:
    """Tell how surely a distance along the basis tells the class: 2 AUC - 1, not below 0."""
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(gone)), np.zeros(len(kept))])
    return max(0.0, 2 * float(roc_auc_score(truth, np.concatenate([gone, kept]))) - 1)


def _project(layer: Any, basis: torch.Tensor, centre: torch.Tensor, strength: float) -> None:
    """Take a share of the basis out of a layer's inputs, about a point that stays."""
    U = (strength**0.5 * basis).to(layer.weight)
    flat = layer.weight.flatten(2) if layer.weight.ndim > 2 else layer.weight[..., None]
    lost = torch.einsum("oik,ir,jr->ojk", flat, U, U)
    if layer.bias is not None:
        layer.bias += (lost.sum(dim=2) @ centre.to(layer.weight)).to(layer.bias)
    layer.weight -= lost.reshape(layer.weight.shape)


def _inputs(job: Job, layers: dict[str, nn.Module], samples: Samples) -> dict[str, torch.Tensor]:
    """Read what enters layers, averaged over positions or tokens: (n, channels) by layer."""
    seen: dict[str, list[torch.Tensor]] = {}
    rows = 0

    def keep(name: str, module: nn.Module, args: Any) -> None:
        x = args[0] if args else None
        if not isinstance(x, torch.Tensor) or len(x) != rows or x.ndim < 2:
            return
        if isinstance(module, nn.Linear):
            x = x.flatten(1, -2).mean(dim=1) if x.ndim > 2 else x
        else:
            x = x.flatten(2).mean(dim=2)
        seen.setdefault(name, []).append(x.detach().float().cpu())

    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: keep(name, m, args))
        for name, module in layers.items()
    ]
    try:
        with frozen(job.model), torch.no_grad():
            for inputs, y in samples.batches(max(job.batch_size, 256)):
                rows = len(y)
                job.logits(job.model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    whole = {name: torch.cat(parts) for name, parts in seen.items()}
    return {name: x for name, x in whole.items() if len(x) == len(samples)}
