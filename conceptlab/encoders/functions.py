"""An encoder from any two functions."""

from __future__ import annotations

__all__ = ["CallableEncoder"]

import contextlib
import functools
import inspect
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import resolve_device
from conceptlab.encoders.base import BaseEncoder
from conceptlab.encoders.preprocess import Preprocess
from conceptlab.encoders.shadow import shadow
from conceptlab.errors import InputError
from conceptlab.provenance import fingerprint as fingerprint_of


class CallableEncoder(BaseEncoder):
    """An encoder from a function of images and, optionally, one of texts.

    Parameters
    ----------
    encode_image : callable
        From a float32 batch (n, 3, h, w), as `preprocess` gives it, to (n, d).
        Modules, and methods of modules, compute through a twin with the same
        weights, so that the given one keeps its mode and gradients.
    encode_text : callable, optional
        From a list of n strings to (n, d).
    dim : int, optional
        Length of the vectors; found by encoding a blank image if not given.
    preprocess : Preprocess or callable, optional
        A callable takes a float32 batch in [0, 1], (n, 3, h, w), and gives the
        model's input. None leaves images in [0, 1] as they are.
    name : str
        For people.
    fingerprint : str, optional
        What tells this space from others. By default it is the hash of the
        weights of all modules found in the functions, and of their code and
        plain values; where there are no modules, each encoder counts as a
        space of its own, and saved banks and caches do not outlive it.
    device : str or torch.device
        "auto" is where the modules are, else the CPU.
    precision : {"float32", "bfloat16", "float16"}
        The two short ones compute under autocast.

    Examples
    --------
    >>> encoder = CallableEncoder(lambda x: x.amax(dim=(2, 3)), name="brightest", dim=3)
    >>> encoder.encode_image(np.zeros((4, 3, 8, 8), dtype=np.uint8)).shape
    (4, 3)
    """

    def __init__(
        self,
        encode_image: Callable[[torch.Tensor], Any],
        encode_text: Callable[[list[str]], Any] | None = None,
        dim: int | None = None,
        *,
        preprocess: Preprocess | Callable[[torch.Tensor], torch.Tensor] | None = None,
        name: str = "callable",
        fingerprint: str | None = None,
        device: str | torch.device = "auto",
        precision: str = "float32",
    ) -> None:
        for role, fn in (("encode_image", encode_image), ("encode_text", encode_text)):
            if not callable(fn) and not (role == "encode_text" and fn is None):
                raise InputError(
                    f"{role} must be callable, got {type(fn).__name__}.", code="CL-INPUT-TYPE"
                )
        memo: dict[int, Any] = {}
        modules = _modules_of(encode_image) + _modules_of(encode_text)
        if device == "auto":
            weights = (p.device for module in modules for p in module.parameters())
            place = next(weights, torch.device("cpu"))
        else:
            place = resolve_device(device)
        self._encode_image = _through_twin(encode_image, memo, place)
        self._encode_text = None if encode_text is None else _through_twin(encode_text, memo, place)
        kept = _modules_of(self._encode_image) + _modules_of(self._encode_text)
        self._prepare = None if isinstance(preprocess, Preprocess) else preprocess
        self._guard = _EvalGuard(kept)
        if fingerprint is None and not kept:
            fingerprint = f"instance {uuid.uuid4().hex}"
        super().__init__(
            name,
            device=place,
            preprocess=preprocess if isinstance(preprocess, Preprocess) else Preprocess(None),
            modules=kept if fingerprint is None else (),
            identity={
                "given": fingerprint,
                "preprocess": _code_of(self._prepare),
                "functions": [_code_of(fn) for fn in (encode_image, encode_text)]
                if fingerprint is None
                else None,
            },
            precision=precision,
        )
        self._dim = dim

    def encode_text(self, texts: Sequence[str] | str, **options: Any) -> Any:
        """Encode texts to vectors; see :meth:`BaseEncoder.encode_text`."""
        if self._encode_text is None:
            raise InputError(
                f"{self.name} was made without encode_text, so it knows no texts. Make concepts "
                "from examples, or give encode_text.",
                code="CL-INPUT-OPTION",
            )
        return super().encode_text(texts, **options)

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._prepare is not None:
            pixels = self._prepare(pixels)
        with self._guard:
            return self._answer(self._encode_image(pixels))

    def _tokenize(self, texts: list[str]) -> list[str]:
        return texts

    def _token_counts(self, texts: list[str]) -> list[int] | None:
        return None

    def _text_features(self, tokens: Any) -> torch.Tensor:
        if self._encode_text is None:
            raise RuntimeError("no text function")
        with self._guard:
            return self._answer(self._encode_text(tokens))

    def _answer(self, value: Any) -> torch.Tensor:
        if isinstance(value, np.ndarray | list):
            value = torch.as_tensor(np.asarray(value))
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"{self.name} returned a {type(value).__name__}; expected an array or tensor "
                "(n, d). Pick the features out inside the function.",
                code="CL-INPUT-TYPE",
            )
        if self._dim is not None and value.shape[-1] != self._dim:
            raise InputError(
                f"{self.name} returned vectors of length {value.shape[-1]}, but dim={self._dim} "
                "was given. Images and texts must end in one space.",
                code="CL-INPUT-FEATURES",
            )
        return value.to(self.device)


