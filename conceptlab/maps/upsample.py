"""The plain map: coefficients of every position, resized to the image.

What the released code of CRAFT shows: U at each position of the layer by
non-negative least squares, enlarged.
"""

from __future__ import annotations

__all__ = ["enlarged", "upsample_maps"]

from typing import Any

import torch
from torch.nn import functional

from conceptlab.errors import InputError
from conceptlab.maps.coefficients import CodeOf


def upsample_maps(code: CodeOf, x: Any, size: tuple[int, ...] | None) -> torch.Tensor:
    """Compute coefficient maps.

    Parameters
    ----------
    code : CodeOf
        The coefficients.
    x : inputs of `split.g`
        A batch.
    size : tuple of int or None
        (height, width) of the images, (frames, height, width) of video; None for text.

    Returns
    -------
    torch.Tensor of shape (n, k, *size), or (n, tokens, k) for text
    """
    with torch.no_grad():
        positions = code.split.to_positions(code.split.g(x))
        return enlarged(code, code.at_positions(positions), size)


def enlarged(code: CodeOf, values: torch.Tensor, size: tuple[int, ...] | None) -> torch.Tensor:
    """Resize values (n, *positions, k) bilinearly, those of video trilinearly, to (n, k, *size)."""
    if size is None:
        if values.ndim != 3:
            raise _no_place(code, "")
        return values
    if len(size) == 3:
        if code.split.layout != "ncdhw":
            raise _no_place(code, ", or use level='input'")
        return functional.interpolate(
            values.movedim(-1, 1), size=size, mode="trilinear", align_corners=False
        )
    plane = code.split.spatial(values)
    if plane is None:
        raise _no_place(code, ", or use level='input', method='occlusion' or method='rise'")
    return functional.interpolate(
        plane.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False
    )


def _no_place(code: CodeOf, otherwise: str) -> InputError:
    return InputError(
        f"Layer {code.split.layer!r} (layout {code.split.layout!r}) has no positions on the "
        f"input's plane, so there is no map at the layer. Cut earlier{otherwise}.",
        code="CL-INPUT-OPTION",
    )
