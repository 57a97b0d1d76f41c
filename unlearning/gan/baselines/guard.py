"""A guard in front of a generator: latents are edited, weights stay."""

from __future__ import annotations

__all__ = ["LatentGuard"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from conceptlab.progress import Progress
from conceptlab.seeds import RandomState
from conceptlab.training import Engine
from unlearning.gan.baselines._base import Baseline, outer
from unlearning.gan.generators import Generator
from unlearning.gan.sight import Sight


class LatentGuard(Baseline):
    """Leave the weights and edit latents: take the concept's direction out of their styles.

    The direction is the difference of the mean styles with and without the concept; a
    linear gate on styles tells which are edited. The generator can still make the concept:
    whoever has the weights can take the guard off.

    Parameters
    ----------
    encoder, target, anchor, retain
        As in :class:`TextToUnlearn`.
    strength : float
        Edited styles are moved so many times past the gate as their class means lie before.
    n_survey : int
    random_state : optional

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> method = LatentGuard(load_encoder("embedded"), "red", n_survey=128, random_state=0)
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
        strength: float = 1.0,
        n_survey: int = 1024,
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.strength = strength
        self.n_survey = n_survey
        self.random_state = random_state

    def _make(
        self,
        given: Generator,
        sight: Sight,
        draws: torch.Generator,
        progress: Progress,
    ) -> tuple[Generator, Engine | None]:
        from sklearn.linear_model import LogisticRegression

        shows, flat = sight.shows, sight.seen.styles.flatten(1)
        gate = LogisticRegression(C=10.0, max_iter=2000).fit(
            flat.cpu().numpy(), shows.cpu().numpy()
        )
        normal = torch.from_numpy(gate.coef_[0]).to(flat)
        offset = float(gate.intercept_[0])
        step = flat[~shows].mean(0) - flat[shows].mean(0)
        guarded = _Guarded(given.fork(), normal, offset, step, self.strength).requires_grad_(False)
        return outer(guarded.eval(), given), None


class _Guarded(nn.Module):
    """A generator behind a guard; latents in, images out."""

    normal: torch.Tensor
    step: torch.Tensor

    def __init__(
        self,
        inner: Generator,
        normal: torch.Tensor,
        offset: float,
        step: torch.Tensor,
        strength: float,
    ) -> None:
        super().__init__()
        self.inner_module, self.inner = inner.module, inner
        self.register_buffer("normal", normal)
        self.register_buffer("step", step)
        self.offset, self.strength = offset, strength

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w = self.inner.styles(z)
        flat = w.flatten(1)
        excess = flat @ self.normal + self.offset
        slope = -(self.step @ self.normal)
        length = (1 + self.strength) * excess.clamp(min=0) / slope.clamp(min=1e-8)
        return self.inner.images_of((flat + length[:, None] * self.step).view_as(w))
