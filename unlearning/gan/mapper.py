"""The latent mapper: styles of images with a concept to styles without it."""

from __future__ import annotations

__all__ = ["LatentMapper"]

import itertools

import torch
from torch import nn

from unlearning.gan.survey import Survey


class LatentMapper(nn.Module):
    """Styles to styles: w + M(w), with M a small perceptron.

    Parameters
    ----------
    styles : Tensor of shape (n, d) or (n, layers, d)
        Examples, for scale and centre.
    groups : int
        Groups of layers that move apart from each other where styles have layers;
        StyleCLIP uses three.
    width : int
        Of the hidden layers.
    kinds : int
        Ways to go: what red things may become is yellow, green or blue. Each has a last
        layer of its own; :meth:`choose` tells which way a latent goes.

    References
    ----------
    Patashnik et al. 2021, StyleCLIP, section 5.

    Examples
    --------
    >>> w = torch.randn(10, 4, 8)
    >>> bool((LatentMapper(w)(w) == w).all())  # before training it leaves styles alone
    True
    """

    centre: torch.Tensor
    scale: torch.Tensor
    ways: torch.Tensor
    offsets: torch.Tensor

    def __init__(
        self, styles: torch.Tensor, groups: int = 1, width: int = 128, kinds: int = 1
    ) -> None:
        super().__init__()
        self.layers = styles.shape[1] if styles.ndim == 3 else 0
        self.groups = min(groups, self.layers) if self.layers else 1
        self.kinds = kinds
        heads = self._heads(styles)
        dim = heads.shape[2]
        self.register_buffer("centre", heads.mean((0, 1)))
        self.register_buffer("scale", (heads - self.centre).square().mean().sqrt() + 1e-8)
        self.register_buffer("ways", torch.zeros(0, kinds).to(self.centre))
        self.register_buffer("offsets", torch.zeros(kinds).to(self.centre))
        self.body = nn.Sequential(
            nn.Linear(dim, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
        )
        self.step = nn.Linear(width, kinds * self.groups * dim)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, w: torch.Tensor, kind: torch.Tensor | None = None) -> torch.Tensor:
        """Give w + M(w), of the shape of w; `kind`, (n,) int64, is the first by default."""
        heads = self._heads(w)
        body = self.body((heads[:, 0] - self.centre) / self.scale)
        every = self.step(body).unflatten(1, (self.kinds, self.groups, -1))
        kind = torch.zeros(len(w), dtype=torch.int64, device=w.device) if kind is None else kind
        step = self.scale * every[torch.arange(len(w), device=w.device), kind]
        if not self.layers:
            return w + step[:, 0].view_as(w)
        return w + self._spread(step)

    def moved(self, part: Survey) -> torch.Tensor:
        """Give w + M(w) of latents, each on the way that :meth:`choose` tells."""
        return self(part.styles, self.choose(part.z))

    def choose(self, z: torch.Tensor) -> torch.Tensor:
        """Tell which way each latent goes, (n,) int64."""
        if not len(self.ways):
            return torch.zeros(len(z), dtype=torch.int64, device=z.device)
        return (z.flatten(1) @ self.ways + self.offsets).argmax(1)

    @torch.no_grad()
    def share_out(self, part: Survey, shares: torch.Tensor) -> None:
        """Settle which latents go which way, so that each way is taken as often as asked.

        Each way has a direction of its own, and a latent goes the way that it lies farthest
        along. The directions are those in which latents differ while what the guide sees
        does not, so that what becomes of an image depends on nothing in it. They are of
        latents, not of styles, since the mapping network must learn the choice, and learns
        plain cuts of its own input best.

        Parameters
        ----------
        part : Survey
            Latents with the concept.
        shares : Tensor of shape (kinds,)
        """
        if self.kinds == 1:
            return
        z = part.z.flatten(1)
        centred = (z - z.mean(0)).double()
        e = (part.embeddings - part.embeddings.mean(0)).double()
        told = torch.linalg.svd(e, full_matrices=False)[0][:, : max(1, min(16, len(z) // 8))]
        # The share of the variance along each direction that embeddings tell, least first.
        spread, turn = torch.linalg.eigh(centred.T @ centred / len(z))
        wide = spread > 0.01 * spread.max()
        whiten = turn[:, wide] / spread[wide].sqrt()
        seen = told.T @ (centred @ whiten) / len(z) ** 0.5
        hidden = whiten @ torch.linalg.eigh(seen.T @ seen)[1][:, : self.kinds - 1]
        # Corners of a simplex; where there are too few directions, of its shadow, in which
        # corners stay apart.
        angles = torch.arange(self.kinds) + 0.5
        corners = [torch.cos(torch.pi / self.kinds * i * angles) for i in range(1, self.kinds)]
        self.ways = (hidden @ torch.stack(corners)[: hidden.shape[1]].to(hidden)).to(self.centre)
        along = z.to(self.ways) @ self.ways
        self.offsets.copy_(-along.mean(0))
        goal = (shares / shares.sum()).to(self.offsets)
        for step in range(400):
            found = (along + self.offsets).argmax(1).bincount(minlength=self.kinds) / len(z)
            self.offsets += (goal - found) / (1 + 0.05 * step)

    def normal(self, w: torch.Tensor) -> torch.Tensor:
        """Give the style of each group in units of the scale, (n · groups, d)."""
        return ((self._heads(w) - self.centre) / self.scale).flatten(0, 1)

    def _bounds(self) -> list[int]:
        return [round(i * self.layers / self.groups) for i in range(self.groups + 1)]

    def _heads(self, w: torch.Tensor) -> torch.Tensor:
        if not self.layers:
            return w.flatten(1)[:, None]
        return torch.stack([w[:, i] for i in self._bounds()[:-1]], dim=1)

    def _spread(self, step: torch.Tensor) -> torch.Tensor:
        bounds = self._bounds()
        counts = [b - a for a, b in itertools.pairwise(bounds)]
        return step.repeat_interleave(torch.tensor(counts, device=step.device), dim=1)
