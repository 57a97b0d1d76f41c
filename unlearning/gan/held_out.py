"""Figures of a generator in training on latents that no step has seen."""

from __future__ import annotations

__all__ = ["HeldOut"]

import torch

from conceptlab.seeds import torch_generator
from unlearning.gan.gamma import degree_of_unlearning
from unlearning.gan.generators import Generator
from unlearning.gan.sight import Sight
from unlearning.gan.thumbnails import Thumbnails

_LATENTS = 32  # at once, where no gradient is kept
_REACHED = 0.95  # degree of unlearning that ends the training
_ENOUGH = 12  # latents with the concept, to tell how many lost it
_UNCLEAR = 0.2  # probability from which a value may have been the right one before


class HeldOut:
    """Figures on latents that no step has seen, by the guide.

    Parameters
    ----------
    sight : Sight
    trained : Generator
    n : int
        Latents.
    draws : torch.Generator
    thumbnails : Thumbnails, optional
        Where the images are shown at each look.
    """

    def __init__(
        self,
        sight: Sight,
        trained: Generator,
        n: int,
        draws: torch.Generator,
        thumbnails: Thumbnails | None = None,
    ) -> None:
        frozen, self.trained = sight.frozen, trained
        self.guide, self.gates, self.thumbnails = sight.guide, sight.gates, thumbnails
        self.families, self.rare = sight.families, None
        self.z = frozen.draw(n, draws)
        self.styles, self.before, self.embeddings = self._shown(frozen, self.z)
        self.scores = self._scores(self.embeddings)
        self.shows = (self.scores > 0).any(0)
        if int(self.shows.sum()) < _ENOUGH:
            self.rare = self._more(frozen, 16 * max(n, _ENOUGH), draws)

    @torch.no_grad()
    def _shown(
        self, generator: Generator, z: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give styles, images and their embeddings."""
        styles = generator.styles(z)
        images = torch.cat([generator.images_of(w) for w in styles.split(_LATENTS)])
        return styles, images, self.guide.embed_all(images)

    def _more(self, frozen: Generator, most: int, draws: torch.Generator) -> torch.Tensor:
        """Draw latents until enough of them show the concept, of which few do."""
        own = torch_generator(int(torch.randint(2**31, (1,), generator=draws)))
        found: list[torch.Tensor] = []
        for _ in range(0, most, _LATENTS):
            z = frozen.draw(_LATENTS, own)
            e = self._shown(frozen, z)[2]
            found.append(z[(self._scores(e) > 0).any(0)])
            if sum(map(len, found)) >= _ENOUGH:
                break
        return torch.cat(found)

    def _scores(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Give the scores by each gate, (gates, n)."""
        return torch.stack([gate.score(embeddings) for gate in self.gates])

    def _same(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Tell where each retained attribute is what it was, if that was clear, (n,) bool."""
        same = torch.ones(len(embeddings), dtype=torch.bool, device=embeddings.device)
        for vectors in self.families.values():
            before = (self.guide.scale * self.embeddings @ vectors.T).softmax(1)
            now = (embeddings @ vectors.T).argmax(1, keepdim=True)
            same &= (before.gather(1, now) >= _UNCLEAR)[:, 0] | (before.argmax(1) == now[:, 0])
        return same

    def _degree(self, scores: torch.Tensor) -> float:
        """Give the degree of unlearning, the least of all gates; 1 where nothing can be told."""
        found = [1.0]
        for before, after in zip(self.scores.cpu(), scores.cpu(), strict=True):
            had = before > 0
            if had.any() and not had.all():
                found.append(degree_of_unlearning(before[had], after[had], before[~had]))
        return min(found)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Give the figures of styles; ``"reached"`` is 1 where there is nothing left to do."""
        images = torch.cat([self.trained.images_of(w) for w in self.styles.split(_LATENTS)])
        if self.thumbnails is not None:
            rows = torch.cat([self.shows.nonzero()[:8, 0], (~self.shows).nonzero()[:4, 0]])
            self.thumbnails.show({"before": self.before[rows], "now": images[rows]})
        found = self._figures(images, self.guide.embed_all(images))
        # Images on the threshold would do were the shares all that is asked for.
        done = (
            found["removed"] >= 0.995
            and found["degree"] >= _REACHED
            and found["leak"] <= 0.001
            and found["drift"] <= 0.004
        )
        return {**found, "reached": float(done)}

    @torch.no_grad()
    def at_the_end(self) -> dict[str, float]:
        """Give the figures of latents, whose styles may be others now; of a rare concept, too."""
        _, images, e = self._shown(self.trained, self.z)
        found = self._figures(images, e)
        if self.rare is not None:
            still = (self._scores(self._shown(self.trained, self.rare)[2]) > 0).any(0)
            found["removed"] = float((~still).float().mean()) if len(still) else float("nan")
        return found

    def _figures(self, images: torch.Tensor, e: torch.Tensor) -> dict[str, float]:
        scores = self._scores(e)
        still, free = (scores > 0).any(0), ~self.shows
        change = (images - self.before).abs().mean((1, 2, 3))
        return {
            "removed": float((~still[self.shows]).float().mean()) if self.shows.any() else 1.0,
            "degree": self._degree(scores),
            "leak": float(still[free].float().mean()) if free.any() else 0.0,
            "unchanged": float((self._same(e) & ~still)[free].float().mean()),
            "drift": float(change[free].mean()) if free.any() else 0.0,
            "spread": float(images.std(0).mean() / self.before.std(0).mean().clamp(min=1e-8)),
        }
