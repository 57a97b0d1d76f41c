"""Removers without any package: nothing, mean fill, blur."""

from __future__ import annotations

__all__ = ["GaussianBlur", "MeanFill", "Nothing"]

import torch
from torch.nn import functional

from conceptlab.errors import InputError
from unlearning.removal.removers.base import Remover


class Nothing(Remover):
    """Leave everything as it is: the control that original-referenced scores like best.

    Attributes
    ----------
    name : str
        "nothing"

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    >>> bool((Nothing().remove(images, masks, 0) == images).all())
    True
    """

    name = "nothing"
    deterministic = True

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
        """Give the images back."""
        return images


class MeanFill(Remover):
    """Fill each hole with the mean colour of what is outside it.

    Attributes
    ----------
    name : str
        "mean_fill"

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> masks[..., 2:5, 2:5] = True
    >>> filled = MeanFill().remove(images, masks, 0)
    >>> bool(filled[0, 0, 2:5, 2:5].std() < 1e-6)
    True
    """

    name = "mean_fill"
    deterministic = True

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
        """Fill the holes."""
        outside = (~masks).to(images.dtype)
        colour = (images * outside).sum(dim=(2, 3), keepdim=True) / outside.sum(
            dim=(2, 3), keepdim=True
        )
        return torch.where(masks, colour, images)


class GaussianBlur(Remover):
    """Blur what is in the hole, object and all: a control that leaves a smear.

    Parameters
    ----------
    sigma : float
        Standard deviation in shares of the longer side.

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> masks[..., 2:5, 2:5] = True
    >>> GaussianBlur(sigma=0.1).remove(images, masks, 0).shape
    torch.Size([1, 3, 8, 8])
    """

    name = "blur"
    deterministic = True

    def __init__(self, sigma: float = 1 / 16) -> None:
        if not 0 < sigma <= 1:
            raise InputError(f"sigma must lie in (0, 1], got {sigma}.", code="CL-INPUT-RANGE")
        self.sigma = sigma
        self.version = f"1 {sigma}"

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
        """Blur the holes."""
        height, width = images.shape[-2:]
        spread = self.sigma * max(height, width)
        reach = min(int(3 * spread) + 1, height - 1, width - 1)
        at = torch.arange(-reach, reach + 1, dtype=images.dtype)
        line = torch.exp(-(at**2) / (2 * spread**2))
        line = (line / line.sum()).expand(3, 1, -1)
        x = functional.pad(images, (reach,) * 4, mode="reflect")
        x = functional.conv2d(x, line[:, :, :, None], groups=3)
        x = functional.conv2d(x, line[:, :, None, :], groups=3)
        return torch.where(masks, x.clamp(0, 1), images)
