"""What a case of the contract is: a public function or method, and how to call it quickly.

The tables are in cases_conceptlab.py, cases_bottlenecks.py and cases_unlearning.py.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

KINDS = {
    "numpy float32": (torch.float32, 2e-4),
    "numpy float64": (torch.float64, 1e-9),
    "torch float32": (torch.float32, 2e-4),
    "torch float64": (torch.float64, 1e-9),
    "torch bfloat16": (torch.bfloat16, 0.02),
}
"""Kinds of arrays that a caller may have, and how far answers may be from each other."""


@dataclass(frozen=True)
class Cast:
    """Turns an array into the caller's kind; the values are the same for every kind."""

    kind: str = "numpy float64"

    def __call__(self, array: Any) -> Any:
        dtype = KINDS[self.kind][0]
        tensor = torch.tensor(np.array(array), dtype=torch.float64).bfloat16().to(dtype)
        return tensor if self.kind.startswith("torch") else tensor.numpy()

    def of(self, array: Any) -> Any:
        """Give labels or masks in the caller's library, with their own dtype."""
        return torch.tensor(array) if self.kind.startswith("torch") else np.array(array)


@dataclass(frozen=True)
class Call:
    """A function with its arguments, which are made anew for every case."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)


@dataclass(frozen=True)
class Case:
    """One call of a public function or method.

    Attributes
    ----------
    name : str
        Of the function, with a variant in brackets.
    function : callable
        The public function; for a method the function in its class, whose first
        argument is the object.
    build : callable
        From a `Cast` to positional arguments, or to (arguments, keywords).
    answers : str
        ``"like"``: of the kind and dtype of the arrays given. ``"numpy"``: arrays in
        it are NumPy's for every kind. ``"tensor"``: tensors, whatever is given.
        ``"array"``: either. ``"library"``: of the same library, in the dtype that is
        computed in. ``"self"``: the object, changed.
        ``"none"``: takes no arrays of floats.
    tolerance : float
        Factor on the tolerances of `KINDS`.
    """

    name: str
    function: Callable[..., Any]
    build: Callable[[Cast], Any]
    answers: str = "none"
    tolerance: float = 1.0

    def call(self, kind: str = "numpy float64") -> Call:
        """Make the arguments, and the call of the function with them."""
        found = self.build(Cast(kind))
        match found:
            case (tuple() as args, dict() as kwargs):
                return Call(self.function, args, kwargs)
        return Call(self.function, found if isinstance(found, tuple) else (found,))


CASES: dict[str, Case] = {}
"""All cases by name."""


def name_of(function: Any) -> str:
    """Name a function by the module that defines it."""
    function = getattr(function, "__func__", function)
    return f"{function.__module__}.{function.__qualname__}"


def case(
    function: Any,
    build: Callable[[Cast], Any] = lambda c: (),
    answers: str = "none",
    *,
    variant: str = "",
    tolerance: float = 1.0,
) -> None:
    """Put a call under contract."""
    name = name_of(function) + (f"[{variant}]" if variant else "")
    if name in CASES:
        raise ValueError(f"{name} is there twice")
    CASES[name] = Case(name, function, build, answers, tolerance)


# ------------------------------------------------------------ models that break
class Broke(RuntimeError):
    """What a model of the tests raises when it is told to break."""


class Breaking:
    """Counts the passes of all `Breakable` models, and breaks one."""

    def __init__(self) -> None:
        self.passes, self.at, self.lock = 0, -1, threading.Lock()

    def passed(self) -> None:
        """Count a pass; raise when it is the one."""
        with self.lock:
            self.passes += 1
            if 0 <= self.at <= self.passes:
                raise Broke("the model broke")


BREAKING = Breaking()


@contextlib.contextmanager
def breaking(at: int = -1) -> Iterator[Breaking]:
    """Let models break from pass number `at` on, counted from 1; never for -1."""
    BREAKING.passes, BREAKING.at = 0, at
    try:
        yield BREAKING
    finally:
        BREAKING.passes, BREAKING.at = 0, -1


class Breakable(nn.Sequential):
    """A classifier whose passes are counted, in all copies together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        BREAKING.passed()
        return super().forward(x)


def breakable_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Count the calls of a function with the passes of models."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        BREAKING.passed()
        return function(*args, **kwargs)

    return counted


def marked(model: nn.Module, *, training: bool = True) -> nn.Module:
    """Mark a model with all that must come back: modes, a hook, gradients, flags."""
    model.train(training)
    model[-1].eval()  # type: ignore[index]
    first = next(model.parameters())
    first.requires_grad_(False)
    for parameter in list(model.parameters())[1:]:
        parameter.grad = torch.full_like(parameter, 0.5)
    model[0].register_forward_hook(_nothing)  # type: ignore[index]
    return model


def model() -> nn.Module:
    """Make a classifier of images (n, 3, 16, 16) with a mode, a hook and gradients of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True))
        head = (nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        return marked(Breakable(body, *head))


def _nothing(module: nn.Module, args: Any, output: Any) -> None:
    """Do nothing; it only has to be there afterwards."""


def models_in(call: Call) -> list[nn.Module]:
    """Find the models among the arguments of a call, also inside what holds one."""
    found: list[nn.Module] = []
    for value in [*call.args, *call.kwargs.values()]:
        for holder in (value, *(getattr(value, n, None) for n in ("model", "module", "split"))):
            inner = getattr(holder, "model", holder)
            if isinstance(inner, nn.Module) and all(inner is not known for known in found):
                found.append(inner)
    return found
