"""What a generator is trained towards when it is to forget."""

from __future__ import annotations

__all__ = ["Objective", "Weights"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from conceptlab.seeds import torch_generator
from unlearning.gan.generators import Generator
from unlearning.gan.losses import (
    directional_loss,
    identity_loss,
    perceptual_loss,
    retain_divergence,
)
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.sight import Sight
from unlearning.gan.survey import Survey

Pairs = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """The terms of the training: how much each counts, how it is measured, and on what.

    Attributes
    ----------
    direction, preserve, retain, perceptual, identity, fisher : float
        See the parameters of :class:`TextToUnlearn`.
    surrogate : float or None
        None where latents with the concept have no image to learn.
    measure : callable
        Of two batches of images, for the terms `preserve`, `surrogate` and `perceptual`.
    network : callable or None
        Of the term `identity`.
    batch_size : int
    guide_every : int
        Steps between two losses that need the guide.
    augment : bool
        Whether the guide sees pairs moved, scaled and tinted.
    """

    direction: float = 0.05
    surrogate: float | None = 0.4
    preserve: float = 5.0
    retain: float = 0.05
    perceptual: float = 0.0
    identity: float = 0.1
    fisher: float = 0.0
    measure: Pairs = perceptual_loss
    network: Callable[[torch.Tensor], torch.Tensor] | None = None
    batch_size: int = 24
    guide_every: int = 8
    augment: bool = True

    @classmethod
    def of(cls, method: Any) -> Weights:
        """Read the parameters of a :class:`TextToUnlearn`."""
        return cls(
            direction=method.direction_weight,
            surrogate=method.surrogate_weight if method.surrogate else None,
            preserve=method.preserve_weight,
            retain=method.retain_weight,
            perceptual=method.perceptual_weight,
            identity=method.identity_weight,
            fisher=method.fisher_weight,
            measure=method.perceptual or perceptual_loss,
            network=method.identity,
            batch_size=method.batch_size,
            guide_every=method.guide_every,
            augment=method.augment,
        )


class Objective:
    """The losses of the training.

    Parameters
    ----------
    weights : Weights
    sight : Sight
    trained : Generator
    mapper : LatentMapper
    direction : Tensor of shape (d,)
        In which embeddings of images with the concept are to move.
    folded : bool
        Whether the mapping network of `trained` has learned the mapper.
    """

    def __init__(
        self,
        weights: Weights,
        sight: Sight,
        trained: Generator,
        mapper: LatentMapper,
        direction: torch.Tensor,
        folded: bool = False,
    ) -> None:
        self.weights, self.sight, self.trained = weights, sight, trained
        self.frozen, self.guide = sight.frozen, sight.guide
        self.mapper, self.direction, self.folded = mapper, direction, folded
        self.with_it, self.free = sight.seen[sight.shows], sight.seen[~sight.shows]
        self.fisher: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []

    @staticmethod
    def _some(part: Survey, n: int, draws: torch.Generator) -> Survey:
        return part[torch.randint(max(len(part), 1), (n,), generator=draws)]

    def losses(self, step: int, draws: torch.Generator) -> dict[str, torch.Tensor]:
        """Give the weighted terms of a step."""
        o = self.weights
        shown, again, free = (
            self._some(part, n, draws)
            for part, n in zip((self.with_it, self.with_it, self.free), self._sizes(), strict=True)
        )
        w_with, w_moved = shown.styles, self.mapper.moved(again)
        with torch.no_grad():
            w_goal = self._surrogates(shown) if o.surrogate is not None else w_with
            goal = self.frozen.images_of(torch.cat([w_goal, w_moved, free.styles]))
            rest = torch.cat([w_moved, free.styles])
            if self.folded:
                # What latents come to now; the mapping is not the old one to the last digit.
                rest = self.trained.styles(torch.cat([again.z, free.z]))
        images = self.trained.images_of(torch.cat([w_with, rest]))
        k = len(w_with)
        terms = {}
        if len(rest):
            terms["preserve"] = o.preserve * o.measure(images[k:], goal[k:])
        if o.surrogate is not None:
            terms["surrogate"] = o.surrogate * o.measure(images[:k], goal[:k])
        if self.fisher:
            terms["fisher"] = (
                o.fisher
                * torch.stack([(f * (p - old).square()).sum() for p, old, f in self.fisher]).sum()
            )
        if step % o.guide_every == 0:
            with torch.no_grad():
                before = self.frozen.images_of(w_with) if o.surrogate is not None else goal[:k]
            terms.update(self._guided(images[:k], before, shown.embeddings, draws))
        return terms

    def _sizes(self) -> tuple[int, int, int]:
        """Give the parts of a batch: with the concept, moved, and without."""
        n = self.weights.batch_size
        if not len(self.free):
            moved = n // 2 if self.weights.surrogate is not None else 0
            return n - moved, moved, 0
        moved = n // 4 if self.folded else n // 8
        shown = n // 4 if self.folded else n // 2
        return shown, moved, n - shown - moved

    def _surrogates(self, shown: Survey) -> torch.Tensor:
        """Give the styles whose images take the place of those shown.

        Once the mapping has learned the mapper no latent has the old styles, so that they
        need not be shared out, and all go the way that is easiest to learn.
        """
        if self.folded:
            return self.mapper(shown.styles)
        return self.mapper.moved(shown)

    def _guided(
        self,
        images: torch.Tensor,
        before: torch.Tensor,
        known: torch.Tensor,
        draws: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        o = self.weights
        if o.augment:
            e, still = self.guide.embed_pair(images, before, draws)
        else:
            e, still = self.guide.embed(images), known
        every = o.guide_every
        terms = {"direction": every * o.direction * directional_loss(e, still, self.direction)}
        if o.retain and self.sight.families:
            found = retain_divergence(e, still, self.sight.families, self.guide.scale)
            terms["retain"] = every * o.retain * found
        if o.perceptual:
            terms["perceptual"] = every * o.perceptual * o.measure(images, before)
        if o.network is not None:
            terms["identity"] = every * o.identity * identity_loss(images, before, o.network)
        return terms

    def measure_fisher(self, chosen: dict[str, nn.Parameter], batches: int = 8) -> None:
        """Estimate the Fisher information of images without the concept, pixel noise assumed."""
        draws = torch_generator(0)
        sums = [torch.zeros_like(p) for p in chosen.values()]
        for _ in range(batches):
            images = self.trained.images_of(self._some(self.free, 8, draws).styles)
            sign = torch.randint(0, 2, images.shape, generator=draws).to(images) * 2 - 1
            slopes = torch.autograd.grad((images * sign).mean(), list(chosen.values()))
            for total, slope in zip(sums, slopes, strict=True):
                total += slope.square() / batches
        scale = torch.cat([s.flatten() for s in sums]).mean().clamp(min=1e-20)
        self.fisher = [
            (p, p.detach().clone(), total / scale)
            for p, total in zip(chosen.values(), sums, strict=True)
        ]
