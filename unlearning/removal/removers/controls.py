"""Controls of which the quality is known: the truth, noise upon it, another object."""

from __future__ import annotations

__all__ = ["NoisyOracle", "Oracle", "Swap"]

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from conceptlab.arrays import ArrayLike
from conceptlab.datasets.images import as_image_batch
from conceptlab.errors import InputError
from conceptlab.provenance import fingerprint
from unlearning.removal.masks import as_masks
from unlearning.removal.removers.base import Remover


class Oracle(Remover):
    """Paint the true removal into the hole: the best that can be had with that hole.

    Attributes
    ----------
    name : str
        "oracle"

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> without = torch.zeros(1, 3, 8, 8)  # the same place without the object
    >>> bool((Oracle().remove(images, masks, 0, without) == without).all())
    True
    """

    name = "oracle"
    deterministic = True
    needs_truth = True

    def remove(
        self, images: torch.Tensor, masks: torch.Tensor, seed: int, truth: ArrayLike | None = None
    ) -> torch.Tensor:
        """Give the truth."""
        return torch.as_tensor(truth)


class NoisyOracle(Remover):
    """Paint the true removal with noise upon it.

    Parameters
    ----------
    noise : float
        Standard deviation in units of the full range.

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> NoisyOracle(noise=0.1).remove(images, masks, 0, images).shape
    torch.Size([1, 3, 8, 8])
    """

    needs_truth = True
    deterministic = False

    def __init__(self, noise: float = 0.1) -> None:
        if not 0 <= noise <= 1:
            raise InputError(f"noise must lie in [0, 1], got {noise}.", code="CL-INPUT-RANGE")
        self.noise = noise
        self.name = f"oracle, noise {noise:g}"

    def remove(
        self, images: torch.Tensor, masks: torch.Tensor, seed: int, truth: ArrayLike | None = None
    ) -> torch.Tensor:
        """Give the truth with noise."""
        draws = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        return (torch.as_tensor(truth) + self.noise * draws).clamp(0, 1)


class Swap(Remover):
    """Put another object of the class into the hole: a perfect hallucination.

    Parameters
    ----------
    images : array-like of shape (m, 3, H, W), in [0, 1]
        Donors.
    masks : array-like of shape (m, 1, H, W), bool
        Their objects.

    Examples
    --------
    >>> images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    >>> masks[..., 2:5, 2:5] = True
    >>> Swap(images, masks).remove(images, masks, 0).shape
    torch.Size([2, 3, 8, 8])
    """

    name = "another object"
    deterministic = False

    def __init__(self, images: Any, masks: Any) -> None:
        self.images = as_image_batch(images)
        self.masks = as_masks(masks, like=self.images)
        self.version = fingerprint(self.images, self.masks.float())[:16]

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
        """Fit a donor's box into each hole's box."""
        out = images.clone()
        rng = np.random.default_rng(seed)
        for i in range(len(images)):
            donor = int(rng.integers(len(self.images)))
            top, left, bottom, right = box(self.masks[donor])
            patch = self.images[donor, :, top:bottom, left:right]
            top, left, bottom, right = box(masks[i])
            size = (bottom - top, right - left)
            fitted = functional.interpolate(
                patch[None], size=size, mode="bilinear", antialias=True, align_corners=False
            )[0]
            out[i, :, top:bottom, left:right] = fitted.clamp(0, 1)
        return torch.where(masks, out, images)


def box(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """Give top, left, bottom and right (exclusive) of what is true in a mask (1, H, W)."""
    rows = mask[0].any(dim=1).nonzero().flatten()
    columns = mask[0].any(dim=0).nonzero().flatten()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
