"""Fitted bottlenecks as folders: any mix of arrays, JSON values and concept banks."""

from __future__ import annotations

__all__ = ["load", "save"]

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conceptlab.bank import ConceptBank
from conceptlab.errors import CheckpointError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import read_plain_file, rebuilding, strict_json

_ARRAY, _BANK, _PAIRS, _TEXT, _TUPLE = "$array", "$bank", "$pairs", "$text", "$tuple"


class _NoFile(TypeError):
    """A value that has no form in a file, such as a function."""


def save(model: Any, path: str | os.PathLike[str]) -> Path:
    """Write parameters and fitted attributes of `model`.

    Parameters that have no file form (functions) are named in ``left_out`` and come back as
    their defaults; a random generator comes back as the seed it drew.
    """
    tensors: dict[str, np.ndarray] = {}
    data: dict[str, Any] = {"param": {}, "fitted": {}, "left_out": []}
    for name, value in model.get_params(deep=False).items():
        if name == "random_state" and not isinstance(value, int | np.integer | None):
            value = getattr(model, "seed_", None)
        try:
            data["param"][name] = _packed(value, f"param:{name}", tensors)
        except _NoFile:
            data["left_out"].append(name)
    for name, value in vars(model).items():
        if name.endswith("_") and not name.startswith("_"):
            data["fitted"][name] = _packed(value, f"fitted:{name}", tensors)
    return write_bundle(path, Bundle(type(model).__name__, data, tensors))


def load(cls: type[Any], path: str | os.PathLike[str]) -> Any:
    """Read what :func:`save` wrote, as `cls` or the subclass of it that the folder names."""
    kinds = {kind.__name__: kind for kind in _subclasses(cls)}
    kind = cls.__name__
    if inspect.isabstract(cls) or cls.__name__ == "ConceptBottleneck":
        kind = _kind_of(Path(path), kind)
        if kind not in kinds:  # the package's own are imported on first use
            kinds |= _own_kinds(cls)
        if kind not in kinds:
            raise CheckpointError(
                f"{path} holds a {kind!r}, which is no bottleneck. Load it with that class.",
                code="CL-CHECKPOINT-KIND",
            )
    bundle = read_bundle(path, kind)
    with rebuilding(path, kind):
        parts = {
            part: {name: _unpacked(v, bundle.tensors) for name, v in bundle.data[part].items()}
            for part in ("param", "fitted")
        }
        model = kinds[kind](**parts["param"])
        for name, value in parts["fitted"].items():
            if name.startswith("_") or not name.endswith("_"):
                raise ValueError(f"{name!r} is no fitted attribute")
            setattr(model, name, value)
    return model


def _packed(value: Any, key: str, tensors: dict[str, np.ndarray]) -> Any:
    """Give `value` as JSON; arrays go to `tensors`."""
    if isinstance(value, ConceptBank):
        fields = {
            "vectors": value.vectors,
            "names": list(value.names),
            "space": value.space,
            "intercepts": value.intercepts,
            "parents": None if value.parents is None else list(value.parents),
            "meta": value.meta,
        }
        return {_BANK: _packed(fields, key, tensors)}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        tensors[key] = value
        return {_ARRAY: key}
    if isinstance(value, np.ndarray):
        if not all(isinstance(item, str) for item in value.ravel()):
            raise _NoFile(key)
        return {_TEXT: [str(item) for item in value], "object": value.dtype == object}
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            pairs = [[name, v] for name, v in value.items()]
            return {_PAIRS: _packed(pairs, key, tensors)}
        return {name: _packed(v, f"{key}/{name}", tensors) for name, v in value.items()}
    if isinstance(value, list | tuple):
        items = [_packed(v, f"{key}/{i}", tensors) for i, v in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        tensors[key] = np.array(value)
        return {_ARRAY: key, "scalar": True}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _NoFile(key)


def _unpacked(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        found = tensors[value[_ARRAY]]
        return float(found) if value.get("scalar") else found
    if _TEXT in value:
        return np.array(value[_TEXT], dtype=object if value["object"] else None)
    if _TUPLE in value:
        return tuple(_unpacked(item, tensors) for item in value[_TUPLE])
    if _PAIRS in value:
        return dict(_unpacked(value[_PAIRS], tensors))
    if _BANK in value:
        fields = _unpacked(value[_BANK], tensors)
        return ConceptBank(fields.pop("vectors"), fields.pop("names"), **fields)
    return {name: _unpacked(item, tensors) for name, item in value.items()}


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    found = [cls]
    for child in cls.__subclasses__():
        found += _subclasses(child)
    return found


def _own_kinds(cls: type[Any]) -> dict[str, type[Any]]:
    import bottlenecks as home

    found = {name: getattr(home, name) for name in home.__all__}
    return {n: k for n, k in found.items() if isinstance(k, type) and issubclass(k, cls)}


def _kind_of(path: Path, default: str) -> str:
    try:
        return str(strict_json(read_plain_file(path / "manifest.json"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return default  # read_bundle tells what is wrong
