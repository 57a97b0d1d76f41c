"""What may go into a split model."""

from __future__ import annotations

__all__ = ["changed", "checked_images", "to_inputs"]

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import as_tensor
from conceptlab.errors import InputError
from conceptlab.models.session import Inputs


def to_inputs(x: Any, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Read a user's inputs and put them on `device`, floats in `dtype`."""
    if not isinstance(x, torch.Tensor | np.ndarray | Mapping | list | tuple | Inputs):
        raise InputError(
            "Inputs must be a tensor, an array, or a dict of tensors (for text), got "
            f"{type(x).__name__}.",
            code="CL-INPUT-TYPE",
        )
    if isinstance(x, np.ndarray):
        x = as_tensor(x)
    if isinstance(x, torch.Tensor):
        x = checked_images(x)
    inputs = x if isinstance(x, Inputs) else Inputs.of(x)
    if not inputs.tensors():
        raise InputError(
            f"Inputs hold no tensor, got {type(x).__name__}. Give images as one array "
            "(n, 3, H, W), or text as a dict of tensors.",
            code="CL-INPUT-TYPE",
        )
    if not inputs.batch_size:
        raise InputError("Inputs are empty: give at least one.", code="CL-INPUT-EMPTY")
    return inputs.map(lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype))


def checked_images(x: torch.Tensor) -> torch.Tensor:
    """Refuse what looks like images in another layout or type."""
    if x.ndim == 3 and x.shape[0] in (1, 3) and min(x.shape[1:]) > 16 and x.is_floating_point():
        raise InputError(
            f"Images must be a batch (n, 3, H, W), got one image of shape {tuple(x.shape)}. "
            "Add the axis: x[None].",
            code="CL-INPUT-RANK",
        )
    if x.ndim != 4:
        return x
    if x.shape[-1] in (1, 3, 4) and x.shape[1] > 16:
        raise InputError(
            f"Images must be channels first (n, 3, H, W), got {tuple(x.shape)}, which looks like "
            "channels last. Use x.transpose(0, 3, 1, 2), or x.permute(0, 3, 1, 2) for tensors.",
            code="CL-INPUT-LAYOUT",
        )
    if not x.is_floating_point():
        raise InputError(
            f"Images must be floats, got {x.dtype}. Divide 8-bit images by 255, or use "
            "conceptlab.datasets.images.as_image_batch.",
            code="CL-INPUT-TYPE",
        )
    return x


def changed(tensor: torch.Tensor) -> torch.Tensor:
    """Make another input of the same kind: images mirrored and dimmed, texts in turn or backwards.

    What is the same for both, such as the mean of an image that is only mirrored, would go
    round a layer unseen.
    """
    if tensor.is_floating_point() and tensor.ndim > 2:
        return tensor.flip(-1) / 2
    if tensor.is_floating_point() or len(tensor) < 2:
        return tensor.flip(-1)
    return tensor.roll(1, dims=0)
