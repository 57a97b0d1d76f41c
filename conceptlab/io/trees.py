"""Nested states (tensors in dicts and lists) as bundle files, without pickle."""

from __future__ import annotations

__all__ = ["clone_state", "pack", "unpack"]

from typing import Any

import numpy as np
import torch

from conceptlab.errors import CheckpointError

_TENSOR, _DICT, _TUPLE = "__tensor__", "__dict__", "__tuple__"


def pack(tree: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Divide a nested state into JSON values and arrays.

    Parameters
    ----------
    tree : object
        Dicts (keys of any plain type), lists, tuples, tensors, arrays and JSON values.

    Returns
    -------
    values : object
        JSON, with the name of an array in place of each tensor.
    arrays : dict of str to numpy.ndarray
        bfloat16 is kept as its bits.
    """
    arrays: dict[str, np.ndarray] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, torch.Tensor | np.ndarray):
            name = f"t{len(arrays)}"
            kind = "numpy"
            if isinstance(node, torch.Tensor):
                kind = str(node.dtype).removeprefix("torch.")
                flat = node.detach().cpu().contiguous()
                node = (flat.view(torch.int16) if kind == "bfloat16" else flat).numpy()
            arrays[name] = np.array(node)
            # Files have no arrays without axes, so the shape is kept beside them.
            return {_TENSOR: [name, kind, list(arrays[name].shape)]}
        if isinstance(node, dict):
            return {_DICT: [[walk(key), walk(value)] for key, value in node.items()]}
        if isinstance(node, list):
            return [walk(item) for item in node]
        if isinstance(node, tuple):
            return {_TUPLE: [walk(item) for item in node]}
        if isinstance(node, float) and not np.isfinite(node):
            return {"__float__": repr(node)}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, np.generic):
            return walk(node.item())
        raise CheckpointError(
            f"A state holds a {type(node).__name__}, which is neither a tensor nor a JSON value, "
            "so it cannot be saved.",
            code="CL-CHECKPOINT-UNSAFE",
        )

    return walk(tree), arrays


def unpack(values: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Undo :func:`pack`."""
    if isinstance(values, list):
        return [unpack(item, arrays) for item in values]
    if not isinstance(values, dict):
        return values
    if _TENSOR in values:
        name, kind, shape = values[_TENSOR]
        array = arrays[name].reshape(shape)
        if kind == "numpy":
            return array
        tensor = torch.from_numpy(array.copy())
        return tensor.view(torch.bfloat16) if kind == "bfloat16" else tensor
    if _TUPLE in values:
        return tuple(unpack(item, arrays) for item in values[_TUPLE])
    if "__float__" in values:
        return float(values["__float__"])
    return {unpack(key, arrays): unpack(value, arrays) for key, value in values[_DICT]}


def clone_state(tree: Any) -> Any:
    """Copy a nested state, so that training on does not change it."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: clone_state(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(clone_state(item) for item in tree)
    return tree
