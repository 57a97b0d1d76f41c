"""Which parameters of a generator are trained."""

from __future__ import annotations

__all__ = ["sensitive_layers"]

from collections.abc import Sequence

import torch
from torch import nn

from conceptlab.errors import InputError, unknown_name


def sensitive_layers(
    module: nn.Module,
    loss: torch.Tensor,
    layers: str | Sequence[str],
    *,
    share: float = 0.98,
) -> dict[str, nn.Parameter]:
    """Choose the parameters to train.

    Parameters
    ----------
    module : torch.nn.Module
        The part of the generator that may change.
    loss : Tensor of shape ()
        Of a batch, still attached; its gradient tells how sensitive each layer is.
    layers : "auto", "all", or sequence of str
        "auto" takes the most sensitive layers (by norm of the gradient times norm of the
        weights) that hold `share` of the sum; names are of layers or of their parents.
    share : float

    Returns
    -------
    dict of str to Parameter

    Raises
    ------
    InputError
        An unknown layer (``CL-SPLIT-LAYER``), a loss that is not finite
        (``CL-INPUT-NONFINITE``), or one that no parameter changes.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if isinstance(layers, str) and layers == "all":
        return named
    if not isinstance(layers, str):
        chosen = {}
        for layer in layers:
            part = {n: p for n, p in named.items() if n == layer or n.startswith(f"{layer}.")}
            if not part:
                known = sorted({n.rpartition(".")[0] for n in named})
                raise unknown_name("layer", layer, known, code="CL-SPLIT-LAYER")
            chosen.update(part)
        return chosen
    if layers != "auto":
        raise unknown_name("choice of layers", layers, ["auto", "all"], hint="Or name layers.")
    if not bool(torch.isfinite(loss)):
        raise InputError(
            "The loss is not finite before the first step. Look at what the encoder, perceptual= "
            "and identity= give for images of this generator.",
            code="CL-INPUT-NONFINITE",
        )
    slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    felt: dict[str, float] = {}
    for (name, p), slope in zip(named.items(), slopes, strict=True):
        layer = name.rpartition(".")[0]
        if slope is not None:
            felt[layer] = felt.get(layer, 0.0) + float(slope.norm() * p.detach().norm())
    total = sum(felt.values())
    if not total > 0:
        raise InputError(
            "No parameter of the generator changes the loss. Is it detached inside the module?",
            code="CL-INPUT-TYPE",
        )
    kept, running = set(), 0.0
    for layer in sorted(felt, key=lambda name: -felt[name]):
        kept.add(layer)
        running += felt[layer]
        if running >= share * total:
            break
    return {n: p for n, p in named.items() if n.rpartition(".")[0] in kept}
