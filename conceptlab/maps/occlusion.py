"""Occlusion: how much a coefficient falls when a square is covered.

Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV
2014, on concept coefficients in place of class scores.
"""

from __future__ import annotations

__all__ = ["occlusion_maps"]

from collections.abc import Callable

import torch

from conceptlab.errors import InputError


def occlusion_maps(
    code: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: float | None = None,
    batch_size: int = 32,
) -> torch.Tensor:
    """Cover squares of each image in turn and note the fall of every coefficient.

    Parameters
    ----------
    code : callable
        From images (n, 3, h, w) to coefficients (n, k), such as a :class:`CodeOf`.
    x : torch.Tensor of shape (n, channels, height, width)
        Images.
    window : int, optional
        Side of the square in pixels; a quarter of the shorter side by default.
    stride : int, optional
        Step in pixels; half the window by default. The last square ends at the
        edge, so that every pixel is covered.
    baseline : float, optional
        What the square is filled with; by default the mean colour of each image.
    batch_size : int
        Images in a pass.

    Returns
    -------
    torch.Tensor of shape (n, k, height, width)
        At each pixel the mean of u_k(x) − u_k(x without the square) over the
        squares that cover it; negative where the content works against the
        concept.
    """
    height, width = x.shape[-2:]
    side = max(min(height, width) // 4, 1) if window is None else window
    step = max(side // 2, 1) if stride is None else stride
    if not 1 <= side <= min(height, width) or step < 1 or step > side:
        raise InputError(
            f"window must lie between 1 and {min(height, width)} and stride between 1 and the "
            f"window, got window={side}, stride={step}.",
            code="CL-INPUT-RANGE",
        )
    places = [
        (top, left) for top in _starts(height, side, step) for left in _starts(width, side, step)
    ]
    x = x.detach()
    maps, counts = None, torch.zeros(height, width, dtype=x.dtype, device=x.device)
    filling = (
        x.mean((2, 3), keepdim=True)
        if baseline is None
        else torch.full_like(x[:, :, :1, :1], baseline)
    )
    with torch.no_grad():
        whole = torch.cat([code(part) for part in x.split(batch_size)])
        jobs = [(place, image) for place in range(len(places)) for image in range(len(x))]
        maps = torch.zeros((*whole.shape, height, width), dtype=whole.dtype, device=whole.device)
        for start in range(0, len(jobs), batch_size):
            chunk = jobs[start : start + batch_size]
            images = torch.as_tensor([image for _, image in chunk], device=x.device)
            covered = x[images].clone()
            for row, (place, image) in enumerate(chunk):
                top, left = places[place]
                covered[row, :, top : top + side, left : left + side] = filling[image]
            fall = whole[images.to(whole.device)] - code(covered)
            for row, (place, image) in enumerate(chunk):
                top, left = places[place]
                maps[image, :, top : top + side, left : left + side] += fall[row, :, None, None]
        for top, left in places:
            counts[top : top + side, left : left + side] += 1
        return maps / counts.to(maps)


def _starts(length: int, side: int, step: int) -> list[int]:
    starts = list(range(0, length - side + 1, step))
    return starts if starts[-1] == length - side else [*starts, length - side]
