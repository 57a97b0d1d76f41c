"""Axes of a layer's activations: which is the sample, the channel, the position."""

from __future__ import annotations

__all__ = ["Layout", "find_layout"]

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from conceptlab.errors import InputError, SplitError

_MAX_PREFIX = 16


@dataclass(frozen=True)
class Layout:
    """How a layer's activations are laid out.

    Attributes
    ----------
    axes : str
        One letter an axis: ``n`` samples, ``c`` channels, any others are
        positions; ``"nc"``, ``"nchw"``, ``"nhwc"``, ``"ntc"``, ``"tnc"``, ``"nct"``.
    n_prefix : int
        Tokens before the image's patches (class token, registers).
    grid : tuple of int or None
        Height and width of the positions that lie on the image's plane,
        without prefix tokens; None for text and for ``"nc"``.
    """

    axes: str
    n_prefix: int = 0
    grid: tuple[int, int] | None = None

    @property
    def batch_axis(self) -> int:
        """Axis of the samples."""
        return self.axes.index("n")

    @property
    def to_last(self) -> tuple[int, ...]:
        """Permutation to (n, *positions, c)."""
        places = [i for i, letter in enumerate(self.axes) if letter not in "nc"]
        return (self.axes.index("n"), *places, self.axes.index("c"))

    def to_positions(self, activations: torch.Tensor) -> torch.Tensor:
        """Permute to (n, *positions, c); a view."""
        if activations.ndim != len(self.axes):
            raise InputError(
                f"Activations of layout {self.axes!r} have {len(self.axes)} axes, got shape "
                f"{tuple(activations.shape)}.",
                code="CL-INPUT-RANK",
            )
        return activations.permute(self.to_last)

    def from_positions(self, activations: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`to_positions`; a view."""
        if activations.ndim != len(self.axes):
            raise InputError(
                f"Activations (n, *positions, c) of a layer with layout {self.axes!r} have "
                f"{len(self.axes)} axes, got shape {tuple(activations.shape)}.",
                code="CL-INPUT-RANK",
            )
        order = self.to_last
        return activations.permute([order.index(axis) for axis in range(len(order))])

    def spatial(self, values: torch.Tensor) -> torch.Tensor | None:
        """Lay (n, *positions, k) out on the image's plane: (n, h, w, k), or None."""
        if len(self.axes) == 4 and values.ndim == 4:
            return values
        if self.grid is None or len(self.axes) != 3 or values.ndim != 3:
            return None
        height, width = self.grid
        if values.shape[1] != self.n_prefix + height * width:
            return None
        patches = values[:, self.n_prefix :]
        return patches.reshape(len(values), height, width, values.shape[-1])


def find_layout(
    shape: tuple[int, ...],
    batch_axis: int,
    *,
    image_size: tuple[int, int] | None,
    seen_grids: Iterable[tuple[int, int]] = (),
    channels: int | None = None,
    axes: str | None = None,
    n_prefix: int | None = None,
    grid: tuple[int, int] | None = None,
) -> Layout:
    """Find the layout of activations of `shape`.

    Parameters
    ----------
    shape : tuple of int
        With a batch of any size.
    batch_axis : int
        The axis that follows the number of samples.
    image_size : tuple of int or None
        (height, width) of the images; None when the input is no image.
    seen_grids : iterable of tuple of int
        Spatial sizes of feature maps met on the way, earliest first.
    channels : int, optional
        Number of channels where the layer tells.
    axes, n_prefix, grid : optional
        The user's word, which goes first.

    Returns
    -------
    Layout

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYOUT``: no rule fits.
    """
    if axes is not None:
        if len(axes) != len(shape) or axes.count("n") != 1 or axes.count("c") != 1:
            raise SplitError(
                f"layout={axes!r} must name the {len(shape)} axes of the activations "
                f"{shape} with one 'n' and one 'c', such as 'nchw' or 'ntc'.",
                code="CL-SPLIT-LAYOUT",
            )
    elif len(shape) == 2 and batch_axis == 0:
        axes = "nc"
    elif len(shape) == 3 and batch_axis in (0, 1):
        axes = "ntc" if batch_axis == 0 else "tnc"
        # One number a position would be no channels at all: (n, c, 1) comes from a pooling.
        if batch_axis == 0 and (channels == shape[1] != shape[2] or shape[2] == 1 < shape[1]):
            axes = "nct"
    elif len(shape) == 4 and batch_axis == 0:
        axes = _channels_side(shape, image_size, channels)
    elif len(shape) == 5 and batch_axis == 0:
        axes = "ncdhw"
    else:
        raise SplitError(
            f"Activations of shape {shape} with the samples on axis {batch_axis} have no known "
            "layout. Choose another layer, or name the axes: SplitModel(..., layout='nchw').",
            code="CL-SPLIT-LAYOUT",
        )
    sizes = dict(zip(axes, shape, strict=True))
    if len(axes) == 4:
        rows, columns = (size for letter, size in sizes.items() if letter not in "nc")
        return Layout(axes, 0, (rows, columns))
    if len(axes) != 3 or (image_size is None and grid is None):
        return Layout(axes, n_prefix or 0, None)
    tokens = next(size for letter, size in sizes.items() if letter not in "nc")
    return Layout(axes, *_token_grid(tokens, image_size, seen_grids, n_prefix, grid))


def _channels_side(
    shape: tuple[int, ...], image_size: tuple[int, int] | None, channels: int | None
) -> str:
    _, first, middle, last = shape
    if channels is not None and (first == channels) != (last == channels):
        return "nchw" if first == channels else "nhwc"
    if image_size is None:
        return "nchw"
    # The positions keep the image's proportions and are fewer than its pixels.
    height, width = image_size

    def misfit(rows: int, columns: int) -> float:
        if rows > height or columns > width:
            return math.inf
        return abs(math.log((rows / columns) * (width / height)))

    return "nhwc" if misfit(first, middle) < misfit(middle, last) - 1e-9 else "nchw"


def _token_grid(
    tokens: int,
    image_size: tuple[int, int] | None,
    seen_grids: Iterable[tuple[int, int]],
    n_prefix: int | None,
    grid: tuple[int, int] | None,
) -> tuple[int, tuple[int, int] | None]:
    if grid is not None:
        rest = tokens - grid[0] * grid[1]
        if rest < 0 or (n_prefix is not None and rest != n_prefix):
            raise SplitError(
                f"grid={grid} and n_prefix={n_prefix} do not make the layer's {tokens} tokens.",
                code="CL-SPLIT-LAYOUT",
            )
        return rest, (int(grid[0]), int(grid[1]))
    allowed = range(_MAX_PREFIX + 1) if n_prefix is None else (n_prefix,)
    for rows, columns in reversed(list(seen_grids)):
        if tokens - rows * columns in allowed:
            return tokens - rows * columns, (rows, columns)
    if image_size is not None and image_size[0] == image_size[1]:
        for prefix in allowed:
            side = math.isqrt(max(tokens - prefix, 0))
            if side and side * side == tokens - prefix:
                return prefix, (side, side)
    return n_prefix or 0, None
