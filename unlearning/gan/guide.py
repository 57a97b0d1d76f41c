"""What the encoder says of images: scores of texts, differentiable, with paired augmentation."""

from __future__ import annotations

__all__ = ["TEMPLATES", "Concept", "Guide"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from conceptlab.errors import InputError

TEMPLATES = ("a photo of a {} object", "a {} object", "a photo of a {}", "a picture of a {}", "{}")
"""Sentences around a target or an anchor that is no sentence itself."""


@dataclass(frozen=True)
class Concept:
    """One thing to forget, as vectors of texts.

    Attributes
    ----------
    name : str
        The target.
    anchor : str
        What it is told from; several texts are joined by " | ".
    target : Tensor of shape (d,)
    others : Tensor of shape (k, d)
        The anchor's texts.
    """

    name: str
    anchor: str
    target: torch.Tensor
    others: torch.Tensor

    def score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Give cosine to the target less that to the nearest anchor text, (n,)."""
        return embeddings @ self.target - (embeddings @ self.others.T).amax(dim=1)


class Guide:
    """An encoder as a differentiable guide.

    Parameters
    ----------
    encoder : Encoder
        With ``embed_image`` (all of ``conceptlab.encoders`` have it) and ``encode_text``.
    templates : sequence of str
        Put around texts of one or two words; see :data:`TEMPLATES`.
    device : str or torch.device, optional
        Where the vectors are given, such as that of a generator; the encoder's by default.
    """

    def __init__(
        self,
        encoder: Any,
        templates: Sequence[str] = TEMPLATES,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        if not callable(getattr(encoder, "embed_image", None)):
            raise InputError(
                f"{type(encoder).__name__} has no embed_image, so no gradient reaches an image. "
                "Wrap the model in conceptlab.encoders.CallableEncoder.",
                code="CL-INPUT-TYPE",
            )
        self.encoder, self.templates = encoder, tuple(templates)
        self.device = encoder.device if device is None else device
        scale = getattr(encoder, "logit_scale", None)
        self.scale = float(scale) if scale else 100.0

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images in [0, 1] to unit vectors (n, d), differentiably."""
        vectors: torch.Tensor = self.encoder.embed_image(images)
        return vectors.to(self.device)

    @torch.no_grad()
    def embed_all(self, images: torch.Tensor, batch: int = 128) -> torch.Tensor:
        """Encode many images without gradients, (n, d)."""
        return torch.cat([self.embed(part) for part in images.split(batch)])

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode texts to unit vectors (k, d); short ones within the templates."""
        rows = []
        for text in texts:
            short = len(text.split()) < 3
            found = self.encoder.encode_text([text], templates=self.templates if short else None)
            rows.append(np.asarray(found, dtype=np.float32)[0])
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def concept(self, target: str, anchor: Sequence[str]) -> Concept:
        """Put a target and its anchor texts into vectors."""
        vectors = self.texts([target, *anchor])
        return Concept(target, " | ".join(anchor), vectors[0], vectors[1:])

    def families(self, retain: Mapping[str, Sequence[str]]) -> dict[str, torch.Tensor]:
        """Encode the texts of retained attributes, a family at a time."""
        return {name: self.texts(list(values)) for name, values in retain.items()}

    def embed_pair(
        self, first: torch.Tensor, second: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode two batches of images after the same random shifts, scales and tints.

        Parameters
        ----------
        first, second : Tensor of shape (n, 3, height, width)
        generator : torch.Generator or None
            None leaves the images as they are.

        Returns
        -------
        tuple of two Tensors of shape (n, d)
        """
        if generator is not None:
            first, second = augment_pair(first, second, generator)
        with torch.set_grad_enabled(torch.is_grad_enabled() and second.requires_grad):
            still = self.embed(second)
        return self.embed(first), still


def augment_pair(
    first: torch.Tensor, second: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move, scale and tint two batches row by row in the same way.

    A guide that always sees the same view can be pleased by a pattern of pixels;
    a pattern seldom survives being moved by a part of a pixel.
    """
    n = len(first)
    draws = torch.rand(n, 5, generator=generator).to(first)
    scale = 0.92 + 0.16 * draws[:, 0]
    theta = torch.zeros(n, 2, 3, dtype=first.dtype, device=first.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2] = 0.12 * (draws[:, 1] - 0.5)
    theta[:, 1, 2] = 0.12 * (draws[:, 2] - 0.5)
    grid = functional.affine_grid(theta, list(first.shape), align_corners=False)
    bright = (0.94 + 0.12 * draws[:, 3])[:, None, None, None]
    moved = []
    for images in (first, second):
        seen = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        moved.append((seen * bright).clamp(0, 1))
    return moved[0], moved[1]
