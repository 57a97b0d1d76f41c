"""Distances to the true removal, where there is one: PSNR, SSIM, LPIPS."""

from __future__ import annotations

__all__ = ["Lpips", "averaged", "psnr", "ssim"]

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.datasets.images import as_image_batch
from conceptlab.encoders.shadow import shadow
from conceptlab.errors import CheckpointError, InputError, unknown_name
from conceptlab.io.reading import file_digest
from conceptlab.models.load import load_state_dict
from conceptlab.seeds import quiet_randomness
from unlearning.removal.masks import as_masks

_SIDE, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def psnr(images: Any, truth: Any, masks: Any = None) -> np.ndarray:
    """Compute the peak signal-to-noise ratio of each image in decibels.

    Parameters
    ----------
    images, truth : array-like of shape (n, 3, H, W), in [0, 1]
        What a remover gave, and what is right.
    masks : array-like of shape (n, 1, H, W), bool, optional
        Where to compare; everywhere by default. Over the whole image the score is
        ruled by pixels that nobody touched.

    Returns
    -------
    ndarray of shape (n,), float64
        -10 log10 of the mean squared error; infinite for equal images, NaN where a
        mask is empty.

    Raises
    ------
    InputError
        Shapes that differ, or values outside [0, 1].

    Examples
    --------
    >>> images = np.full((1, 3, 16, 16), 0.5, dtype=np.float32)
    >>> psnr(images, images + 0.1).round(2)
    array([20.])
    """
    first, second, where = _pair(images, truth, masks)
    squares = (first - second).double().square()
    if where is None:
        error = squares.mean(dim=(1, 2, 3))
    else:
        weight = where.double()
        error = (squares * weight).sum(dim=(1, 2, 3)) / (3 * weight.sum(dim=(1, 2, 3)))
    return as_numpy(-10 * torch.log10(error))


def ssim(images: Any, truth: Any, masks: Any = None) -> np.ndarray:
    """Compute the structural similarity of each image.

    Parameters
    ----------
    images, truth : array-like of shape (n, 3, H, W), in [0, 1]
        What a remover gave, and what is right; sides of at least 11 pixels.
    masks : array-like of shape (n, 1, H, W), bool, optional
        Where the local similarity is averaged; everywhere by default.

    Returns
    -------
    ndarray of shape (n,), float64
        At most 1; NaN where a mask is empty.

    Raises
    ------
    InputError
        Shapes that differ, images below 11 pixels, or values outside [0, 1].

    Notes
    -----
    Wang et al. 2004: Gaussian window of 11 × 11 and standard deviation 1.5, K1 = 0.01,
    K2 = 0.03, mean over channels; borders are reflected.

    Examples
    --------
    >>> images = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    >>> ssim(images, images).round(6)
    array([1., 1.])
    """
    first, second, where = _pair(images, truth, masks)
    return averaged(ssim_map(first, second), where)


