"""The network of a sparse autoencoder: what it trains, and what is left to code with."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "DICTIONARIES", "Autoencoder", "SparseCoder", "geometric_median"]

from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import as_numpy

ACTIVATIONS = ("topk", "batchtopk", "jumprelu", "l1", "matryoshka")
DICTIONARIES = ("free", "archetypal")
_NESTED = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the latents, for "matryoshka"
_BANDWIDTH = 0.05  # of the straight-through estimate, in units of z
_FORGET = 0.01  # of the running mean of batches' thresholds
_CENTRES = 4  # points of the data for each latent


class SparseCoder(nn.Module):
    """The encoder of a fitted autoencoder as a layer: (..., p) -> (..., k), channels last.

    Parameters
    ----------
    encoder : array of shape (k, p)
    bias : array of shape (k,)
    offset : array of shape (p,)
    threshold : array of shape (k,)
        Least z that fires.
    scale : float
        What z is multiplied by.
    most : int, optional
        The most latents that fire for a row.
    """

    encoder: torch.Tensor
    bias: torch.Tensor
    offset: torch.Tensor
    threshold: torch.Tensor

    def __init__(
        self,
        encoder: np.ndarray,
        bias: np.ndarray,
        offset: np.ndarray,
        threshold: np.ndarray,
        scale: float,
        most: int | None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("encoder", encoder),
            ("bias", bias),
            ("offset", offset),
            ("threshold", threshold),
        ):
            self.register_buffer(name, torch.tensor(value))
        self.scale, self.most = scale, most

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Code activations; differentiable where a latent fires."""
        A = activations.to(self.bias)
        z = (A - self.offset) @ self.encoder.mT + self.bias
        z = torch.where(z > self.threshold, z.clamp(min=0), 0)
        if self.most is not None:
            z = _largest(z, self.most)
        return (self.scale * z).to(activations.dtype)


