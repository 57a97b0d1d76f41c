"""A filter behind a generator: images that show the concept are drawn again."""

from __future__ import annotations

__all__ = ["RejectionFilter"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, torch_generator
from conceptlab.training import Engine
from unlearning.gan.baselines._base import Baseline, outer
from unlearning.gan.generators import Generator
from unlearning.gan.sight import Sight


class RejectionFilter(Baseline):
    """Leave the weights and look at each image: redraw the latent until the gate is silent.

    It costs a pass of the encoder for every image, and the weights still make the concept.

    Parameters
    ----------
    encoder, target, anchor, retain
        As in :class:`TextToUnlearn`.
    max_draws : int
        Latents tried in place of one.
    n_survey : int
    random_state : optional

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> method = RejectionFilter(load_encoder("embedded"), "red", n_survey=128, random_state=0)
    >>> result = method.unlearn(load_embedded_gan())
    >>> z = result.generator.draw(2, torch.Generator().manual_seed(0))
    >>> result.generator.images(z).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        encoder: Any,
        target: str | Sequence[str],
        anchor: str | Sequence[str] | None = None,
        *,
        retain: Mapping[str, Sequence[str]] | None = None,
        max_draws: int = 8,
        n_survey: int = 1024,
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.max_draws = max_draws
        self.n_survey = n_survey
        self.random_state = random_state

    def _make(
        self,
        given: Generator,
        sight: Sight,
        draws: torch.Generator,
        progress: Progress,
    ) -> tuple[Generator, Engine | None]:
        filtered = _Filtered(given.fork(), sight, self.max_draws).requires_grad_(False)
        return outer(filtered.eval(), given), None


class _Filtered(nn.Module):
    """A generator behind a filter; latents in, images out."""

    def __init__(self, inner: Generator, sight: Sight, max_draws: int) -> None:
        super().__init__()
        self.inner_module, self.inner = inner.module, inner
        self.sight, self.max_draws = sight, max_draws

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        images = self.inner.images(z)
        draws = torch_generator(0)
        for _ in range(self.max_draws):
            e = self.sight.guide.embed_all(images)
            rows = torch.stack([g.shows(e) for g in self.sight.gates]).any(0).nonzero()[:, 0]
            if not len(rows):
                break
            images = images.clone()
            images[rows] = self.inner.images(self.inner.draw(len(rows), draws))
        return images
