"""Borrowing a user's model for one pass and giving it back as it was."""

from __future__ import annotations

__all__ = [
    "Inputs",
    "Session",
    "Stop",
    "check_model",
    "input_dtype",
    "model_copy",
    "model_lock",
    "unwrap",
]

import contextlib
import copy
import inspect
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from conceptlab.errors import InputError
from conceptlab.models.identity import edition
from conceptlab.models.plain import plain_pass

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


class Stop(BaseException):
    """Ends a forward pass at the layer; models that catch Exception let it through."""


def model_lock(model: nn.Module) -> threading.RLock:
    """Give the one lock of `model`, shared by all that borrow it."""
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(unwrap(model), threading.RLock())


def model_copy(model: M, memo: dict[int, Any] | None = None) -> M:
    """Copy a model deeply, never amid a pass of another thread.

    During a pass there are hooks and stand-ins for weights in it, which the copy
    would keep.
    """
    with model_lock(model):
        return copy.deepcopy(model, memo)


def unwrap(model: nn.Module) -> nn.Module:
    """Look through data-parallel wrappers and ``torch.compile``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def input_dtype(model: nn.Module) -> torch.dtype:
    """Find the floating dtype of a model's inputs: that of its first convolution or linear map.

    In models of mixed precision others are kept in float32, such as positions and norms.
    """
    first: torch.dtype | None = None
    for module in model.modules():
        for name, tensor in module.named_parameters(recurse=False):
            if not tensor.is_floating_point():
                continue
            if name == "weight" and tensor.ndim > 1 and not isinstance(module, nn.Embedding):
                return tensor.dtype
            first = first or tensor.dtype
    return first or torch.float32


def check_model(model: nn.Module) -> None:
    """Refuse a model that cannot be run, or cannot be looked into.

    Raises
    ------
    InputError
        For TorchScript (``CL-INPUT-TYPE``), and for weights that are not there
        (``CL-INPUT-DEVICE``).
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"The model is a TorchScript program ({type(model).__name__}): it runs as a whole, so "
            "that no layer inside it can be seen or changed. Give the Python module from before "
            "torch.jit.script or torch.jit.trace, with load_state_dict for its weights.",
            code="CL-INPUT-TYPE",
        )
    empty = next((name for name, p in model.named_parameters() if p.is_meta), None)
    if empty is not None:
        raise InputError(
            f"The weights of {type(model).__name__} are not loaded: {empty!r} is on the device "
            "'meta', which holds shapes only. Load them: model.to_empty(device='cpu') and "
            "model.load_state_dict(...), or build the model outside torch.device('meta').",
            code="CL-INPUT-DEVICE",
        )


