"""Weights at few bits: knowledge that was only pushed a little may come back."""

from __future__ import annotations

__all__ = ["quantise", "quantised_copy"]


import torch
from torch import nn

from conceptlab.arrays import ArrayKind
from conceptlab.errors import InputError
from conceptlab.models.session import model_copy

_OUTPUT_AXIS: dict[type, int] = {
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 1,
    nn.ConvTranspose3d: 1,
}
_KINDS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def quantise(weight: torch.Tensor, bits: int, *, axis: int = 0) -> torch.Tensor:
    """Round weights to symmetric integers of few bits with one scale for each output channel.

    Parameters
    ----------
    weight : torch.Tensor
        Of two axes or more.
    bits : int
        2 to 16.
    axis : int
        The axis of the output channels.

    Returns
    -------
    torch.Tensor
        ``scale * q`` with integers q in -(2^(bits-1) - 1) .. 2^(bits-1) - 1, the same shape
        and dtype.

    Notes
    -----
    scale = max |w| / (2^(bits-1) - 1) within a channel; halves round to even.

    References
    ----------
    Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018, with zero point 0; Zhang et al.,
    "Catastrophic failure of LLM unlearning via quantization", ICLR 2025.

    Examples
    --------
    >>> quantise(torch.tensor([[0.7, -0.24, 0.04]]), 4)
    tensor([[ 0.7000, -0.2000,  0.0000]])
    """
    if not 2 <= bits <= 16:
        raise InputError(f"bits must be 2 to 16, got {bits}.", code="CL-INPUT-RANGE")
    top = 2 ** (bits - 1) - 1
    others = [a for a in range(weight.ndim) if a != axis % weight.ndim]
    # In bfloat16 the division alone would move weights by a step.
    wide = weight.detach().to(ArrayKind.of(weight).compute_dtype)
    scale = wide.abs().amax(dim=others, keepdim=True) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (torch.clamp(torch.round(wide / scale), -top, top) * scale).to(weight.dtype)


def quantised_copy(model: nn.Module, bits: int) -> nn.Module:
    """Copy a model with the weights of its linear and convolution layers at few bits.

    Biases, norm layers and embeddings stay as they are; activations too.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    bits : int
        Usually 8 or 4.

    Returns
    -------
    torch.nn.Module

    Examples
    --------
    >>> small = quantised_copy(torch.nn.Linear(8, 2), 4)
    >>> int(small.weight.detach().unique().numel()) <= 2 * 15
    True
    """
    twin = model_copy(model)
    seen: set[int] = set()
    for module in twin.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, _KINDS) and isinstance(weight, torch.Tensor):
            if id(weight) in seen:  # shared between layers
                continue
            seen.add(id(weight))
            with torch.no_grad():
                weight.copy_(quantise(weight, bits, axis=_OUTPUT_AXIS.get(type(module), 0)))
    return twin
