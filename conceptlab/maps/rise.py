"""RISE: correlation of a coefficient with what random masks leave visible.

Petsiuk, Das and Saenko, *RISE: Randomized Input Sampling for Explanation of
Black-box Models*, BMVC 2018, on concept coefficients in place of class scores.
"""

from __future__ import annotations

__all__ = ["random_masks", "rise_maps"]

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from conceptlab.errors import InputError


def rise_maps(
    code: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    n_masks: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    baseline: float = 0.0,
    centre: bool = True,
    batch_size: int = 32,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Average random masks, weighted by the coefficients of the masked images.

    Parameters
    ----------
    code : callable
        From images (n, 3, h, w) to coefficients (n, k), such as a :class:`CodeOf`.
    x : torch.Tensor of shape (n, channels, height, width)
        Images.
    n_masks : int
        Number of masks, the same for all images.
    cells : int
        Cells of the coarse grid along each side.
    keep : float
        Probability that a cell stays visible.
    baseline : float
        What hidden pixels become.
    centre : bool
        Subtract the mean coefficient first. The paper does not; the constant
        that it removes from each map says nothing about the place, and the
        maps become as sharp with fewer masks.
    batch_size : int
        Images in a pass.
    generator : torch.Generator, optional
        Source of the masks, on the CPU.

    Returns
    -------
    torch.Tensor of shape (n, k, height, width)
        Equation 6 of the paper, with the share of masks that keep each pixel in
        place of its expectation.
    """
    if n_masks < 2 or cells < 1 or not 0 < keep < 1:
        raise InputError(
            "n_masks >= 2, cells >= 1 and 0 < keep < 1 are needed, got "
            f"n_masks={n_masks}, cells={cells}, keep={keep}.",
            code="CL-INPUT-RANGE",
        )
    x = x.detach()
    height, width = x.shape[-2:]
    n = len(x)
    shape = (height, width)
    sums: torch.Tensor | None = None
    seen = torch.zeros(shape, dtype=torch.float64, device=x.device)
    plain = torch.zeros(n, 0)
    per_pass = max(batch_size // n, 1)
    with torch.no_grad():
        for start in range(0, n_masks, per_pass):
            count = min(per_pass, n_masks - start)
            masks = random_masks(count, shape, cells=cells, keep=keep, generator=generator).to(x)
            masked = baseline + (x[None] - baseline) * masks[:, None, None]
            flat = masked.reshape(count * n, *x.shape[1:])
            codes = torch.cat([code(part) for part in flat.split(batch_size)]).reshape(count, n, -1)
            codes = codes.double()
            if sums is None:
                k = codes.shape[-1]
                sums = torch.zeros((n, k, *shape), dtype=torch.float64, device=codes.device)
                plain = torch.zeros((n, k), dtype=torch.float64, device=codes.device)
            sums += torch.einsum("mnk,mhw->nkhw", codes, masks.double().to(codes.device))
            plain += codes.sum(0)
            seen += masks.double().sum(0)
        if sums is None:  # n_masks >= 2, so there was a pass
            raise InputError("No mask was drawn.", code="CL-INPUT-RANGE")
        share = seen.to(sums.device)
        if centre:
            sums -= (plain / n_masks)[:, :, None, None] * share
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        return (sums / share.clamp(min=1e-12)).to(dtype)


def random_masks(
    n: int,
    shape: tuple[int, int],
    *,
    cells: int = 7,
    keep: float = 0.5,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draw smooth masks: coarse random grids, enlarged and shifted.

    Returns
    -------
    torch.Tensor of shape (n, height, width), float32 in [0, 1]
        On the CPU; one mask after the other, so that the masks do not depend on
        how many are drawn at a time.
    """
    height, width = shape
    step_y, step_x = math.ceil(height / cells), math.ceil(width / cells)
    masks = torch.empty((n, height, width))
    for mask in masks:
        grid = (torch.rand((1, 1, cells + 1, cells + 1), generator=generator) < keep).float()
        large = functional.interpolate(
            grid,
            size=((cells + 1) * step_y, (cells + 1) * step_x),
            mode="bilinear",
            align_corners=False,
        )[0, 0]
        top = int(torch.randint(step_y, (1,), generator=generator))
        left = int(torch.randint(step_x, (1,), generator=generator))
        mask.copy_(large[top : top + height, left : left + width])
    return masks
