"""Masks: what to remove, and how far beyond it."""

from __future__ import annotations

__all__ = ["MaskPolicy", "as_masks", "grow"]

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import real_array
from conceptlab.errors import InputError


@dataclass(frozen=True)
class MaskPolicy:
    """How an object's mask becomes the hole that a remover fills.

    A remover together with its policy is what is judged: a small hole leaves rests of
    the object, a large one asks for more to be invented.

    Parameters
    ----------
    dilation : int
        Pixels to grow by, in Euclidean distance; below 0 to shrink, which leaves a rim
        of the object on purpose.
    min_area, max_area : float
        Images are used whose objects cover between these shares of the picture, before
        growing.

    Examples
    --------
    >>> mask = np.zeros((1, 1, 9, 9), dtype=bool)
    >>> mask[..., 4, 4] = True
    >>> int(MaskPolicy(dilation=2)(mask).sum())
    13
    """

    dilation: int = 0
    min_area: float = 0.01
    max_area: float = 0.4

    def __post_init__(self) -> None:
        if isinstance(self.dilation, bool) or int(self.dilation) != self.dilation:
            raise InputError(
                f"dilation is a whole number of pixels, got {self.dilation!r}.",
                code="CL-INPUT-RANGE",
            )
        if not 0 <= self.min_area < self.max_area <= 1:
            raise InputError(
                "Areas are shares of the picture with 0 <= min_area < max_area <= 1, got "
                f"{self.min_area} and {self.max_area}.",
                code="CL-INPUT-RANGE",
            )

    def __call__(self, masks: Any) -> np.ndarray:
        """Give the holes for `masks`, (n, 1, H, W) bool."""
        return grow(as_masks(masks).cpu().numpy(), self.dilation)


def grow(masks: np.ndarray, pixels: int) -> np.ndarray:
    """Grow masks by so many pixels in Euclidean distance, or shrink them below 0.

    Parameters
    ----------
    masks : ndarray of shape (..., H, W), bool
        What to grow. A mask that would vanish by shrinking keeps its innermost pixels.
    pixels : int
        How far.

    Returns
    -------
    ndarray of the same shape, bool
    """
    from scipy.ndimage import distance_transform_edt

    if pixels == 0:
        return masks.copy()
    out = np.empty_like(masks)
    for place in np.ndindex(masks.shape[:-2]):
        mask = masks[place]
        if not mask.any() or mask.all():
            out[place] = mask
        elif pixels > 0:
            out[place] = distance_transform_edt(~mask) <= pixels
        else:
            inside = distance_transform_edt(mask)
            kept = inside > -pixels
            out[place] = kept if kept.any() else inside == inside.max()
    return out


def as_masks(masks: Any, *, like: torch.Tensor | None = None, name: str = "masks") -> torch.Tensor:
    """Check masks and give them as (n, 1, H, W) bool.

    Parameters
    ----------
    masks : array-like of shape (n, 1, H, W), (n, H, W) or (H, W)
        Booleans, or numbers that are 0 and one other value (0 and 1, 0 and 255).
    like : Tensor of shape (n, 3, H, W), optional
        Images that the masks belong to.
    name : str
        What messages call them.

    Returns
    -------
    Tensor of shape (n, 1, H, W), bool

    Raises
    ------
    InputError
        Another size or number than the images; grey values (``CL-INPUT-RANGE``).

    Examples
    --------
    >>> as_masks(np.eye(4) * 255).shape
    torch.Size([1, 1, 4, 4])
    """
    given = masks if isinstance(masks, torch.Tensor) else real_array(masks, name).copy()
    tensor = torch.as_tensor(given)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    if tensor.ndim != 4 or tensor.shape[1] != 1:
        raise InputError(
            f"{name} must have shape (n, 1, H, W), (n, H, W) or (H, W), got "
            f"{tuple(np.shape(masks))}.",
            code="CL-INPUT-RANK",
        )
    if like is not None and (
        tensor.shape[0] != like.shape[0] or tensor.shape[-2:] != like.shape[-2:]
    ):
        raise InputError(
            f"{name} are {tensor.shape[0]} of {tuple(tensor.shape[-2:])} pixels, the images "
            f"{like.shape[0]} of {tuple(like.shape[-2:])} (height, width). Resize masks as the "
            "images, by nearest neighbour.",
            code="CL-INPUT-SHAPE",
        )
    if tensor.dtype == torch.bool:
        return tensor
    high = tensor.max()
    if bool(((tensor != 0) & (tensor != high)).any()) or float(tensor.min()) < 0:
        raise InputError(
            f"{name} hold grey values; a pixel belongs to the hole or it does not. Give "
            "masks > 0.5, or whatever threshold is right.",
            code="CL-INPUT-RANGE",
        )
    return tensor != 0


def check_holes(holes: torch.Tensor, names: list[str] | None = None) -> None:
    """Refuse holes that are empty, or leave nothing of the picture.

    Raises
    ------
    InputError
        ``CL-INPUT-EMPTY`` with the first such image.
    """
    share = holes.float().mean(dim=(1, 2, 3))
    for bad, what in ((share == 0, "is empty"), (share == 1, "covers the whole picture")):
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            label = names[first] if names else f"number {first}"
            raise InputError(
                f"The mask of image {label} {what}: there is nothing to "
                f"{'remove' if what == 'is empty' else 'fill it from'}. Leave the image out, or "
                "change the mask policy.",
                code="CL-INPUT-EMPTY",
            )
