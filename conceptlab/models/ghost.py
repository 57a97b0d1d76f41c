"""Tensors without values: they carry shapes, and mark all that is made from them.

To apply the part of a model that comes after a layer, the model is run with
ghosts in place of its input and of all that was finished before the layer.
What comes before then costs nothing, and an answer that is not a ghost cannot
depend on anything but the layer's activations.
"""

from __future__ import annotations

__all__ = ["Ghost", "NeedsValues", "haunt"]

from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map


class NeedsValues(RuntimeError):
    """An operation needs the values of a ghost, not only its shape."""


_ONLY_SHAPE = {
    "empty_like",
    "zeros_like",
    "ones_like",
    "full_like",
    "new_empty",
    "new_zeros",
    "new_ones",
    "new_full",
}


class Ghost(torch.Tensor):
    """A tensor that has a shape, a dtype and a device but no values."""

    meta: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, meta: torch.Tensor, device: torch.device) -> Ghost:
        """Make a ghost of the shape and strides of `meta`."""
        ghost: Ghost = torch.Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=device,
            requires_grad=False,
        )
        ghost.meta = meta
        return ghost

    def __init__(self, meta: torch.Tensor, device: torch.device) -> None:
        pass

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Ghost{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        leaves, _ = tree_flatten((args, kwargs))
        device = torch.device(
            kwargs.get("device") or next(x.device for x in leaves if isinstance(x, Ghost))
        )
        if func.overloadpacket.__name__ in _ONLY_SHAPE:
            return func(*tree_map(_stand_in, args), **tree_map(_stand_in, kwargs))
        _refuse_writes_into_real(func, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        result = func(*tree_map(_to_meta, args), **tree_map(_to_meta, kwargs))
        outputs, _ = tree_flatten(result)
        if any(not isinstance(x, torch.Tensor) and x is not None for x in outputs):
            raise NeedsValues(f"{func} needs values")
        return tree_map(lambda x: Ghost(x, device) if isinstance(x, torch.Tensor) else x, result)


def haunt(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Ghost:
    """Make a contiguous ghost."""
    return Ghost(torch.empty(shape, dtype=dtype, device="meta"), device)


def _to_meta(value: Any) -> Any:
    if isinstance(value, Ghost):
        return value.meta
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
    return value


def _stand_in(value: Any) -> Any:
    if isinstance(value, Ghost):
        one = torch.empty((), dtype=value.dtype, device=value.device)
        return one.expand(value.shape)
    return value


def _refuse_writes_into_real(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    for index, argument in enumerate(func._schema.arguments):
        alias = argument.alias_info
        if alias is None or not alias.is_write:
            continue
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        if isinstance(value, torch.Tensor) and not isinstance(value, Ghost):
            raise NeedsValues(f"{func} writes unknown values into a real tensor")
