"""What a model's own machinery must not do during a borrowed pass.

A compiled module or forward runs as a program of its own, in which no hook is called;
checkpointed blocks run again at the time of the gradient, when the model is its owner's
again; and parameters gather gradients. None of this changes what is computed, so all
three are switched off for the pass and are as before after it.
"""

from __future__ import annotations

__all__ = ["frozen", "plain_pass"]

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint as checkpoints

# What torch.utils.checkpoint.checkpoint calls, in its releases.
_CHECKPOINTS = (
    "CheckpointFunction",
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)


@contextlib.contextmanager
def plain_pass(model: nn.Module) -> Iterator[None]:
    """Run without compilation and, where gradients flow, without checkpoints and parameters' own.

    Parameters
    ----------
    model : torch.nn.Module
        Whose lock the caller holds.
    """
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(_EAGER)
        if torch.is_grad_enabled():
            stack.enter_context(_WITHOUT_CHECKPOINTS)
            stack.enter_context(frozen(model))
        yield


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no tensor of the model ask for a gradient, registered as a parameter or not."""
    asking: dict[int, torch.Tensor] = {id(p): p for p in model.parameters() if p.requires_grad}
    for module in model.modules():
        for value in vars(module).values():
            for item in value if type(value) in (list, tuple) else (value,):
                if isinstance(item, torch.Tensor) and item.requires_grad and item.is_leaf:
                    asking[id(item)] = item
    try:
        for tensor in asking.values():
            tensor.requires_grad_(False)
        yield
    finally:
        for tensor in asking.values():
            tensor.requires_grad_(True)


class _Shared:
    """A setting of the whole process, kept while any thread is inside."""

    def __init__(self, setting: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._inside = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._open.enter_context(self._setting())
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._open.close()


class _WithoutCheckpoints:
    """Has torch's checkpoints call their function and do nothing else, in threads inside."""

    def __init__(self) -> None:
        self._threads: Counter[int] = Counter()
        self._shared = _Shared(self._patched)

    def __enter__(self) -> None:
        self._shared.__enter__()
        self._threads[threading.get_ident()] += 1

    def __exit__(self, *exception: object) -> None:
        self._threads[threading.get_ident()] -= 1
        self._shared.__exit__(*exception)

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        module: Any = checkpoints
        saved = {name: getattr(module, name) for name in _CHECKPOINTS if hasattr(module, name)}
        reentrant = saved["CheckpointFunction"]

        def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            if self._threads[threading.get_ident()]:
                return function(*args)
            return reentrant.apply(function, preserve, *args)

        def stand_in(original: Callable[..., Any]) -> Callable[..., Any]:
            def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
                inside = self._threads[threading.get_ident()]
                found: Iterator[None] = _nothing() if inside else original(*args, **kwargs)
                return found

            return generator

        try:
            for name, original in saved.items():
                setattr(module, name, stand_in(original))
            new = type("CheckpointFunction", (reentrant,), {"apply": staticmethod(apply)})
            module.CheckpointFunction = new
            yield
        finally:
            for name, original in saved.items():
                setattr(module, name, original)


def _nothing() -> Iterator[None]:
    """Do nothing before and after the function of a checkpoint."""
    yield


_EAGER = _Shared(lambda: torch.compiler.set_stance("force_eager"))
_WITHOUT_CHECKPOINTS = _WithoutCheckpoints()