def ssim_map(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Give the local similarity of images (n, 3, H, W), in float64."""
    if min(first.shape[-2:]) < _SIDE:
        raise InputError(
            f"SSIM needs images of {_SIDE} × {_SIDE} pixels, got {tuple(first.shape[-2:])}.",
            code="CL-INPUT-SHAPE",
        )
    X, Y = first.double(), second.double()
    mx, my = _blur(X), _blur(Y)
    vx, vy, cov = _blur(X * X) - mx * mx, _blur(Y * Y) - my * my, _blur(X * Y) - mx * my
    c1, c2 = _K1**2, _K2**2
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def averaged(local: torch.Tensor, where: torch.Tensor | None) -> np.ndarray:
    """Average a local score (n, 3, H, W) over masks (n, 1, H, W), or everywhere: (n,)."""
    if where is None:
        return as_numpy(local.mean(dim=(1, 2, 3)))
    weight = where.double()
    return as_numpy((local * weight).sum(dim=(1, 2, 3)) / (3 * weight.sum(dim=(1, 2, 3))))


def _blur(x: torch.Tensor) -> torch.Tensor:
    # SciPy's lines are several times as fast as torch's grouped convolution in float64.
    from scipy.ndimage import correlate1d

    at = np.arange(_SIDE) - _SIDE // 2
    line = np.exp(-(at**2) / (2 * _SIGMA**2))
    line /= line.sum()
    found = correlate1d(x.cpu().numpy(), line, axis=-1, mode="mirror")
    return torch.from_numpy(correlate1d(found, line, axis=-2, mode="mirror")).to(x.device)


def _pair(
    images: Any, truth: ArrayLike, masks: ArrayLike
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    first, second = as_image_batch(images), as_image_batch(truth)
    if first.shape != second.shape:
        raise InputError(
            f"images have shape {tuple(first.shape)}, the truth {tuple(second.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    where = None if masks is None else as_masks(masks, like=first).to(first.device)
    return first, second.to(first.device), where


class Lpips(nn.Module):
    """Learned perceptual distance, from weight files that you have.

    Parameters
    ----------
    features : torch.nn.Module
        ``.features`` of torchvision's AlexNet or VGG16, with its weights.
    weights : sequence of Tensor
        One learned weight vector for each layer.
    net : {"alex", "vgg"}
        Which network.
    tag : str
        Names the weights in reports.

    Notes
    -----
    Zhang et al. 2018, eq. 1: sum over layers of the spatial mean of the weighted squared
    difference of channel-normalised features. Inputs in [0, 1] are normalised inside.

    Examples
    --------
    >>> distance = Lpips.from_files("alexnet.pth", "alex.pth", net="alex")  # doctest: +SKIP
    >>> distance(images, truth)  # doctest: +SKIP
    array([0.12, 0.31])
    """

    LAYERS: ClassVar[dict[str, tuple[int, ...]]] = {
        "alex": (1, 4, 7, 9, 11),
        "vgg": (3, 8, 15, 22, 29),
    }
    _SHIFT = (-0.030, -0.088, -0.188)
    _SCALE = (0.458, 0.448, 0.450)

    def __init__(
        self, features: nn.Module, weights: list[torch.Tensor], *, net: str, tag: str = ""
    ) -> None:
        super().__init__()
        if net not in self.LAYERS:
            raise unknown_name("network", net, self.LAYERS)
        if len(weights) != len(self.LAYERS[net]):
            raise InputError(
                f"{net} needs {len(self.LAYERS[net])} weight vectors, got {len(weights)}.",
                code="CL-INPUT-SHAPE",
            )
        self.net, self.tag = net, tag
        self.features = shadow(features)
        self.linear = nn.ParameterList(
            [nn.Parameter(w.detach().flatten().float(), requires_grad=False) for w in weights]
        )

    @classmethod
    def from_files(
        cls, backbone: str | os.PathLike[str], linear: str | os.PathLike[str], *, net: str = "alex"
    ) -> Lpips:
        """Read a network of torchvision and the published linear weights.

        Parameters
        ----------
        backbone : path-like
            State dict of ``torchvision.models.alexnet`` or ``vgg16``.
        linear : path-like
            State dict of the linear layers, such as ``alex.pth`` of LPIPS 0.1.
        net : {"alex", "vgg"}
            Which network.

        Returns
        -------
        Lpips

        Raises
        ------
        CheckpointError
            If a file is missing or does not fit.
        """
        from torchvision import models

        if net not in cls.LAYERS:
            raise unknown_name("network", net, cls.LAYERS)
        with quiet_randomness():  # weights are drawn before those of the file come
            model = {"alex": models.alexnet, "vgg": models.vgg16}[net](weights=None)
        state, digest = _state(backbone)
        lines, line_digest = _state(linear)
        try:
            model.load_state_dict(state)
            weights = [lines[f"lin{i}.model.1.weight"] for i in range(len(cls.LAYERS[net]))]
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{backbone} or {linear} does not fit {net}: {str(error)[:200]}",
                code="CL-CHECKPOINT-KIND",
            ) from error
        return cls(model.features, weights, net=net, tag=f"{net} {digest[:8]}+{line_digest[:8]}")

    def forward(self, images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Compute the distance of each pair of images (n, 3, H, W) in [0, 1]: (n,)."""
        means = [part.mean(dim=(1, 2)) for part in self._differences(images, truth)]
        return torch.stack(means).sum(dim=0).to(images.dtype)

    def inside(self, images: torch.Tensor, truth: torch.Tensor, masks: ArrayLike) -> torch.Tensor:
        """Average the distance over masks, layer by layer scaled up to the image.

        Parameters
        ----------
        images, truth : Tensor of shape (n, 3, H, W), in [0, 1]
            What a remover gave, and what is right.
        masks : array-like of shape (n, 1, H, W), bool
            Where to look.

        Returns
        -------
        Tensor of shape (n,)
            NaN where a mask is empty.
        """
        where = as_masks(masks, like=images)[:, 0].to(images.device)
        size = tuple(images.shape[-2:])
        local = torch.stack(
            [
                functional.interpolate(part[:, None], size, mode="bilinear", align_corners=False)
                for part in self._differences(images, truth)
            ]
        ).sum(dim=0)[:, 0]
        inside = (local * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2))
        return inside.to(images.dtype)

    def _differences(self, images: torch.Tensor, truth: torch.Tensor) -> Iterator[torch.Tensor]:
        """Give each layer's weighted squared difference at its positions, (n, h, w)."""
        dtype = self.linear[0].dtype
        for first, second, weight in zip(
            self._maps(images.to(dtype)), self._maps(truth.to(dtype)), self.linear, strict=True
        ):
            yield ((first - second).square() * weight[:, None, None]).sum(dim=1)

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        shift = images.new_tensor(self._SHIFT)[:, None, None]
        scale = images.new_tensor(self._SCALE)[:, None, None]
        x = (2 * images - 1 - shift) / scale
        found = []
        layers: Any = self.features
        for number, layer in enumerate(layers):
            # An in-place ReLU would change the map that was kept.
            x = functional.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if number in self.LAYERS[self.net]:
                length = x.square().sum(dim=1, keepdim=True).sqrt()
                found.append(x / (length + 1e-10))
        return found


def _state(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], str]:
    return load_state_dict(path), file_digest(path)
