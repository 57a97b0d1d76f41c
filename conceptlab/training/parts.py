"""What a run is made of: named parts, each with a state that can be noted and put back."""

from __future__ import annotations

__all__ = [
    "GlobalRandomness",
    "Part",
    "Tensors",
    "all_finite",
    "load_states",
    "outside_tensors",
    "states",
]

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from conceptlab.io.trees import clone_state


@runtime_checkable
class Stateful(Protocol):
    """Anything with ``state_dict`` and ``load_state_dict``: modules, optimisers, own classes."""

    def state_dict(self) -> Any:
        """Give the state, as nested dicts and lists of tensors and JSON values."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take it back."""


Part = Stateful | torch.Generator | np.random.Generator
"""One part of a run's state."""


class Tensors:
    """Tensors without a module, such as some of a model's parameters or learnt noise.

    Parameters
    ----------
    tensors : iterable of Tensor
        Changed in place when a state is put back.

    Examples
    --------
    >>> weights = torch.zeros(2)
    >>> part = Tensors([weights])
    >>> kept = states({"weights": part})
    >>> _ = weights.fill_(5.0)
    >>> load_states({"weights": part}, kept)
    >>> weights
    tensor([0., 0.])
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self.tensors = list(tensors)

    def state_dict(self) -> list[torch.Tensor]:
        """Give the tensors, detached."""
        return [tensor.detach() for tensor in self.tensors]

    def load_state_dict(self, state: list[torch.Tensor]) -> None:
        """Copy values of equal shapes into the tensors."""
        with torch.no_grad():
            for tensor, value in zip(self.tensors, state, strict=True):
                tensor.copy_(value)


class GlobalRandomness:
    """torch's global generator of a device: what dropout draws from.

    Parameters
    ----------
    device : torch.device or str
        "cpu" or a CUDA device.

    Examples
    --------
    >>> part = GlobalRandomness()
    >>> kept = part.state_dict()
    >>> first = torch.rand(2)
    >>> part.load_state_dict(kept)
    >>> torch.equal(torch.rand(2), first)
    True
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def state_dict(self) -> torch.Tensor:
        """Give the generator's state."""
        if self.device.type == "cuda":
            return torch.cuda.get_rng_state(self.device)
        return torch.get_rng_state()

    def load_state_dict(self, state: torch.Tensor) -> None:
        """Put it back."""
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state, self.device)
        else:
            torch.set_rng_state(state)


def states(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Copy the state of each part.

    Parameters
    ----------
    parts : mapping of str to Part

    Returns
    -------
    dict of str to object
        Nested dicts and lists of tensors and JSON values; nothing is shared
        with the parts.
    """
    return dict(clone_state({name: _state(part) for name, part in parts.items()}))


def load_states(parts: Mapping[str, Part], found: Mapping[str, Any]) -> None:
    """Put what :func:`states` gave back, part by part; names that are not there stay as they are.

    Parameters
    ----------
    parts : mapping of str to Part
    found : mapping of str to object
    """
    for name, part in parts.items():
        if name not in found:
            continue
        if isinstance(part, torch.Generator):
            part.set_state(found[name])
        elif isinstance(part, np.random.Generator):
            part.bit_generator.state = found[name]
        else:
            part.load_state_dict(found[name])


def all_finite(*parts: Part) -> bool:
    """Tell whether every parameter is a finite number.

    Parameters
    ----------
    *parts : Part
        Modules and :class:`Tensors`; others hold no parameters.

    Returns
    -------
    bool
    """
    floats = (p for part in parts for p in _parameters(part) if p.is_floating_point())
    return all(bool(torch.isfinite(p.detach()).all()) for p in floats)


def outside_tensors(parts: Iterable[Part], optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """List the tensors of an optimiser that no part holds, such as learnt noise.

    Parameters
    ----------
    parts : iterable of Part
    optimizer : torch.optim.Optimizer

    Returns
    -------
    list of Tensor
    """
    own = {id(p) for part in parts for p in _parameters(part)}
    return [p for group in optimizer.param_groups for p in group["params"] if id(p) not in own]


def _state(part: Part) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    state = part.state_dict()
    return dict(state) if isinstance(part, nn.Module) else state


def _parameters(part: Part) -> Iterator[torch.Tensor]:
    if isinstance(part, nn.Module):
        yield from part.parameters()
    elif isinstance(part, Tensors):
        yield from part.tensors
