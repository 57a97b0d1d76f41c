"""A standard form of networks, in which an attacker's steps do not depend on units.

Gradient descent is not indifferent to how a function is parametrised: hidden units times ten and
the next layer over ten are the same function, and learn at another speed. Here a layer's
weights are written in coordinates in which each unit that enters it, and each that leaves it, has
variance 1.
"""

from __future__ import annotations

__all__ = ["standard_copy"]

import contextlib
import threading
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from unlearning.audit.reading import borrowed_copy, device_of, moved
from unlearning.data import Samples
from unlearning.heads import run_model

_LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONSTANT = 1e-6
"""Standard deviation of a unit, in units of its largest value, that is rounding."""


class _Standard(nn.Module):
    """Weights W = rest + V out / in, with V the trained coordinates.

    Parameters
    ----------
    ratio : torch.Tensor of the shape of the weights, 1 for further axes
        Standard deviation of each unit that leaves over that of each that enters; 0 where one of
        them is constant.
    weight : torch.Tensor
        The weights; what the coordinates cannot reach stays as it is.
    """

    ratio: torch.Tensor
    rest: torch.Tensor

    def __init__(self, ratio: torch.Tensor, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("ratio", ratio)
        self.register_buffer("rest", torch.where(ratio > 0, 0.0, weight))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Give the weights."""
        return self.rest + values * self.ratio

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Give the coordinates."""
        return torch.where(self.ratio > 0, weight / self.ratio, 0.0)


def standard_copy(model: nn.Module, *samples: Samples, n_samples: int = 256) -> nn.Module:
    """Copy a model in standard form: the same function, open to training.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    *samples : Samples
        On which units are measured.
    n_samples : int
        The first so many of each are used.

    Returns
    -------
    torch.nn.Module
        Weights of linear layers and convolutions are trained in coordinates that no gain and
        no order of hidden units changes; biases but the last layer's, and norm layers, are
        fixed. Layers whose weights are shared or that are not called as modules stay as they
        are.

    Examples
    --------
    >>> from unlearning import as_samples
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> samples = as_samples((torch.rand(20, 3), [0, 1] * 10))
    >>> twin = standard_copy(model, samples)
    >>> torch.allclose(twin(samples.inputs), model(samples.inputs), atol=1e-4)
    True
    """
    twin = borrowed_copy(model)
    owners = Counter(id(weight) for module in twin.modules() for weight in module.parameters(False))
    layers: dict[str, Any] = {
        name: module
        for name, module in twin.named_modules()
        if isinstance(module, _LAYERS)
        and owners[id(module.weight)] == 1
        and getattr(module, "groups", 1) == 1
        and not parametrize.is_parametrized(module)
    }
    few = [part.select(torch.arange(min(n_samples, len(part)))) for part in samples]
    spreads = _spreads(twin, layers, few)
    last = next(reversed(spreads), None)
    for module in twin.modules():
        for name, weight in module.named_parameters(recurse=False):
            weight.requires_grad_(weight.is_floating_point() and weight.ndim > 1)
            if last is not None and module is layers[last] and name == "bias":
                weight.requires_grad_(True)
    for name, (enter, out) in spreads.items():
        layer = layers[name]
        weight = layer.weight.detach()
        ratio = torch.where(enter > 0, out[:, None] / enter, 0.0)
        ratio = ratio.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2)).to(weight)
        form = _Standard(ratio, weight)
        parametrize.register_parametrization(layer, "weight", form)
    return twin


def _spreads(
    model: nn.Module, layers: dict[str, Any], samples: list[Samples]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Measure the spread of what enters and leaves each layer, in the order of running."""
    sums: dict[str, list[Any]] = {}
    owner = threading.get_ident()

    def look(name: str) -> Any:
        def keep(layer: nn.Module, args: Any, answer: Any) -> None:
            if threading.get_ident() != owner:
                return
            axis = -1 if isinstance(layer, nn.Linear) else 1
            found: list[Any] = []
            for x in (args[0], answer):
                rows = x.movedim(axis, -1).flatten(0, -2).double()
                found += [len(rows), rows.sum(dim=0), (rows**2).sum(dim=0)]
            old = sums.pop(name, None)  # the last to run stands last
            sums[name] = found if old is None else [a + b for a, b in zip(old, found, strict=True)]

        return keep

    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(look(name)).remove)
        for part in samples:
            run_model(model, moved(part.inputs, device_of(model)))
    return {name: (_spread(*found[:3]), _spread(*found[3:])) for name, found in sums.items()}


def _spread(n: int, total: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """Give standard deviations, 0 where they are rounding."""
    deviation = (square / n - (total / n) ** 2).clamp_min(0).sqrt()
    return torch.where(deviation > _CONSTANT * (square / n).sqrt(), deviation, 0.0)