class _EvalGuard:
    """Keep modules in evaluation mode while any thread is inside, then put their modes back."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = list(modules)
        self._lock = threading.Lock()
        self._inside = 0
        self._training: list[nn.Module] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                every = (child for module in self._modules for child in module.modules())
                self._training = [child for child in every if child.training]
                for child in self._training:
                    child.training = False
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for child in self._training:
                    child.training = True
                self._training = []

    def __reduce__(self) -> tuple[Any, ...]:
        return _EvalGuard, (self._modules,)


def _through_twin(fn: Any, memo: dict[int, Any], device: torch.device) -> Any:
    if isinstance(fn, nn.Module):
        return shadow(fn, memo).to(device)
    if isinstance(fn, types.MethodType) and isinstance(fn.__self__, nn.Module):
        return types.MethodType(fn.__func__, shadow(fn.__self__, memo).to(device))
    return fn


def _modules_of(fn: Any) -> list[nn.Module]:
    """Find the modules that a callable uses, as far as they can be seen."""
    found: list[nn.Module] = []
    for value in _reachable(fn):
        if isinstance(value, nn.Module) and all(value is not module for module in found):
            found.append(value)
    return found


def _reachable(fn: Any) -> Iterator[Any]:
    if fn is None:
        return
    yield fn
    if isinstance(fn, functools.partial):
        for value in (fn.func, *fn.args, *fn.keywords.values()):
            yield from _reachable(value) if callable(value) else ()
    elif isinstance(fn, types.MethodType):
        yield fn.__self__
        if not isinstance(fn.__self__, nn.Module):
            yield from vars(fn.__self__).values() if hasattr(fn.__self__, "__dict__") else ()
    elif isinstance(fn, types.FunctionType):
        for cell in fn.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                yield from _owned(cell.cell_contents)
        for name in fn.__code__.co_names:
            yield from _owned(fn.__globals__.get(name))
    elif not isinstance(fn, nn.Module) and hasattr(fn, "__dict__"):
        yield from vars(fn).values()


def _owned(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, types.MethodType):
        yield value.__self__


def _code_of(fn: Any) -> Any:
    """Describe what a callable does, as far as it can be seen: code and plain values."""
    if isinstance(fn, functools.partial):
        values = {key: _plain(value) for key, value in fn.keywords.items()}
        return ["partial", _code_of(fn.func), [_plain(value) for value in fn.args], values]
    if isinstance(fn, types.MethodType):
        return ["method", type(fn.__self__).__qualname__, _code_of(fn.__func__)]
    if not isinstance(fn, types.FunctionType):
        return None if fn is None else [type(fn).__module__, type(fn).__qualname__]
    try:
        code: Any = inspect.getsource(fn)
    except (OSError, TypeError):  # typed at a prompt
        code = [fn.__code__.co_code.hex(), list(map(_plain, fn.__code__.co_consts))]
    seen = {name: fn.__globals__.get(name) for name in fn.__code__.co_names}
    with contextlib.suppress(ValueError):  # a cell that is not filled yet
        cells = [cell.cell_contents for cell in fn.__closure__ or ()]
        seen |= dict(zip(fn.__code__.co_freevars, cells, strict=True))
    values = {name: _plain(value) for name, value in seen.items()}
    return [fn.__qualname__, code, values, [_plain(value) for value in fn.__defaults__ or ()]]


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | torch.Tensor):
        return fingerprint_of(value)
    if depth < 8 and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if depth < 8 and isinstance(value, dict):
        return [[str(key), _plain(item, depth + 1)] for key, item in value.items()]
    return type(value).__qualname__