class Autoencoder(nn.Module):
    """What is trained: encoder, bias and dictionary, on rows about 0 of mean square length 1.

    Parameters
    ----------
    sample : tensor of shape (m, p)
        Rows to start from.
    n_latents, k : int
    activation, l1, aux, aux_weight, dead_after
        As in :class:`conceptlab.extractors.sae.SparseAutoencoder`.
    relaxation : float, optional
        Of an archetypal dictionary; None for a free one.
    generator : torch.Generator
        Of the start.
    """

    quiet: torch.Tensor
    cut: torch.Tensor

    def __init__(
        self,
        sample: torch.Tensor,
        n_latents: int,
        k: int,
        *,
        activation: str,
        l1: float,
        aux: int,
        aux_weight: float,
        dead_after: int,
        relaxation: float | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation, self.k, self.l1 = activation, k, l1
        self.aux, self.aux_weight, self.dead_after = aux, aux_weight, dead_after
        self.relaxation = relaxation
        p = sample.shape[1]
        if relaxation is None:
            start = torch.randn(n_latents, p, generator=generator, dtype=torch.float64).to(sample)
            self.atoms = nn.Parameter(_unit(start))
        else:
            points = _centres(sample, _CENTRES * n_latents, generator)
            near = torch.randn(n_latents, len(points), generator=generator, dtype=torch.float64)
            near[torch.arange(n_latents), torch.arange(n_latents) % len(points)] += 5
            self.register_buffer("points", points)
            self.mixing = nn.Parameter(near.to(sample))
            self.rest = nn.Parameter(sample.new_zeros(n_latents, p))
        self.encoder = nn.Parameter(self.dictionary().detach().clone())
        self.bias = nn.Parameter(sample.new_zeros(n_latents))
        self.shift = nn.Parameter(sample.new_zeros(p))
        self.log_threshold = nn.Parameter(
            sample.new_full((n_latents,), float(np.log(_start_threshold(sample, n_latents, k)))),
            requires_grad=activation == "jumprelu",
        )
        self.register_buffer("quiet", torch.zeros(n_latents, dtype=torch.int64).to(sample.device))
        self.register_buffer("cut", sample.new_full((), -1.0))

    def dictionary(self) -> torch.Tensor:
        """Give D (n_latents, p), rows of length one."""
        if self.relaxation is None:
            return self.atoms
        length = torch.linalg.vector_norm(self.rest, dim=1, keepdim=True)
        rest = self.rest * (self.relaxation / length.clamp(min=1e-12)).clamp(max=1)
        return _unit(self.mixing.softmax(1) @ self.get_buffer("points") + rest)

    def least(self) -> torch.Tensor:
        """Give the least z that fires, (n_latents,), once it is trained."""
        if self.activation == "jumprelu":
            return self.log_threshold.exp()
        if self.activation in ("batchtopk", "matryoshka"):
            return self.cut.clamp(min=0).expand_as(self.bias).clone()
        return torch.zeros_like(self.bias)

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Reconstruct a batch; give the loss and the number of latents that fire."""
        D = self.dictionary()
        x = x - self.shift
        before = x @ self.encoder.mT + self.bias
        z, penalty = self._act(before)
        error = (x - z @ D).square().sum(1).mean()
        loss = error + penalty
        if self.activation == "matryoshka":
            inner = [max(int(share * len(D)), 1) for share in _NESTED[:-1]]
            loss = loss + sum((x - z[:, :m] @ D[:m]).square().sum(1).mean() for m in inner)
            loss = loss / len(_NESTED)
        fires = z > 0
        with torch.no_grad():
            self.quiet += len(x)
            self.quiet[fires.any(0)] = 0
        dead = self.quiet > self.dead_after
        if self.aux and self.aux_weight and bool(dead.any()):
            loss = loss + self.aux_weight * self._revive(x - (z @ D).detach(), before, dead, D)
        return loss, {"error": error.detach(), "l0": fires.sum(1).double().mean()}

    def normalise(self) -> None:
        """Bring atoms back to length one; after each step."""
        if self.relaxation is None:
            with torch.no_grad():
                self.atoms.copy_(_unit(self.atoms))

    def _act(self, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give z and a penalty."""
        none = before.new_zeros(())
        z = before.clamp(min=0)
        if self.activation == "l1":
            return z, self.l1 * z.sum(1).mean()
        if self.activation == "topk":
            return _largest(z, self.k), none
        if self.activation == "jumprelu":
            threshold = self.log_threshold.exp()
            fires: torch.Tensor = _Step.apply(z, threshold)
            return z * fires, (fires.sum(1).mean() / self.k - 1).square()
        most = min(self.k * len(z), z.numel())
        least = z.flatten().topk(most).values[-1]
        with torch.no_grad():
            lower = least if float(self.cut) < 0 else self.cut + _FORGET * (least - self.cut)
            self.cut.copy_(lower)
        return torch.where(z >= least, z, 0), none

    def _revive(
        self, residual: torch.Tensor, before: torch.Tensor, dead: torch.Tensor, D: torch.Tensor
    ) -> torch.Tensor:
        """Let dead latents explain what is left; relative to it."""
        most = min(self.aux, int(dead.sum()))
        z = _largest(before.masked_fill(~dead, -torch.inf), most).clamp(min=0)
        left = (residual - z @ D).square().sum(1).mean()
        return left / residual.square().sum(1).mean().clamp(min=1e-12)


class _Step(torch.autograd.Function):
    """z > t, with the derivative in t of a window about the step."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z, threshold)
        return (z > threshold).to(z)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, threshold = ctx.saved_tensors
        window = ((z - threshold).abs() < _BANDWIDTH / 2).to(z) / _BANDWIDTH
        return None, -(grads[0] * window).sum(0)


def geometric_median(rows: torch.Tensor, *, n_iter: int = 50) -> torch.Tensor:
    """Find the point with the least sum of distances to rows, by Weiszfeld's steps.

    Parameters
    ----------
    rows : tensor of shape (n, p)
    n_iter : int
        Most steps.

    Returns
    -------
    tensor of shape (p,)

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [100.0, 0.0]])
    >>> bool(geometric_median(rows).abs().max() < 1e-3)
    True
    """
    point = rows.mean(0)
    floor = 1e-9 * float((rows - point).abs().max()) + 1e-30
    for _ in range(n_iter):
        weight = 1 / torch.linalg.vector_norm(rows - point, dim=1).clamp(min=floor)
        new = (weight[:, None] * rows).sum(0) / weight.sum()
        if float((new - point).abs().max()) <= floor:
            break
        point = new
    return point


def _largest(z: torch.Tensor, most: int) -> torch.Tensor:
    """Keep the `most` largest of each row, and 0 for the rest."""
    if most >= z.shape[-1]:
        return z
    found = z.topk(most, dim=-1)
    return torch.zeros_like(z).scatter(-1, found.indices, found.values)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=1e-12)


def _start_threshold(sample: torch.Tensor, n_latents: int, k: int) -> float:
    """Guess the threshold that k of random unit directions pass."""
    deviation = float(sample.square().mean().sqrt())
    share = torch.tensor(min(max(1 - k / n_latents, 0.5), 1 - 1e-6), dtype=torch.float64)
    normal = float(torch.special.ndtri(share))
    return max(deviation * normal, 1e-3)


def _centres(sample: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Give points in the hull of the data: centres of k-means, at length one."""
    from sklearn.cluster import KMeans

    seed = int(torch.randint(2**31, (1,), generator=generator))
    count = min(most, len(sample))
    found = KMeans(count, n_init=1, max_iter=20, random_state=seed).fit(as_numpy(sample))
    return _unit(torch.as_tensor(found.cluster_centers_).to(sample))
