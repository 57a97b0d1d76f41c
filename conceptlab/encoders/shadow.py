"""A twin of a user's model that shares its weights and nothing else."""

from __future__ import annotations

__all__ = ["shadow", "weights_state"]

from collections.abc import Iterable
from typing import Any

from torch import nn

from conceptlab.models.identity import edition
from conceptlab.models.session import model_copy, model_lock


def shadow(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Copy the structure of `module` around the same weights, for inference.

    The twin is in evaluation mode and needs no gradients, so that the user's
    module keeps its mode, its hooks and its ``.grad`` whatever is done with
    the twin, also from several threads. Weights that the user trains further
    in place are seen by the twin.

    Parameters
    ----------
    module : Module
        Left as it is.
    memo : dict, optional
        Shared between calls, so that modules with common parts keep them.

    Returns
    -------
    Module
    """
    memo = {} if memo is None else memo
    with model_lock(module):
        for parameter in module.parameters():
            if id(parameter) not in memo:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in module.buffers():
            memo.setdefault(id(buffer), buffer.detach())
        return model_copy(module, memo).eval()


def weights_state(modules: Iterable[nn.Module]) -> tuple[tuple[int, int, int], ...]:
    """Give a value that changes when a weight is replaced or written."""
    return tuple(
        edition(tensor)
        for module in modules
        for tensor in [*module.parameters(), *module.buffers()]
    )
