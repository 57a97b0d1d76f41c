"""Take an answer of any kind apart, to compare two of them bit by bit or within a tolerance."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import torch
from discovery import PACKAGES
from torch import nn

from conceptlab import SplitModel
from conceptlab.encoders import BaseEncoder

BORROWED = (SplitModel, BaseEncoder)
"""What an object holds without owning it."""
CLOCKS = {"seconds", "cpu_seconds", "wall_seconds", "retrain_seconds", "written", "finished"}
"""Entries that tell how long something took: the only ones that may differ."""


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give all arrays, numbers and texts in `value` with the way to them."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":  # the width says nothing
        value = value.tolist()
    if value is None or isinstance(
        value, bool | int | float | complex | str | bytes | np.generic | np.ndarray | torch.Tensor
    ):
        yield path, value
    elif isinstance(value, pd.DataFrame | pd.Series):
        for name, column in value.to_dict("list").items() if value.ndim == 2 else [("", value)]:
            yield from leaves(list(column), f"{path}.{name}")
    elif isinstance(value, nn.Module):
        yield from leaves({"training": value.training, **value.state_dict()}, path)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in CLOCKS:
                yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(value, set | frozenset):
        yield from leaves(sorted(value, key=repr), path)
    elif isinstance(value, list | tuple | types.GeneratorType | range):
        for number, part in enumerate(value):
            yield from leaves(part, f"{path}[{number}]")
    elif hasattr(value, "get_children") and hasattr(value, "findobj"):  # something drawn
        drawn = value.findobj()
        yield f"{path}.artists", len(drawn)
        yield from leaves([a.get_text() for a in drawn if hasattr(a, "get_text")], f"{path}.texts")
    elif isinstance(value, PurePath | torch.device | torch.dtype | types.FunctionType | type):
        yield path, str(value) if not callable(value) else value.__qualname__
    elif type(value).__module__.split(".")[0] in PACKAGES:
        yield f"{path}.class", type(value).__qualname__
        if not isinstance(value, BORROWED):
            names = [f.name for f in fields(value)] if is_dataclass(value) else _attributes(value)
            yield from leaves({n: getattr(value, n) for n in names if n[0] != "_"}, path)
    else:
        yield path, type(value).__qualname__


def _attributes(value: Any) -> list[str]:
    return list(vars(value)) if hasattr(value, "__dict__") else list(type(value).__slots__)


def bits(value: Any) -> list[tuple[str, Any]]:
    """Take `value` apart so that two lists are equal where every bit is."""
    return [(path, _bits(leaf)) for path, leaf in leaves(value)]


def _bits(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        plain = leaf.detach().cpu().contiguous()
        raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return "tensor", str(leaf.dtype), tuple(leaf.shape), raw
    if isinstance(leaf, np.ndarray | np.generic):
        return type(leaf).__name__, leaf.dtype.str, leaf.shape, leaf.tobytes()
    return type(leaf).__name__, repr(leaf)  # with all digits, and NaN equal to itself


def same(first: Any, second: Any) -> list[str]:
    """Name the places where two answers differ in a bit."""
    return differences(bits(first), bits(second))


def differences(a: list[tuple[str, Any]], b: list[tuple[str, Any]]) -> list[str]:
    """Name the places where two lists of `bits` differ."""
    if [path for path, _ in a] != [path for path, _ in b]:
        return ["other parts: " + ", ".join(sorted({p for p, _ in a} ^ {p for p, _ in b})[:5])]
    return [path or "answer" for (path, x), (_, y) in zip(a, b, strict=True) if x != y]


def far(found: Any, expected: Any, tolerance: float) -> list[str]:
    """Name the places where two answers differ by more than rounding, whatever holds them."""
    a, b = list(leaves(found)), list(leaves(expected))
    if [path for path, _ in a] != [path for path, _ in b]:
        return ["other parts: " + ", ".join(sorted({p for p, _ in a} ^ {p for p, _ in b})[:5])]
    return [
        f"{path or 'answer'}: {x!r:.60} for {y!r:.60}"
        for (path, x), (_, y) in zip(a, b, strict=True)
        if _far(x, y, tolerance)
    ]


def _far(x: Any, y: Any, tolerance: float) -> bool:
    x, y = _numbers(x), _numbers(y)
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
        return bool(np.isfinite(tolerance) and x != y)
    if x.shape != y.shape:
        return True
    finite = np.abs(y[np.isfinite(y)])
    scale = float(finite.max()) if finite.size else 1.0
    return not np.allclose(x, y, rtol=0, atol=tolerance * max(scale, 1e-6), equal_nan=True)


def _numbers(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        leaf = leaf.detach().cpu()
        return (leaf.double() if leaf.is_floating_point() else leaf).numpy().astype(np.float64)
    if isinstance(leaf, np.ndarray | np.generic | float | int):
        array = np.asarray(leaf)
        return array.astype(np.float64) if array.dtype.kind in "fiub" else array.tolist()
    return leaf


def arrays(value: Any) -> list[np.ndarray | torch.Tensor]:
    """Give the arrays and tensors of floats in an answer."""
    return [
        leaf
        for _, leaf in leaves(value)
        if (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f")
        or (isinstance(leaf, torch.Tensor) and leaf.is_floating_point())
    ]


def facts(model: nn.Module) -> dict[str, Any]:
    """Note all that a borrowed model must come back with."""
    return {
        "bits": bits(model.state_dict()),
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad is None for p in model.parameters()],
        "places": [p.data_ptr() for p in model.parameters()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
    }
