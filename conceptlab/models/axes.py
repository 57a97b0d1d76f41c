"""What each axis of a layer's activations is, followed from the input through one pass.

A shape alone does not tell channels from positions: there may be as many of the one
as of the other. So a pass of one sample is watched call by call. What a convolution,
a linear map, a norm or an embedding gives has its channels on a known axis, and every
other call hands the names of its arguments' axes on: arithmetic by broadcasting,
products of matrices by their outer axes, and rearrangements (transpose, reshape,
slices, ...) by being run once more on the numbers of their argument's entries, which
shows where each went. For tokens it is also known which patch of the image each is.
"""

from __future__ import annotations

__all__ = ["Named", "OneSizeError", "moved_axes", "trace_axes"]

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from conceptlab.models.capture import capture
from conceptlab.models.outputs import layer_tensor
from conceptlab.models.session import Inputs, Session

Tag = str | None
_PLACES = ("y", "x", "t")
_BY_DIMENSION = {1: ("t",), 2: ("y", "x"), 3: ("t", "y", "x")}
# fmt: off
_MOVES = {
    "permute", "transpose", "transpose_", "swapaxes", "swapdims", "movedim", "moveaxis", "adjoint",
    "t", "T", "mT", "flatten", "unflatten", "reshape", "reshape_as", "view", "view_as", "squeeze",
    "unsqueeze", "expand", "expand_as", "repeat", "tile", "repeat_interleave", "chunk", "split",
    "tensor_split", "narrow", "select", "unbind", "__getitem__", "index_select", "gather", "roll",
    "take_along_dim", "flip", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "unfold",
}
# fmt: on
_REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "vector_norm"}
_REDUCTIONS |= {"logsumexp", "median", "prod", "nanmean"}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "baddbmm", "addmm", "addbmm"}
_NORMS = {"batch_norm", "group_norm", "instance_norm"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
# Of the shape of an argument, and yet with other axes.
_OPAQUE = {"inner", "outer", "tensordot", "kron", "cdist", "as_strided", "fold", "addmv", "mv"}
_GETTERS = {torch.Tensor.T: "T", torch.Tensor.mT: "mT"}


@dataclass(frozen=True)
class Named:
    """What is known of a tensor's axes.

    Attributes
    ----------
    axes : tuple of {"c", "y", "x", "t", None}
        Channels, rows and columns of the image's plane, other positions (tokens,
        words, frames), unknown.
    patches : ndarray of shape (t,), int, or None
        For tokens made from a plane: the number of each one's patch, row by row; -1
        for others, such as a class token.
    grid : tuple of int or None
        Rows and columns of these patches.
    """

    axes: tuple[Tag, ...]
    patches: np.ndarray | None = None
    grid: tuple[int, int] | None = None

    def channel_axis(self, batch_axis: int) -> int | None:
        """Give the axis of the channels where there is just one that it can be."""
        rest = [axis for axis in range(len(self.axes)) if axis != batch_axis]
        known = [axis for axis in rest if self.axes[axis] == "c"]
        found = known or [axis for axis in rest if self.axes[axis] is None]
        return found[0] if len(found) == 1 else None

    def token_grid(self) -> tuple[int, tuple[int, int] | None]:
        """Give the number of tokens before the patches, and the grid, None where none is kept."""
        if self.patches is None or self.grid is None:
            return 0, None
        first = int((self.patches >= 0).argmax())
        whole = np.array_equal(self.patches[first:], np.arange(self.grid[0] * self.grid[1]))
        return (first, self.grid) if whole else (0, None)


def trace_axes(session: Session, layer: nn.Module, sample: Inputs) -> Named | None:
    """Follow the names of axes from the input to a layer's output.

    Parameters
    ----------
    session : Session
        Already borrowed by the caller.
    layer : torch.nn.Module
        Where the pass ends.
    sample : Inputs
        One sample.

    Returns
    -------
    Named or None
        None where nothing is known of the output.
    """
    trace = _Trace()
    for tensor in sample.tensors():
        trace.start(tensor)
    try:
        with torch.no_grad(), trace:
            value = capture(session, layer, sample)
        return None if value is None else trace.names.get(layer_tensor(value, ""))
    except Exception:  # of a model's code that minds being watched
        return None


class OneSizeError(Exception):
    """A model takes inputs of one size only; its words are those of the model's error."""


def moved_axes(
    session: Session, layer: nn.Module, sample: Inputs, shape: tuple[int, ...]
) -> dict[int, int] | None:
    """Run the model on an input of another size and see which axes of the activations follow.

    Parameters
    ----------
    session : Session
        Already borrowed by the caller.
    layer : torch.nn.Module
        Where the pass ends.
    sample : Inputs
        One sample.
    shape : tuple of int
        Of the activations of `sample`.

    Returns
    -------
    dict of int to int, or None
        For each axis that follows, its new size with the input doubled (texts: halved) along
        every axis; None where there is no size to change.

    Raises
    ------
    OneSizeError
        Where the model takes the sample, and no other size. An error that the sample meets as
        well is the model's own.
    """
    first = next((t for t in sample.tensors() if t.ndim > 1), None)
    if first is None:
        return None
    text = not first.is_floating_point()
    if text and (first.ndim != 2 or first.shape[1] < 2):
        return None
    axes = (1,) if text else tuple(range(2, first.ndim))

    def other(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape != first.shape:
            return tensor
        if text:
            return tensor[:, : tensor.shape[1] // 2]
        for axis in axes:
            tensor = torch.cat([tensor, tensor], dim=axis)
        return tensor

    try:
        with torch.no_grad():
            value = capture(session, layer, sample.map(other))
    except Exception as error:  # models of one size say so each in their own way
        with torch.no_grad():
            capture(session, layer, sample)  # what fails here too has nothing to do with sizes
        raise OneSizeError(f"{type(error).__name__}: {str(error)[:200]}") from error
    found = tuple(layer_tensor(value, "").shape)
    if len(found) != len(shape):
        return None
    return {axis: size for axis, size in enumerate(found) if size != shape[axis]}


class _Trace(TorchFunctionMode):
    """Names the axes of all that is computed from named tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.names = WeakIdKeyDictionary()

    def start(self, tensor: torch.Tensor) -> None:
        """Name what an input certainly has: the plane of images, the words of texts."""
        if tensor.ndim in (4, 5) and tensor.is_floating_point():
            self.names[tensor] = Named((*[None] * (tensor.ndim - 2), "y", "x"))
        elif tensor.ndim == 2 and not tensor.is_floating_point():
            self.names[tensor] = Named((None, "t"))

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor | tuple | list):
            with contextlib.suppress(Exception):  # a call not foreseen leaves its result unnamed
                self._name(func, args, kwargs, result)
        return result

    def _name(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = _GETTERS.get(func.__self__, "")
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        first = result if isinstance(result, torch.Tensor) else next(iter(result), None)
        if not given or not isinstance(first, torch.Tensor):
            return
        known: Named | None = self.names.get(given[0])
        if name in _MOVES:
            self._move(func, args, kwargs, given, result)
        elif name.startswith("conv") and first.ndim == given[0].ndim:
            self._set(first, _convolved(known, first.ndim), given[0])
        elif name == "linear":
            self._set(first, _mapped(known, first.ndim), given[0])
        elif name == "embedding":
            ids = known or self.names.get(given[1])
            self._set(first, Named((*(ids.axes if ids else [None] * (first.ndim - 1)), "c")))
        elif name in _NORMS | {"layer_norm"}:
            self._set(first, _normed(known, first.ndim, 1 if name in _NORMS else -1), given[0])
        elif name in _RECURRENT or name == "multi_head_attention_forward":
            self._set(first, _mapped(known, first.ndim), given[0])
        elif name in ("cat", "concat", "concatenate"):
            self._join(given, _option(args, kwargs, 1, "dim", 0), first)
        elif name == "stack":
            axis = _option(args, kwargs, 1, "dim", 0) % first.ndim
            axes = list(self._merged(given, given[0].shape).axes)
            self._set(first, Named((*axes[:axis], None, *axes[axis:])))
        elif name in _PRODUCTS:
            left, right = map(self.names.get, given[-2:])
            self._set(first, _product(left, right, first.ndim))
        elif name == "scaled_dot_product_attention" and known is not None:
            last = getattr(self.names.get(given[2]), "axes", (None,))[-1]
            self._set(first, Named((*known.axes[:-1], last), known.patches, known.grid), given[0])
        elif name == "einsum":
            self._sum(_option(args, kwargs, 0, "equation", ""), given, first)
        elif name in _REDUCTIONS and known is not None:
            self._reduce(args, kwargs, known, given[0], result)
        elif known is not None and first.ndim == given[0].ndim and _resizes(name):
            self._set(first, known, given[0])
        elif name not in _OPAQUE:
            for tensor in (result,) if isinstance(result, torch.Tensor) else result:
                if isinstance(tensor, torch.Tensor):
                    self._set(tensor, self._merged(given, tensor.shape))

    def _set(self, tensor: torch.Tensor, named: Named, source: torch.Tensor | None = None) -> None:
        """Keep a name; patches only where the tokens are as many as before."""
        if source is not None and named.patches is not None:
            axis = named.axes.index("t") if "t" in named.axes else None
            if axis is None or tensor.shape[axis] != len(named.patches):
                named = Named(named.axes)
        if len(named.axes) == tensor.ndim and any(named.axes):
            self.names[tensor] = named
        else:
            self.names.pop(tensor, None)

    def _merged(self, given: Sequence[torch.Tensor], shape: Sequence[int]) -> Named:
        """Names of what arithmetic makes of tensors that broadcast to `shape`."""
        axes: list[Tag] = [None] * len(shape)
        from_first: Named | None = None
        for tensor in given:
            named = self.names.get(tensor)
            offset = len(shape) - tensor.ndim
            if named is None or offset < 0:
                continue
            fits = all(size in (1, shape[axis + offset]) for axis, size in enumerate(tensor.shape))
            if not fits:
                continue
            for axis, tag in enumerate(named.axes):
                if tag is not None and tensor.shape[axis] == shape[axis + offset]:
                    axes[axis + offset] = _agreed(axes[axis + offset], tag)
            if from_first is None and named.patches is not None:
                from_first = named
        if from_first is None or "t" not in axes:
            return Named(tuple(axes))
        if shape[axes.index("t")] != len(from_first.patches):  # type: ignore[arg-type]
            return Named(tuple(axes))
        return Named(tuple(axes), from_first.patches, from_first.grid)

    def _move(
        self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any
    ) -> None:
        """Run a rearrangement on the numbers of its argument's entries."""
        source = next((t for t in given if t in self.names), None)
        if source is None:
            return
        numbers = torch.arange(source.numel(), dtype=torch.float64).reshape(source.shape)
        numbers = numbers.to(source.device)
        swapped = tree_map(lambda value: numbers if value is source else value, (args, kwargs))
        moved = func(*swapped[0], **swapped[1])
        named = self.names[source]
        shape = tuple(source.shape)
        pairs = [(result, moved)]
        if not isinstance(result, torch.Tensor):
            pairs = list(zip(result, moved, strict=True))
        for tensor, places in pairs:
            self._set(tensor, _moved(named, shape, places))

    def _join(self, given: list[torch.Tensor], axis: int, result: torch.Tensor) -> None:
        given = [tensor for tensor in given if tensor.ndim == result.ndim]
        axis %= result.ndim
        whole = list(result.shape)
        axes: list[Tag] = [None] * result.ndim
        for tensor in given:
            for place, tag in enumerate(getattr(self.names.get(tensor), "axes", ())):
                if tag is not None and (place == axis or tensor.shape[place] == whole[place]):
                    axes[place] = _agreed(axes[place], tag)
        grids = {n.grid for n in map(self.names.get, given) if n is not None and n.grid is not None}
        if axes[axis] != "t" or len(grids) != 1:
            merged = self._merged(given, result.shape) if axes[axis] != "t" else None
            kept = merged if merged is not None and merged.patches is not None else Named(())
            self._set(result, Named(tuple(axes), kept.patches, kept.grid))
            return
        parts = []
        for tensor in given:
            patches = getattr(self.names.get(tensor), "patches", None)
            parts.append(np.full(tensor.shape[axis], -1) if patches is None else patches)
        self._set(result, Named(tuple(axes), np.concatenate(parts), grids.pop()))

    def _reduce(
        self, args: Any, kwargs: Any, known: Named, source: torch.Tensor, result: Any
    ) -> None:
        for tensor in (result,) if isinstance(result, torch.Tensor) else result:
            if tensor.ndim == source.ndim:
                self._set(tensor, known, source)
                continue
            dims = _option(args, kwargs, 1, "dim", kwargs.get("axis"))
            gone = {d % source.ndim for d in ((dims,) if isinstance(dims, int) else dims)}
            axes = tuple(tag for axis, tag in enumerate(known.axes) if axis not in gone)
            self._set(tensor, Named(axes, known.patches, known.grid), source)

    def _sum(self, equation: Any, given: list[torch.Tensor], result: torch.Tensor) -> None:
        left, _, right = str(equation).replace(" ", "").partition("->")
        tags: dict[str, Tag] = {}
        new: set[str] = set()
        patches: Named | None = None
        for letters, tensor in zip(left.split(","), given, strict=True):
            named = self.names.get(tensor)
            if named is None:
                new |= set(letters)
                continue
            patches = patches or (named if named.patches is not None else None)
            for letter, tag in zip(letters, named.axes, strict=True):
                tags[letter] = tags.get(letter) or tag
        axes = [tags.get(letter) for letter in right]
        free = [i for i, letter in enumerate(right) if letter in new and letter not in tags]
        if "c" not in axes and len(free) == 1:
            axes[free[0]] = "c"
        kept = patches or Named(())
        self._set(result, Named(tuple(axes), kept.patches, kept.grid), result)


def _option(args: Any, kwargs: dict[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _resizes(name: str) -> bool:
    """Whether a function gives the same axes with other sizes."""
    return "pool" in name or name in {"interpolate", "upsample", "pad", "grid_sample"}


def _agreed(one: Tag, other: Tag) -> Tag:
    if one is None or one == other or (one == "t" and other in _PLACES):
        return other
    if one not in _PLACES or other not in _PLACES:
        return None
    return one if other == "t" else "t"


def _keeps(known: Named | None, axis: int) -> bool:
    """Whether a map along `axis` mixes positions: its channels are known to be elsewhere."""
    return known is not None and known.axes[axis] in _PLACES and "c" in known.axes


def _convolved(known: Named | None, ndim: int) -> Named:
    if known is not None and _keeps(known, 1):
        return known
    usual = _BY_DIMENSION[ndim - 2]
    before = known.axes[2:] if known is not None else (None,) * (ndim - 2)
    pairs = zip(before, usual, strict=True)
    tags = tuple(tag if tag in _PLACES else default for tag, default in pairs)
    kept = known or Named(())
    return Named((None, "c", *tags), kept.patches, kept.grid)


def _mapped(known: Named | None, ndim: int) -> Named:
    """Names after a linear map of the last axis."""
    if known is None:
        return Named((*[None] * (ndim - 1), "c"))
    if _keeps(known, -1):
        return known
    return Named((*known.axes[:-1], "c"), known.patches, known.grid)


def _normed(known: Named | None, ndim: int, axis: int) -> Named:
    axes = list(known.axes if known is not None else [None] * ndim)
    if ndim > 1 and axes[axis] is None and "c" not in axes:
        axes[axis] = "c"
    kept = known or Named(())
    return Named(tuple(axes), kept.patches, kept.grid)


def _product(left: Named | None, right: Named | None, ndim: int) -> Named:
    """Names of a product of matrices; what is not named has learned values."""
    if right is None:
        return _mapped(left, ndim)
    if left is None:
        return right if len(right.axes) == ndim else Named((None,) * ndim)
    if min(len(left.axes), len(right.axes)) < 2:
        return Named((None,) * ndim)
    outer = left.axes[:-2] if len(left.axes) >= len(right.axes) else right.axes[:-2]
    axes = (*outer, left.axes[-2], right.axes[-1])
    source = left if left.axes[-2] == "t" else right
    return Named(axes, source.patches, source.grid)


def _moved(named: Named, shape: tuple[int, ...], places: torch.Tensor) -> Named:
    """Read from the numbers of entries which old axes each new one runs through."""
    axes: list[Tag] = []
    patches, grid = None, None
    for axis in range(places.ndim):
        line = places
        for other in reversed([a for a in range(places.ndim) if a != axis]):
            line = line.select(other, 0)
        old = np.unravel_index(line.cpu().numpy().astype(np.int64), shape)
        varied = [a for a, values in enumerate(old) if len(values) and (values != values[0]).any()]
        tags = [named.axes[a] for a in varied]
        if len(varied) == 1:
            tag = tags[0]
            if tag == "t" and named.patches is not None and named.grid is not None:
                line_of = named.patches[old[varied[0]]]
                tag = _direction(line_of, named.grid[1])
                patches, grid = (line_of, named.grid) if tag == "t" else (patches, grid)
            axes.append(tag)
            continue
        if tags and all(tag == "c" for tag in tags):
            axes.append("c")
            continue
        axes.append("t" if tags and all(tag in _PLACES for tag in tags) else None)
        if sorted(map(str, tags)) == ["x", "y"]:
            rows, columns = (old[named.axes.index(tag)] for tag in "yx")
            (kinds, rows), (others, columns) = (
                np.unique(values, return_inverse=True) for values in (rows, columns)
            )
            grid = (len(kinds), len(others))
            patches = rows * grid[1] + columns
    return Named(tuple(axes), patches, grid)


def _direction(patches: np.ndarray, columns: int) -> Tag:
    """Tell whether some patches are a column or a row of the grid again."""
    if (patches < 0).any():
        return "t"
    if (patches % columns == patches[0] % columns).all():
        return "y"
    return "x" if (patches // columns == patches[0] // columns).all() else "t"
