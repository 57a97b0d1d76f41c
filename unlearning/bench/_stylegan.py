"""A generator of StyleGAN2's shape with random weights, to time steps on."""

from __future__ import annotations

__all__ = ["StyleShaped"]

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class StyleShaped(nn.Module):
    """Mapping, modulated convolutions, noise and skips to RGB, as in StyleGAN2.

    Parameters
    ----------
    side : int
        Of the images, a power of two.
    width : int
        Of latents, styles and of the widest layers; 512 as published.
    """

    output_range = (-1.0, 1.0)

    def __init__(self, side: int = 256, width: int = 512) -> None:
        super().__init__()
        self.z_dim = self.w_dim = width
        self.synthesis = _Synthesis(side, width)
        self.mapping = _Mapping(width, self.synthesis.num_ws)

    def forward(self, z: torch.Tensor, **options: Any) -> torch.Tensor:
        """Give images in [-1, 1]."""
        images: torch.Tensor = self.synthesis(self.mapping(z), **options)
        return images


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a layer that keeps the scale of what comes in, so that images differ by latent."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer


class _Mapping(nn.Module):
    def __init__(self, width: int, num_ws: int, layers: int = 8) -> None:
        super().__init__()
        self.num_ws = num_ws
        parts = [nn.Sequential(_linear(width, width), nn.LeakyReLU(0.2)) for _ in range(layers)]
        self.layers = nn.Sequential(*parts)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w: torch.Tensor = self.layers(functional.normalize(z, dim=1) * z.shape[1] ** 0.5)
        return w[:, None].repeat(1, self.num_ws, 1)


class _Modulated(nn.Module):
    """A convolution whose kernel a style scales, with noise; grouped, as published."""

    noise: torch.Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, side: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = _linear(w_dim, inputs)
        nn.init.ones_(self.affine.bias)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise", torch.randn(side, side))
        self.side, self.to_rgb = side, kernel == 1

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        kernels = self.weight[None] * self.affine(w)[:, None, :, None, None]
        if self.to_rgb:
            kernels = kernels / self.weight.shape[1] ** 0.5
        else:
            kernels = kernels * kernels.square().sum((2, 3, 4), keepdim=True).add(1e-8).rsqrt()
        if x.shape[-1] < self.side:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear")
        n = len(x)
        x = functional.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            kernels.flatten(0, 1),
            padding=kernels.shape[-1] // 2,
            groups=n,
        )
        x = x.view(n, -1, *x.shape[2:]) + self.bias[:, None, None]
        if self.to_rgb:
            return x
        return functional.leaky_relu(x + self.noise * self.strength, 0.2) * 2**0.5


class _Synthesis(nn.Module):
    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(width, 4, 4))
        self.convolutions, self.to_rgb = nn.ModuleList(), nn.ModuleList()
        at, channels = 4, width
        while at <= side:
            wide = min(width, max(16384 * width // 512 // at, 8))
            pair = [_Modulated(channels, wide, width, at)] if at > 4 else []
            pair.append(_Modulated(wide, wide, width, at))
            self.convolutions.append(nn.ModuleList(pair))
            self.to_rgb.append(_Modulated(wide, 3, width, at, kernel=1))
            at, channels = 2 * at, wide
        self.num_ws = 2 * len(self.convolutions)

    def forward(self, ws: torch.Tensor) -> torch.Tensor:
        x = self.const[None].expand(len(ws), -1, -1, -1)
        images: torch.Tensor | None = None
        at = 0
        for pair, to_rgb in zip(self.convolutions, self.to_rgb, strict=True):
            for layer in pair:  # type: ignore[attr-defined]
                x = layer(x, ws[:, at])
                at += 1
            seen = to_rgb(x, ws[:, at])
            if images is not None:
                seen = seen + functional.interpolate(images, scale_factor=2, mode="bilinear")
            images = seen
        return torch.tanh(images)  # type: ignore[arg-type]
