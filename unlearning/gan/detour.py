"""A generator with a way round a concept: latents whose image shows it are led elsewhere."""

from __future__ import annotations

__all__ = ["Detour", "ImageGate", "LatentShift", "with_detour"]

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.generators import Generator

_SIDE = 32  # pixels that the gate looks at


class ImageGate(nn.Module):
    """Three small convolutions that tell whether an image shows the concept.

    Examples
    --------
    >>> ImageGate()(torch.rand(2, 3, 28, 28)).shape
    torch.Size([2])
    """

    threshold: torch.Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()))
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, 64),
            nn.SiLU(),
            nn.Linear(64, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give log-odds that images in [0, 1], (n, 3, height, width), show the concept, (n,)."""
        if max(images.shape[2:]) > _SIDE:
            images = functional.interpolate(images, size=(_SIDE, _SIDE), mode="area")
        return self.body(4 * images - 2)[:, 0]

    def opens(self, images: torch.Tensor) -> torch.Tensor:
        """Tell which images show it, (n,) bool."""
        return self(images) > self.threshold


class LatentShift(nn.Module):
    """Latents to other latents, as far from the centre of their law as they were.

    Parameters
    ----------
    z : Tensor of shape (n, ...)
        Examples, for centre and scale.
    n_classes : int
        How many numbers at the end of each latent are its class, which stays.
    width : int
        Of the hidden layers.

    Examples
    --------
    >>> z = torch.randn(100, 8)
    >>> bool(torch.allclose(LatentShift(z)(z), z, atol=1e-5))  # before training
    True
    """

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, z: torch.Tensor, n_classes: int = 0, width: int = 256) -> None:
        super().__init__()
        self.n_classes = n_classes
        code = self._code(z)
        self.register_buffer("centre", code.mean(0))
        self.register_buffer("scale", (code - code.mean(0)).square().mean().sqrt() + 1e-8)
        self.body = perceptron(z[0].numel(), width, code.shape[1])
        last: Any = self.body[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Give shifted latents, (n, ...)."""
        seen = self.seen(z)
        before = seen[:, : seen.shape[1] - self.n_classes]
        after = before + self.body(seen)
        after = after * (before.norm(dim=1) / after.norm(dim=1).clamp(min=1e-8))[:, None]
        code = self.centre + self.scale * after
        if not self.n_classes:
            return code.view_as(z)
        return torch.cat([code, z[:, -self.n_classes :]], 1)

    def seen(self, z: torch.Tensor) -> torch.Tensor:
        """Give latents in units of the scale, flat, and their class as it is, (n, d)."""
        code = (self._code(z) - self.centre) / self.scale
        return torch.cat([code, z[:, -self.n_classes :]], 1) if self.n_classes else code

    def _code(self, z: torch.Tensor) -> torch.Tensor:
        return (z[:, : -self.n_classes] if self.n_classes else z).flatten(1)


class Detour(nn.Module):
    """A generator that looks at its images: where one shows the concept, its latent is shifted.

    Images that the gate lets pass are bit by bit what the generator gives. The others are made
    again from the shifted latent, and from the latent shifted once more where that does not help.

    Parameters
    ----------
    given : Generator
        Its module is the part ``module``, untouched.
    gate : ImageGate
    shift : LatentShift
    tries : int
        How often a latent is shifted at most.
    """

    def __init__(
        self, given: Generator, gate: ImageGate, shift: LatentShift, tries: int = 3
    ) -> None:
        super().__init__()
        self.module, self.gate, self.shift = given.module, gate, shift
        self.inner, self.tries = given, tries

    def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """Give images of latents in the generator's own range.

        Parameters
        ----------
        z : Tensor of shape (n, ...)
            With the class at the end, one-hot, or without.
        label : Tensor, optional
            The class where it is not in `z`.
        """
        if label is not None:
            if label.ndim == 1:
                label = functional.one_hot(label, self.inner.n_classes)
            z = torch.cat([z, label.to(z)], 1)
        pixels = self.inner.raw(self.inner.styles(z))
        rows = torch.arange(len(z), device=z.device)
        moved = z
        for _ in range(self.tries):
            still = self.gate.opens(self.inner.unit(pixels[rows]))
            rows, moved = rows[still], moved[still]
            if not len(rows):
                break
            moved = self.shift(moved)
            pixels = pixels.index_copy(0, rows, self.inner.raw(self.inner.styles(moved)))
        return pixels

    def led(self, z: torch.Tensor) -> torch.Tensor:
        """Give the latents whose images are given for latents, (n, ...)."""
        rows, found = torch.arange(len(z), device=z.device), z
        for _ in range(self.tries):
            rows = rows[self.gate.opens(self.inner.images(found[rows]))]
            if not len(rows):
                break
            found = found.index_copy(0, rows, self.shift(found[rows]))
        return found


def with_detour(given: Generator, gate: ImageGate, shift: LatentShift) -> Generator:
    """Give a generator of the same latents and range that goes round a concept.

    Parameters
    ----------
    given : Generator
        Copied.
    gate : ImageGate
    shift : LatentShift

    Returns
    -------
    Generator
    """
    module = Detour(given.fork(), gate, shift).eval()
    return Generator(module, latent=given.draw, output_range=given.output_range, n_classes=0)


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Make three dense layers."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, outputs),
    )
