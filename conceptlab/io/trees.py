"""Nested values (arrays, tensors, tuples, text) as JSON beside arrays, without pickle.

One dialect is written: plain JSON where JSON has a word for it, and else an object of one
marked key, such as ``{"$array": name}``. Two are read: this one, and the one of states that the
first release wrote, whose marks are ``__tensor__``, ``__dict__``, ``__tuple__``, ``__float__``.
"""

from __future__ import annotations

__all__ = ["Form", "clone_state", "pack", "unpack"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.errors import CheckpointError

_ARRAY, _PAIRS, _TEXT, _TUPLE = "$array", "$pairs", "$text", "$tuple"
_OLD_TENSOR, _OLD_DICT, _OLD_TUPLE, _OLD_FLOAT = "__tensor__", "__dict__", "__tuple__", "__float__"
_OLD = {_OLD_TENSOR, _OLD_DICT, _OLD_TUPLE, _OLD_FLOAT}


@dataclass(frozen=True)
class Form:
    """How objects of one more class are written.

    Attributes
    ----------
    mark : str
        Key that stands for the class, with a ``$`` in front.
    kind : type
        The class.
    parts : callable
        Gives the nested value that an object is made of.
    build : callable
        Makes the object from it again.
    """

    mark: str
    kind: type
    parts: Callable[[Any], Any]
    build: Callable[[Any], Any]


def pack(
    tree: Any, name: str = "t", forms: Sequence[Form] = ()
) -> tuple[Any, dict[str, np.ndarray]]:
    """Divide a nested value into JSON values and arrays.

    Parameters
    ----------
    tree : object
        Mappings (keys of any plain type), lists, tuples, tensors, arrays of numbers or of text,
        and JSON values.
    name : str
        What names of arrays begin with; the way to each follows.
    forms : sequence of Form
        Further classes.

    Returns
    -------
    values : object
        JSON, with the name of an array in place of each.
    arrays : dict of str to numpy.ndarray
        bfloat16 is kept as its bits.

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-UNSAFE``: something else is in it, such as a function.

    Examples
    --------
    >>> values, arrays = pack({"step": 3, "levels": (np.zeros(2), None)}, "state")
    >>> values
    {'step': 3, 'levels': {'$tuple': [{'$array': 'state/levels/0'}, None]}}
    >>> unpack(values, arrays)["levels"][0]
    array([0., 0.])
    """
    packer = _Packer(tuple(forms))
    return packer.value(tree, name), packer.arrays


def unpack(values: Any, arrays: Mapping[str, np.ndarray], forms: Sequence[Form] = ()) -> Any:
    """Undo :func:`pack`.

    Parameters
    ----------
    values : object
        JSON.
    arrays : mapping of str to numpy.ndarray
        By name.
    forms : sequence of Form
        Those it was packed with.

    Returns
    -------
    object
    """
    if isinstance(values, list):
        return [unpack(item, arrays, forms) for item in values]
    if not isinstance(values, dict):
        return values
    if _OLD & set(values):
        return _old(values, arrays)
    if _ARRAY in values:
        return _array(values, arrays[values[_ARRAY]])
    if _TEXT in values:
        return np.array(values[_TEXT], dtype=object if values["object"] else None)
    if _TUPLE in values:
        return tuple(unpack(item, arrays, forms) for item in values[_TUPLE])
    if _PAIRS in values:
        return dict(unpack(values[_PAIRS], arrays, forms))
    for form in forms:
        if form.mark in values:
            return form.build(unpack(values[form.mark], arrays, forms))
    return {name: unpack(item, arrays, forms) for name, item in values.items()}


def clone_state(tree: Any) -> Any:
    """Copy a nested state, so that training on does not change it."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: clone_state(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(clone_state(item) for item in tree)
    return tree


class _Packer:
    def __init__(self, forms: tuple[Form, ...]) -> None:
        self.forms = forms
        self.arrays: dict[str, np.ndarray] = {}

    def value(self, value: Any, name: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not np.isfinite(value):
            return {_ARRAY: self.kept(np.array(value), name), "scalar": True}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.Tensor):
            return self.tensor(value, name)
        if isinstance(value, np.ndarray):
            return self.array(value, name)
        if isinstance(value, Mapping):
            if all(isinstance(key, str) and key[:1] != "$" and key not in _OLD for key in value):
                return {key: self.value(v, f"{name}/{key}") for key, v in value.items()}
            return {_PAIRS: self.value([[key, v] for key, v in value.items()], name)}
        if isinstance(value, list | tuple):
            items = [self.value(v, f"{name}/{i}") for i, v in enumerate(value)]
            return {_TUPLE: items} if isinstance(value, tuple) else items
        for form in self.forms:
            if isinstance(value, form.kind):
                return {form.mark: self.value(form.parts(value), name)}
        raise _no_form(value)

    def tensor(self, value: torch.Tensor, name: str) -> dict[str, Any]:
        kind = str(value.dtype).removeprefix("torch.")
        flat = value.detach().cpu().contiguous()
        array = (flat.view(torch.int16) if kind == "bfloat16" else flat).numpy()
        # A copy, as tensors share memory; files have no arrays without axes.
        found = {_ARRAY: self.kept(np.array(array), name), "torch": kind}
        return found if value.ndim else {**found, "shape": []}

    def array(self, value: np.ndarray, name: str) -> dict[str, Any]:
        if value.dtype.kind in "fiub":
            found = {_ARRAY: self.kept(value, name)}
            return found if value.ndim else {**found, "shape": []}
        if value.ndim != 1 or not all(isinstance(item, str) for item in value):
            raise _no_form(value)
        return {_TEXT: [str(item) for item in value], "object": value.dtype == object}

    def kept(self, array: np.ndarray, name: str) -> str:
        while name in self.arrays:  # keys with a stroke in them
            name += "'"
        self.arrays[name] = array
        return name


def _array(values: dict[str, Any], found: np.ndarray) -> Any:
    if values.get("scalar"):
        return float(found.reshape(()))
    array = found.reshape(()) if "shape" in values else found
    kind = values.get("torch")
    if kind is None:
        return array
    tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.bfloat16) if kind == "bfloat16" else tensor


def _old(values: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    if _OLD_TENSOR in values:
        name, kind, shape = values[_OLD_TENSOR]
        array = arrays[name].reshape(shape)
        return array if kind == "numpy" else _array({"torch": kind}, array)
    if _OLD_TUPLE in values:
        return tuple(unpack(item, arrays) for item in values[_OLD_TUPLE])
    if _OLD_FLOAT in values:
        return float(values[_OLD_FLOAT])
    return {unpack(key, arrays): unpack(value, arrays) for key, value in values[_OLD_DICT]}


def _no_form(value: Any) -> CheckpointError:
    return CheckpointError(
        f"A {type(value).__name__} cannot be saved: it is neither an array, a tensor nor a JSON "
        "value.",
        code="CL-CHECKPOINT-UNSAFE",
    )
