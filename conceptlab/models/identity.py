"""Fingerprints of models and of the callables around them."""

from __future__ import annotations

__all__ = ["describe_callable", "edition", "weights_fingerprint"]

import functools
import re
import threading
import weakref
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.provenance import fingerprint

_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = (
    weakref.WeakKeyDictionary()
)
_GUARD = threading.Lock()


def edition(tensor: torch.Tensor) -> tuple[int, int, int]:
    """Give a value that changes when a tensor is replaced or written, in whatever way.

    Writes through ``.data`` or NumPy leave torch's version as it was, so the values are
    looked at, all of them: their bits are summed, which costs little beside a pass.
    """
    tensor = tensor.detach()
    version = 0 if tensor.is_inference() else tensor._version
    if tensor.is_meta or tensor.layout is not torch.strided:
        return tensor.data_ptr() if not tensor.is_sparse else 0, version, 0
    bits = tensor.reshape(-1).contiguous().view(torch.uint8)
    whole = len(bits) // 8 * 8
    total = int(bits[whole:].sum())
    if whole:
        words = bits[:whole] if bits.storage_offset() % 8 == 0 else bits[:whole].clone()
        total += int(words.view(torch.int64).sum())
    return tensor.data_ptr(), version, total


def weights_fingerprint(model: nn.Module) -> str:
    """Hash the model; the answer is kept until a weight is edited or replaced."""
    state = tuple(
        (name, edition(tensor))
        for name, tensor in model.state_dict(keep_vars=True).items()
        if isinstance(tensor, torch.Tensor)
    )
    with _GUARD:
        known = _KNOWN.get(model)
        if known is None or known[0] != state:
            known = (state, fingerprint(model))
            _KNOWN[model] = known
        return known[1]


def describe_callable(function: Any) -> Any:
    """Describe a callable by its code and settings, never by its address."""
    if function is None or isinstance(function, str | int | float):
        return repr(function)
    if isinstance(function, nn.Module):
        return fingerprint(function)
    given = getattr(function, "fingerprint", None)
    if isinstance(given, str):
        return given
    if isinstance(function, functools.partial):
        return [
            describe_callable(function.func),
            [_plain(value) for value in function.args],
            {key: _plain(value) for key, value in function.keywords.items()},
        ]
    module = getattr(function, "__module__", "")
    name = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None)
    if code is not None:
        cells = getattr(function, "__closure__", None) or ()
        return [
            name,
            code.co_code.hex(),
            [_plain(constant) for constant in code.co_consts],
            list(code.co_names),
            [_plain(cell.cell_contents) for cell in cells],
            [_plain(value) for value in function.__defaults__ or ()],
        ]
    if hasattr(function, "__dict__"):
        return [name, {key: _plain(value) for key, value in sorted(vars(function).items())}]
    return name


def _plain(value: Any, depth: int = 0) -> str:
    if isinstance(value, nn.Module | torch.Tensor | np.ndarray):
        return fingerprint(value)
    # The text of a container would leave out most of an array in it.
    if depth < 8 and isinstance(value, list | tuple):
        return repr([_plain(item, depth + 1) for item in value])
    if depth < 8 and isinstance(value, dict):
        return repr([(str(key), _plain(item, depth + 1)) for key, item in value.items()])
    # Addresses change from run to run.
    return re.sub(r"0x[0-9a-fA-F]+", "", repr(value))
