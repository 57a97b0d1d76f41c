"""Finding the logits in what a model returns, and the activations in what a layer returns."""

from __future__ import annotations

__all__ = [
    "Output",
    "count_tensors",
    "layer_tensor",
    "names_of",
    "replace_layer_tensor",
    "select_logits",
]

from collections.abc import Callable, Mapping
from typing import Any

import torch

from conceptlab.errors import SplitError, unknown_name

Output = str | int | Callable[[Any], torch.Tensor] | None


def select_logits(value: Any, output: Output) -> torch.Tensor:
    """Take the (n, n_outputs) tensor out of a model's answer.

    Parameters
    ----------
    value : object
        What the model returned.
    output : str, int, callable or None
        Key or attribute, index, function of `value`. None takes the tensor; of several
        values, what is named ``logits``, or the only tensor in a dict.

    Returns
    -------
    torch.Tensor of shape (n, n_outputs)
        One axis is read as one output.

    Raises
    ------
    SplitError
        ``CL-SPLIT-OUTPUT``: several values and no choice, an unknown key, or
        a tensor of another rank.
    """
    chosen = _choose(value, output)
    if not isinstance(chosen, torch.Tensor):
        raise SplitError(
            f"The model's output must be one tensor (n, n_outputs), got {_describe(chosen)}. "
            f"{_advice(chosen)}",
            code="CL-SPLIT-OUTPUT",
        )
    if chosen.ndim == 1:
        chosen = chosen[:, None]
    if chosen.ndim != 2:
        raise SplitError(
            f"The model's output must have shape (n, n_outputs), got {tuple(chosen.shape)}. Reduce "
            "it to one value for each output, for example "
            "output=lambda y: y.flatten(2).mean(2) for maps of scores.",
            code="CL-SPLIT-OUTPUT",
        )
    return chosen


def layer_tensor(value: Any, layer: str) -> torch.Tensor:
    """Take the activations out of a layer's answer: the tensor, or the first of several."""
    for item in _tensors(value):
        return item
    raise SplitError(
        f"Layer {layer!r} must return a tensor, or a tuple or dict with one, got "
        f"{_describe(value)}. Choose another layer; SplitModel.suggest(model) lists them.",
        code="CL-SPLIT-OUTPUT",
    )


def replace_layer_tensor(value: Any, tensor: torch.Tensor) -> Any:
    """Put `tensor` where :func:`layer_tensor` found the activations."""
    if isinstance(value, torch.Tensor):
        return tensor
    if isinstance(value, Mapping):
        key = next(k for k, item in value.items() if isinstance(item, torch.Tensor))
        return type(value)(**{**value, key: tensor})
    index = next(i for i, item in enumerate(value) if isinstance(item, torch.Tensor))
    items = [tensor if i == index else item for i, item in enumerate(value)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def count_tensors(value: Any) -> int:
    """Count the tensors that a layer returned side by side."""
    return len(_tensors(value))


def names_of(model: Any) -> list[str] | None:
    """Give the names of the classes that a model carries with it, or None.

    Examples
    --------
    >>> from conceptlab.datasets import load_embedded_classifier
    >>> names_of(load_embedded_classifier())[:2]
    ['arvo', 'belu']
    """
    own = getattr(model, "class_names", None)
    if isinstance(own, list | tuple) and own and all(isinstance(name, str) for name in own):
        return list(own)
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(labels, Mapping) or not labels:
        return None
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    # What transformers writes where nobody gave names.
    return None if names == [f"LABEL_{number}" for number in range(len(names))] else names


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [item for item in value if isinstance(item, torch.Tensor)]
    return []


def _choose(value: Any, output: Output) -> Any:
    if output is None:
        return _logits_of(value)
    if callable(output):
        return output(value)
    if isinstance(output, str) and isinstance(value, Mapping):
        if output in value:
            return value[output]
        near = unknown_name("output", output, [str(k) for k in value], code="CL-SPLIT-OUTPUT")
        raise SplitError(_bare(near), code="CL-SPLIT-OUTPUT")
    if isinstance(output, str) and hasattr(value, output):
        return getattr(value, output)
    if (
        isinstance(output, int)
        and isinstance(value, tuple | list)
        and -len(value) <= output < len(value)
    ):
        return value[output]
    raise SplitError(
        f"output={output!r} does not fit what the model returns: {_describe(value)}. "
        f"{_advice(value)}",
        code="CL-SPLIT-OUTPUT",
    )


def _logits_of(value: Any) -> Any:
    """Take what calls itself logits, or is the only tensor in a dict."""
    found = value.get("logits") if isinstance(value, Mapping) else getattr(value, "logits", None)
    if isinstance(found, torch.Tensor):
        return found
    tensors = _tensors(value) if isinstance(value, Mapping) else []
    return tensors[0] if len(tensors) == 1 else value


def _bare(error: Exception) -> str:
    return str(error).rsplit(" [", 1)[0]


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        parts = [f"{key!r}: {_short(item)}" for key, item in value.items()]
        return f"{type(value).__name__} with keys {', '.join(parts) or 'none'}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}: {', '.join(map(_short, value))}"
    return type(value).__name__


def _short(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _advice(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = list(value)
        best = "logits" if "logits" in keys else (str(keys[0]) if keys else "...")
        return f"Name the scores: SplitModel(model, ..., output={best!r})."
    if isinstance(value, tuple | list):
        return "Give the index of the scores: SplitModel(model, ..., output=0)."
    return "Pass output=<key, index or function> that gives the scores."
