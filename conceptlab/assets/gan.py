"""The embedded generator's architecture, its latent law, and the judge's."""

from __future__ import annotations

__all__ = ["SceneGenerator", "SceneJudge"]

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional


class _Mapping(nn.Module):
    """Latents to styles: a small perceptron, and the mean style for truncation."""

    w_avg: torch.Tensor

    def __init__(self, z_dim: int, w_dim: int, num_ws: int, layers: int) -> None:
        super().__init__()
        self.num_ws = num_ws
        widths = [z_dim] + [w_dim] * layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: torch.Tensor, truncation_psi: float = 1.0) -> torch.Tensor:
        w = z
        for index, layer in enumerate(self.layers):
            w = layer(w)
            if index + 1 < len(self.layers):
                w = functional.leaky_relu(w, 0.2)
        if truncation_psi != 1.0:
            w = self.w_avg.lerp(w, truncation_psi)
        return w[:, None].expand(-1, self.num_ws, -1)


class _StyledBlock(nn.Module):
    """A convolution whose normalised channels are scaled and shifted by the style."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=False)
        self.affine = nn.Linear(w_dim, 2 * outputs)
        nn.init.normal_(self.affine.weight, std=0.3 / w_dim**0.5)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if self.upsample:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.norm(self.conv(x))
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, dim=1)
        return functional.leaky_relu(x * (1 + scale) + shift, 0.2)


class _Synthesis(nn.Module):
    """Styles to images."""

    def __init__(self, w_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        inputs = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            _StyledBlock(a, b, w_dim, upsample=index > 0)
            for index, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        self.last = _StyledBlock(widths[-1], widths[-1], w_dim, upsample=False)
        self.to_rgb = nn.Conv2d(widths[-1], 3, 3, 1, 1)
        self.num_ws = len(widths) + 1

    def forward(self, ws: torch.Tensor) -> torch.Tensor:
        x = self.const.expand(len(ws), -1, -1, -1)
        for index, block in enumerate(self.blocks):
            x = block(x, ws[:, index])
        x = self.last(x, ws[:, -1])
        return torch.sigmoid(self.to_rgb(x))


class SceneGenerator(nn.Module):
    """Generator of 32x32 scenes of one object: mapping network and synthesis network.

    The latent is a Gaussian part beside a few one-hot codes: what a scene shows
    is discrete, and a map from a Gaussian alone would have to pass through blends.
    The codes are those of the scenes that it was warmed up on; the mapping network
    mixes all of it into one style.

    Parameters
    ----------
    gaussian : int
        Length of the Gaussian part of the latent.
    codes : sequence of int
        Number of values of each one-hot code.
    w_dim : int
        Length of a style.
    layers : int
        Layers of the mapping network.
    widths : sequence of int
        Channels at 4x4, 8x8, ...; the last is the resolution of the image.

    Attributes
    ----------
    z_dim, w_dim, num_ws, img_resolution : int
    output_range : tuple of float
        Of the pixels: (0, 1).
    mapping, synthesis : Module

    Examples
    --------
    >>> generator = SceneGenerator(widths=(8, 8, 8, 8)).eval()
    >>> z = generator.draw_latents(2, torch.Generator().manual_seed(0))
    >>> generator(z).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        gaussian: int = 19,
        codes: Sequence[int] = (4, 3, 2, 2, 2),
        w_dim: int = 64,
        layers: int = 3,
        widths: Sequence[int] = (96, 80, 48, 32),
    ) -> None:
        super().__init__()
        self.gaussian = gaussian
        self.codes = tuple(codes)
        self.z_dim = gaussian + sum(self.codes)
        self.w_dim = w_dim
        self.img_resolution = 4 * 2 ** (len(widths) - 1)
        self.output_range = (0.0, 1.0)
        self.synthesis = _Synthesis(w_dim, widths)
        self.num_ws = self.synthesis.num_ws
        self.mapping = _Mapping(self.z_dim, w_dim, self.num_ws, layers)

    def draw_latents(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw n latents from the law that the generator was trained with.

        Parameters
        ----------
        n : int
        generator : torch.Generator, optional
            On the CPU.

        Returns
        -------
        Tensor of shape (n, z_dim), float32
        """
        parts = [torch.randn(n, self.gaussian, generator=generator)]
        for values in self.codes:
            drawn = torch.randint(values, (n,), generator=generator)
            parts.append(functional.one_hot(drawn, values).float())
        return torch.cat(parts, dim=1)

    def forward(self, z: torch.Tensor, truncation_psi: float = 1.0) -> torch.Tensor:
        """Give images for latents.

        Parameters
        ----------
        z : Tensor of shape (n, z_dim)
        truncation_psi : float
            Styles are moved towards their mean by this factor; 1 leaves them.

        Returns
        -------
        Tensor of shape (n, 3, img_resolution, img_resolution), in [0, 1]
        """
        return self.synthesis(self.mapping(z, truncation_psi))


class SceneJudge(nn.Module):
    """Attribute classifier of the generator's scenes: separable convolutions, a head a family.

    It shares neither architecture nor labels, data or seed with the encoder that
    guides, and is never used in training a generator.

    Parameters
    ----------
    families : mapping of str to sequence of str
        Names of the values of each family.
    widths : sequence of int
        Channels of the four stages.

    Attributes
    ----------
    families : dict of str to tuple of str
    class_names : list of str
        All values, in the order of the outputs.

    Examples
    --------
    >>> judge = SceneJudge({"size": ("small", "large"), "colour": ("red", "blue")}).eval()
    >>> {name: p.shape[1] for name, p in judge.probabilities(torch.rand(4, 3, 32, 32)).items()}
    {'size': 2, 'colour': 2}
    """

    def __init__(
        self, families: Mapping[str, Sequence[str]], widths: Sequence[int] = (24, 48, 96, 128)
    ) -> None:
        super().__init__()
        self.families = {name: tuple(values) for name, values in families.items()}
        self.class_names = [value for values in self.families.values() for value in values]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1), nn.GroupNorm(4, widths[0]), nn.SiLU()
        )
        stages: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            stages += [
                nn.Conv2d(a, a, 5, 1, 2, groups=a, bias=False),
                nn.Conv2d(a, b, 1),
                nn.GroupNorm(4, b),
                nn.SiLU(),
                nn.AvgPool2d(2),
            ]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * 16, 128),
            nn.SiLU(),
            nn.Linear(128, len(self.class_names)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits of all values, families side by side.

        Parameters
        ----------
        x : Tensor of shape (n, 3, 32, 32), float in [0, 1]

        Returns
        -------
        Tensor of shape (n, n_values)
        """
        return self.head(self.stages(self.stem((x - 0.5) / 0.25)))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Give what enters the last layer, (n, 128), for distances between sets of images."""
        found: torch.Tensor = self.head[:3](self.stages(self.stem((x - 0.5) / 0.25)))
        return found

    def probabilities(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Give the probabilities of the values of each family.

        Parameters
        ----------
        x : Tensor of shape (n, 3, 32, 32), float in [0, 1]

        Returns
        -------
        dict of str to Tensor of shape (n, n_values of the family)
        """
        parts = self(x).split([len(values) for values in self.families.values()], dim=1)
        return {name: p.softmax(1) for name, p in zip(self.families, parts, strict=True)}
