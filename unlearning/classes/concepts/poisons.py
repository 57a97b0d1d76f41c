"""Poisoned images: a window masked, or a patch of a donor class pasted over it."""

from __future__ import annotations

__all__ = ["FILLS", "PLACES", "POISONS", "blur", "mask_windows", "paste_windows", "window_size"]

import math

import torch
from torch.nn import functional

from conceptlab.errors import InputError, unknown_name

POISONS = ("none", "mask", "donor")
FILLS = ("blur", "mean")
PLACES = ("located", "centre", "random", "full")


def window_size(images: torch.Tensor, patch_size: float | int) -> tuple[int, int]:
    """Give the height and width of a window.

    Parameters
    ----------
    images : torch.Tensor of shape (n, c, h, w)
        For their size.
    patch_size : float in (0, 1] or int
        Share of either side, or pixels.

    Returns
    -------
    (int, int)

    Examples
    --------
    >>> window_size(torch.zeros(1, 3, 32, 64), 0.25)
    (8, 16)
    """
    h, w = images.shape[2:]
    if isinstance(patch_size, float):
        return max(1, round(patch_size * h)), max(1, round(patch_size * w))
    if patch_size > min(h, w):
        raise InputError(
            f"patch_size={patch_size} does not fit into images of {h}x{w} pixels. Use a smaller "
            "one, or a share such as 0.3.",
            code="CL-INPUT-RANGE",
        )
    return int(patch_size), int(patch_size)


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur images by a Gaussian of `sigma` pixels, borders reflected.

    Parameters
    ----------
    images : torch.Tensor of shape (n, c, h, w)
        The images.
    sigma : float
        Above 0.

    Returns
    -------
    torch.Tensor of shape (n, c, h, w)
    """
    h, w = images.shape[2:]
    radius = min(max(1, math.ceil(3 * sigma)), h - 1, w - 1)
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    c = images.shape[1]
    padded = functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)


def mask_windows(
    images: torch.Tensor,
    corners: torch.Tensor,
    size: tuple[int, int],
    *,
    fill: str = "blur",
    mean: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cover a window of each image.

    Parameters
    ----------
    images : torch.Tensor of shape (n, c, h, w)
        The images.
    corners : torch.Tensor of shape (n, 2)
        Top row and left column of each window.
    size : (int, int)
        Height and width.
    fill : {"blur", "mean"}
        The image blurred by half of the window's side, or one colour.
    mean : torch.Tensor of shape (c,), optional
        The colour; by default each image's own mean.

    Returns
    -------
    torch.Tensor of shape (n, c, h, w)

    Examples
    --------
    >>> out = mask_windows(torch.ones(1, 1, 4, 4), torch.tensor([[1, 1]]), (2, 2), fill="mean",
    ...                    mean=torch.zeros(1))
    >>> float(out.sum()), float(out[0, 0, 1:3, 1:3].sum())
    (12.0, 0.0)
    """
    if fill not in FILLS:
        raise unknown_name("fill", fill, FILLS)
    if fill == "blur":
        cover = blur(images, max(size) / 2)
    elif mean is None:
        cover = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    else:
        cover = mean.to(images).view(1, -1, 1, 1).expand_as(images)
    return torch.where(_inside(images, corners, size), cover, images)


def paste_windows(
    images: torch.Tensor,
    corners: torch.Tensor,
    donors: torch.Tensor,
    donor_corners: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """Paste a window of a donor image over a window of each image.

    Parameters
    ----------
    images : torch.Tensor of shape (n, c, h, w)
        What is pasted over.
    corners : torch.Tensor of shape (n, 2)
        Top row and left column in the images.
    donors : torch.Tensor of shape (n, c, h, w)
        One donor for each image.
    donor_corners : torch.Tensor of shape (n, 2)
        Top row and left column in the donors.
    size : (int, int)
        Height and width of both windows.

    Returns
    -------
    torch.Tensor of shape (n, c, h, w)

    Examples
    --------
    >>> out = paste_windows(torch.zeros(1, 1, 4, 4), torch.tensor([[0, 2]]),
    ...                     torch.ones(1, 1, 4, 4), torch.tensor([[2, 0]]), (2, 2))
    >>> out[0, 0].tolist()[0]
    [0.0, 0.0, 1.0, 1.0]
    """
    out = images.clone()
    for i, ((top, left), (d_top, d_left)) in enumerate(
        zip(corners.tolist(), donor_corners.tolist(), strict=True)
    ):
        patch = donors[i, :, d_top : d_top + size[0], d_left : d_left + size[1]]
        out[i, :, top : top + size[0], left : left + size[1]] = patch
    return out


def _inside(images: torch.Tensor, corners: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    h, w = images.shape[2:]
    top, left = (corners[:, i].to(images.device).view(-1, 1) for i in (0, 1))
    rows, columns = (torch.arange(n, device=images.device) for n in (h, w))
    vertical = (rows >= top) & (rows < top + size[0])
    horizontal = (columns >= left) & (columns < left + size[1])
    return (vertical[:, :, None] & horizontal[:, None, :])[:, None]