@dataclass(frozen=True)
class Inputs:
    """What a model is called with.

    Attributes
    ----------
    args : tuple
        Positional arguments.
    kwargs : dict
        Keyword arguments, such as ``input_ids`` and ``attention_mask``.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Inputs:
        """Read a tensor, a tuple of arguments, or a mapping of keywords."""
        if isinstance(value, Mapping):
            return cls(kwargs=dict(value))
        if isinstance(value, tuple | list):
            return cls(args=tuple(value))
        return cls(args=(value,))

    def map(self, function: Callable[[torch.Tensor], Any]) -> Inputs:
        """Apply `function` to every tensor."""

        def change(value: Any) -> Any:
            return function(value) if isinstance(value, torch.Tensor) else value

        return Inputs(tree_map(change, self.args), tree_map(change, self.kwargs))

    def tensors(self) -> list[torch.Tensor]:
        """List all tensors."""
        found: list[torch.Tensor] = []
        self.map(found.append)
        return found

    @property
    def batch_size(self) -> int:
        """Length of the first tensor."""
        first = next((t for t in self.tensors() if t.ndim), None)
        return 0 if first is None else int(first.shape[0])

    def check_names(self, model: nn.Module, error: TypeError) -> None:
        """Say which inputs `model` takes, where `error` is that these are others."""
        signature = inspect.signature(model.forward)
        try:
            signature.bind(*self.args, **self.kwargs)
        except TypeError as wrong:
            needed = _needed(signature)
            named = ", ".join(f"{name!r}: ..." for name in needed)
            beside = ", ".join(f"{name!r}: ..." for name in needed[1:])
            given = f"or images and what goes beside them, CRAFT.fit(images, inputs={{{beside}}})"
            raise InputError(
                f"{type(model).__name__} takes {signature} and was given "
                f"{', '.join(self.kwargs) or len(self.args)}: {wrong}. Give all inputs as a dict "
                f"of tensors, such as {{{named}}}, one entry for each sample"
                f"{f', {given}' if beside else ''}.",
                code="CL-INPUT-TYPE",
            ) from error

    def check_channels(self, model: nn.Module, error: RuntimeError) -> None:
        """Say how many channels `model` takes, where `error` is that images have others."""
        told = re.search(r"to have (\d+) channels, but got (\d+) channels", str(error))
        if told and any(t.ndim > 3 and t.shape[1] == int(told[2]) for t in self.tensors()):
            raise InputError(
                f"{type(model).__name__} takes {told[1]} channel(s), and the images have "
                f"{told[2]}. Give images of as many, or convert them in preprocess=, for example "
                "lambda x: x.mean(1, keepdim=True) for grey.",
                code="CL-INPUT-LAYOUT",
            ) from error

    def rows(self, index: torch.Tensor) -> Inputs:
        """Take samples by their indices; what has no sample axis stays whole."""
        n = self.batch_size
        return self.map(lambda t: t[index.to(t.device)] if t.ndim and t.shape[0] == n else t)


def _needed(signature: inspect.Signature) -> list[str]:
    """Name the arguments without a default."""
    return [
        name
        for name, p in signature.parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


class Session:
    """Runs passes through a model that belongs to someone else.

    During a pass the model is in evaluation mode, its parameters ask for no
    gradient, and nothing is compiled or checkpointed, see
    :func:`conceptlab.models.plain.plain_pass`. Afterwards, also after an
    exception, every flag, hook and attribute is as before.

    Parameters
    ----------
    model : torch.nn.Module
        The unwrapped model.
    device : torch.device
        Where to compute. Elsewhere than the model's own device, copies of the
        weights are kept there; the model is not moved.
    precision : {"float32", "bfloat16"}
        ``"bfloat16"`` runs under autocast.
    channels_last : bool
        Whether convolutions run on channels-last images and weights.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: str, channels_last: bool
    ) -> None:
        check_model(model)
        self.model = model
        self.device = device
        self.precision = precision
        self.channels_last = channels_last
        self.lock = model_lock(model)
        self._converted: dict[str, tuple[torch.Tensor, Any, torch.Tensor]] = {}

    @property
    def dtype_and_device(self) -> tuple[torch.dtype, torch.device]:
        """Of the weights; float32 on the own device for a model without any."""
        for tensor in self.model.parameters():
            if tensor.is_floating_point():
                return input_dtype(self.model), tensor.device
        return torch.float32, self.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of inputs."""
        return self.dtype_and_device[0]

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Hold the lock and the evaluation mode."""
        with self.lock:
            training = [module for module in self.model.modules() if module.training]
            # The flag is set module by module: a user's train() may do more than that.
            for module in training:
                module.training = False
            try:
                with torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
                ):
                    yield
            finally:
                for module in training:
                    module.training = True

    def run(self, inputs: Inputs) -> Any:
        """Call the model; to be used inside :meth:`borrowed`."""
        if self.channels_last:
            inputs = inputs.map(_channels_last)
        state = self._state()
        with plain_pass(self.model):
            try:
                if state is None:
                    return self.model(*inputs.args, **inputs.kwargs)
                return torch.func.functional_call(
                    self.model, state, inputs.args, inputs.kwargs, tie_weights=False
                )
            except TypeError as error:
                inputs.check_names(self.model, error)
                raise
            except RuntimeError as error:
                inputs.check_channels(self.model, error)
                raise

    def _state(self) -> dict[str, torch.Tensor] | None:
        """Copies of parameters and buffers elsewhere or in another order; None if not needed."""
        if not self.channels_last and self.dtype_and_device[1] == self.device:
            return None
        tensors: dict[str, torch.Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        tensors |= dict(self.model.named_buffers(remove_duplicate=False))
        return {name: self._convert(name, t) for name, t in tensors.items()}

    def _convert(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        version = edition(tensor)
        known = self._converted.get(name)
        # The tensor object and its edition tell whether the weights were written since.
        if known is None or known[0] is not tensor or known[1] != version:
            copy = tensor.detach().to(self.device)
            known = (tensor, version, _channels_last(copy) if self.channels_last else copy)
            self._converted[name] = known
        return known[2]


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
