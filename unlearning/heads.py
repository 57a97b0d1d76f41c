"""The last linear layer of a classifier, what enters it, and the logits in its answer."""

from __future__ import annotations

__all__ = [
    "Head",
    "call_model",
    "class_logits",
    "features_and_logits",
    "find_head",
    "frozen",
    "run_model",
    "unused_columns",
]

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from conceptlab.errors import InputError, SplitError, unknown_name
from conceptlab.models.session import model_lock

Linear = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Head:
    """The layer whose outputs are the logits.

    Attributes
    ----------
    name : str
        Its name in ``model.named_modules()``.
    linear : torch.nn.Linear or torch.nn.Conv2d
        The layer; a convolution has 1x1 kernels.
    n_classes : int
        Number of logits.

    Examples
    --------
    >>> from torch import nn
    >>> head = find_head(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(2, 3, 2, 2))
    >>> head.name, head.n_classes, head.n_features
    ('1', 3, 12)
    """

    name: str
    linear: Linear
    n_classes: int

    @property
    def n_features(self) -> int:
        """Number of features that enter the layer."""
        linear = self.linear
        return linear.in_features if isinstance(linear, nn.Linear) else linear.in_channels

    @property
    def weight(self) -> torch.Tensor:
        """Weights (C, d), a view: writing to it changes the model."""
        return self.linear.weight.view(self.n_classes, self.n_features)

    @property
    def bias(self) -> torch.Tensor | None:
        """Intercepts (C,), or None where the layer has none."""
        return self.linear.bias

    def of(self, model: nn.Module) -> Head:
        """Find the same layer in a copy of the model."""
        return find_head(model, head=self.name)


def find_head(model: nn.Module, example: Any = None, *, head: str | Head | None = None) -> Head:
    """Find the last linear layer of a classifier.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    example : tensor or mapping of tensors, optional
        A few inputs. With them the layer is the one whose answer *is* the
        logits; without them it is the last linear layer in the order of
        ``named_modules()`` (or the last 1x1 convolution where there is none).
    head : str or Head, optional
        The layer's name, where it is known.

    Returns
    -------
    Head

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYER``: no such layer, or none gives the logits.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> find_head(model, torch.zeros(1, 4)).name
    '3'
    """
    if head is not None:
        return _named_head(model, head.name if isinstance(head, Head) else head)
    layers = {name: module for name, module in model.named_modules() if _is_linear(module)}
    if example is not None and layers:
        return _head_by_answer(model, example, layers)
    dense = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
    if not layers:
        raise SplitError(
            f"{type(model).__name__} has no linear layer (nn.Linear or a 1x1 nn.Conv2d) that could "
            f"give the logits. {_ADVICE}",
            code="CL-SPLIT-LAYER",
        )
    return _head(model, dense[-1] if dense else list(layers)[-1])


