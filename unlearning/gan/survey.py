"""A look at what a frozen generator shows."""

from __future__ import annotations

__all__ = ["Survey", "survey"]

from dataclasses import dataclass

import torch

from unlearning.gan.generators import Generator
from unlearning.gan.guide import Guide


@dataclass(frozen=True)
class Survey:
    """What a frozen generator shows.

    Attributes
    ----------
    z : Tensor of shape (n, ...)
    styles : Tensor of shape (n, ...)
    embeddings : Tensor of shape (n, d)
    """

    z: torch.Tensor
    styles: torch.Tensor
    embeddings: torch.Tensor

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: torch.Tensor | slice) -> Survey:
        return Survey(self.z[rows], self.styles[rows], self.embeddings[rows])


@torch.no_grad()
def survey(
    generator: Generator, guide: Guide, n: int, draws: torch.Generator, batch: int = 128
) -> Survey:
    """Draw latents and look at their images with the guide."""
    z = generator.draw(n, draws)
    styles = torch.cat([generator.styles(part) for part in z.split(batch)])
    found = [guide.embed(generator.images_of(part)) for part in styles.split(batch)]
    return Survey(z, styles, torch.cat(found))