def features_and_logits(
    model: nn.Module, inputs: Any, head: str | Head | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a classifier and keep what enters its head.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier, in the mode that the caller chose.
    inputs : tensor or mapping of tensors
        A batch; a mapping is passed as keyword arguments. Floats take the dtype of
        the weights.
    head : str or Head, optional
        The head, or its name; by default :func:`find_head` looks for it, at
        the price of one more pass.

    Returns
    -------
    features : torch.Tensor of shape (n, d)
        Penultimate features. In front of a 1x1 convolution the mean over
        positions; in front of a linear layer over tokens those of the token whose
        scores are the logits, or the mean where there is none. Differentiable.
    logits : torch.Tensor of shape (n, C)
        Differentiable.

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYER`` (no head) or ``CL-SPLIT-RUNS`` (it did not run).

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> features, logits = features_and_logits(model, torch.zeros(5, 4))
    >>> features.shape, logits.shape
    (torch.Size([5, 8]), torch.Size([5, 3]))
    """
    owner, seen = threading.get_ident(), list[tuple[torch.Tensor, torch.Tensor]]()

    def keep(_module: nn.Module, args: Any, answer: torch.Tensor) -> None:
        if threading.get_ident() == owner:  # another thread may be in the model, too
            seen.append((args[0], answer))

    with model_lock(model):
        if head is None:
            with frozen(model), torch.no_grad():
                head = find_head(model, inputs)
        found = find_head(model, head=head)
        handle = found.linear.register_forward_hook(keep)
        try:
            logits = run_model(model, inputs)
        finally:
            handle.remove()
    if not seen:
        raise SplitError(
            f"Layer {found.name!r} did not run in the forward pass, so nothing entered it. "
            f"{_ADVICE}",
            code="CL-SPLIT-RUNS",
        )
    features, answer = seen[-1]
    if isinstance(found.linear, nn.Conv2d):
        features = features.mean(dim=(2, 3))
    elif features.ndim > 2:
        features = _of_token(features.flatten(1, -2), answer.flatten(1, -2), logits)
    return features, logits


def run_model(model: nn.Module, inputs: Any) -> torch.Tensor:
    """Call a classifier on a batch and take the logits out of its answer.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    inputs : tensor or mapping of tensors
        As in :func:`call_model`.

    Returns
    -------
    torch.Tensor of shape (n, C)
        Of several (n, C) tensors in a tuple, such as features and logits, the one that a
        linear layer gives.

    Raises
    ------
    SplitError
        ``CL-SPLIT-OUTPUT``: no logits, or several tensors that may be them.
    """
    answer = call_model(model, inputs)
    if isinstance(answer, tuple | list) and not hasattr(answer, "logits"):
        places = [i for i, item in enumerate(answer) if _is_logits(item)]
        if len(places) > 1:
            return class_logits(answer[_place_of_logits(model, inputs, answer, places)])
    return class_logits(answer)


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Call a classifier on a batch, and give its answer as it is.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    inputs : tensor or mapping of tensors
        A mapping is passed as keyword arguments, without the columns that ``forward``
        has no argument for; a single column of another name by position. Floats take
        the dtype of the weights.

    Returns
    -------
    object
    """
    weights = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(weights, None)

    def fit(value: Any) -> Any:
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value if dtype is None or not floats else value.to(dtype)

    if not isinstance(inputs, Mapping):
        return model(fit(inputs))
    fitted = {key: fit(value) for key, value in inputs.items()}
    left = unused_columns(model, inputs)
    if len(left) < len(fitted):
        return model(**{key: value for key, value in fitted.items() if key not in left})
    if len(fitted) == 1:  # an image under a name of the data set's own
        return model(*fitted.values())
    raise InputError(
        f"{type(model).__name__}.forward takes none of {', '.join(map(str, inputs))}. Name the "
        "inputs as its arguments are named, or give one tensor.",
        code="CL-INPUT-SHAPE",
    )


def unused_columns(model: nn.Module, inputs: Any) -> list[str]:
    """List the keys of a mapping that the model's ``forward`` has no argument for."""
    try:
        taken = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return []
    if not isinstance(inputs, Mapping) or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return []
    return [key for key in inputs if key not in taken]


def class_logits(value: Any) -> torch.Tensor:
    """Take the logits out of what a classifier returned.

    Parameters
    ----------
    value : tensor, tuple, mapping or object
        A tensor; something with ``logits`` (attribute or key); or a tuple or
        list, whose first (n, C) tensor of floats counts.

    Returns
    -------
    torch.Tensor of shape (n, C)

    Raises
    ------
    SplitError
        ``CL-SPLIT-OUTPUT``: nothing of the kind.

    Examples
    --------
    >>> class_logits((torch.zeros(2, 3), "more")).shape
    torch.Size([2, 3])
    """
    found = value
    if not isinstance(value, torch.Tensor):
        found = getattr(value, "logits", None)
        if found is None and isinstance(value, Mapping):
            found = value.get("logits")
        if found is None and isinstance(value, tuple | list):
            found = next((item for item in value if _is_logits(item)), None)
    if isinstance(found, torch.Tensor) and found.ndim == 4 and found.shape[2:] == (1, 1):
        found = found[:, :, 0, 0]
    if not _is_logits(found):
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else ""
        raise SplitError(
            "The model must return logits (n, C): a float tensor, an object or mapping with "
            f"`logits`, or a tuple that holds them. It returned {shown or type(value).__name__}. "
            "Wrap the model in a module whose forward returns the logits.",
            code="CL-SPLIT-OUTPUT",
        )
    return found


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode and every flag back afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield model
    finally:
        for module in training:
            module.training = True


_ADVICE = "Name the layer: head='name', one of `[n for n, _ in model.named_modules()]`."


def _is_logits(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 2 and value.is_floating_point()


_PLACES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def _place_of_logits(model: nn.Module, inputs: Any, answer: Any, places: list[int]) -> int:
    """Find which of several tensors in a model's answer a linear layer gives; ask once."""
    if model in _PLACES:
        return _PLACES[model]
    layers = {name: module for name, module in model.named_modules() if _is_linear(module)}
    given, found = _layer_answers(model, inputs, layers, call_model)
    matches = {
        i: name for i in places for name, value in found.items() if _same(value, given[i].detach())
    }
    if len(set(matches.values())) != 1:
        shapes = ", ".join(str(tuple(answer[i].shape)) for i in places)
        raise SplitError(
            f"{type(model).__name__} returned {len(places)} tensors that may be the logits "
            f"({shapes}), and {'several of them' if matches else 'none'} come from a linear layer. "
            "Wrap the model in a module whose forward returns the logits alone.",
            code="CL-SPLIT-OUTPUT",
        )
    _PLACES[model] = min(matches)
    return _PLACES[model]


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def _named_head(model: nn.Module, name: str) -> Head:
    modules = dict(model.named_modules())
    if name not in modules:
        error = unknown_name("layer", name, [key for key in modules if key], code="CL-SPLIT-LAYER")
        raise SplitError(str(error).rsplit(" [", 1)[0], code="CL-SPLIT-LAYER")
    if not _is_linear(modules[name]):
        raise SplitError(
            f"Layer {name!r} is a {type(modules[name]).__name__}; the head must be an nn.Linear or "
            f"a 1x1 nn.Conv2d. {_ADVICE}",
            code="CL-SPLIT-LAYER",
        )
    return _head(model, name)


def _head(model: nn.Module, name: str) -> Head:
    layer = model.get_submodule(name)
    if isinstance(layer, nn.Linear):
        return Head(name, layer, layer.out_features)
    if isinstance(layer, nn.Conv2d):
        return Head(name, layer, layer.out_channels)
    raise InputError(f"{name!r} is no linear layer.", code="CL-SPLIT-LAYER")


def _head_by_answer(model: nn.Module, example: Any, layers: dict[str, nn.Module]) -> Head:
    logits, answers = _layer_answers(model, example, layers, run_model)
    for name in reversed(answers):
        if _same(answers[name], logits):
            return _head(model, name)
    loose = [
        name
        for name, tensor in [*model.named_buffers(), *model.named_parameters()]
        if tensor.ndim == 2 and logits.shape[1] in tensor.shape and name.count(".") < 2
    ]
    held = {f"{name}.weight" for name in layers}
    loose = [name for name in loose if name not in held]
    if loose:
        raise SplitError(
            f"The logits of {type(model).__name__} are computed with {loose[0]!r}, a matrix that "
            "belongs to no linear layer (as of a zero-shot classifier: features times texts). Put "
            "it, with its scale, into an nn.Linear(bias=False) whose answer is the logits.",
            code="CL-SPLIT-LAYER",
        )
    raise SplitError(
        f"None of the {len(layers)} linear layers of {type(model).__name__} gives the logits as "
        f"they come out (something is computed behind the last one). {_ADVICE}",
        code="CL-SPLIT-LAYER",
    )


def _layer_answers(
    model: nn.Module,
    inputs: Any,
    layers: dict[str, nn.Module],
    call: Callable[[nn.Module, Any], Any],
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Call a model in evaluation mode; give its answer, and the layers' in the order they ran."""
    answers: dict[str, torch.Tensor] = {}
    owner = threading.get_ident()

    def keep(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor) and threading.get_ident() == owner:
            answers.pop(name, None)
            # A copy, because a layer behind may work in place on this tensor.
            answers[name] = value.detach().clone()

    handles = []
    with model_lock(model):
        try:
            for name, module in layers.items():
                handles.append(module.register_forward_hook(_named(name, keep)))
            with frozen(model), torch.no_grad():
                answer = call(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
    return answer, answers


def _of_token(features: torch.Tensor, answer: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Of features (n, t, d) take the token whose scores became the logits, else the mean."""
    if answer.shape[0] == len(logits) and answer.shape[-1] == logits.shape[1]:
        same = (answer.detach() == logits.detach()[:, None]).all(dim=2)
        if bool(same.any(dim=1).all()):
            rows = torch.arange(len(features), device=features.device)
            return features[rows, same.int().argmax(dim=1)]
    return features.mean(dim=1)


def _named(name: str, keep: Callable[[str, Any], None]) -> Callable[[Any, Any, Any], None]:
    return lambda _module, _args, value: keep(name, value)


def _same(answer: torch.Tensor, logits: torch.Tensor) -> bool:
    n, n_classes = logits.shape
    if answer.shape[0] != n:
        return False
    if answer.ndim == 4 and answer.shape[1] == n_classes:
        answer = answer.mean(dim=(2, 3))  # a head before global pooling
    elif answer.ndim == 3 and answer.shape[-1] == n_classes:
        return bool((answer == logits[:, None]).all(dim=2).any(dim=1).all())  # one token's scores
    if answer.shape != logits.shape:
        return False
    return bool(torch.allclose(answer.to(logits), logits, rtol=1e-4, atol=1e-5))
