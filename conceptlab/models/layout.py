"""Axes of a layer's activations: which is the sample, the channel, the position."""

from __future__ import annotations

__all__ = ["Layout", "find_layout"]

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from conceptlab.errors import InputError, SplitError
from conceptlab.models.axes import Named


@dataclass(frozen=True)
class Layout:
    """How a layer's activations are laid out.

    Attributes
    ----------
    axes : str
        One letter an axis: ``n`` samples, ``c`` channels, any others are
        positions; ``"nc"``, ``"nchw"``, ``"nhwc"``, ``"ntc"``, ``"tnc"``, ``"nct"``,
        ``"ncdhw"``; ``"s"`` and ``"t"`` for two that are no plane of an image.
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
        """Permutation to (n, *positions, c), rows before columns."""
        places = [i for i, letter in enumerate(self.axes) if letter not in "nc"]
        if sorted(self.axes) == ["c", "h", "n", "w"]:
            places.sort(key=lambda place: self.axes[place])
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
        if self.grid is not None and len(self.axes) == 4 and values.ndim == 4:
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
    named: Named | None = None,
    moved: Callable[[], dict[int, int] | None] = lambda: None,
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
    named : Named, optional
        What following a pass has shown of the axes.
    moved : callable
        Where that is not enough: gives the axes that an input of another size changes,
        see :func:`conceptlab.models.axes.moved_axes`.
    axes, n_prefix, grid : optional
        The user's word, which goes first.

    Returns
    -------
    Layout

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYOUT``: nothing tells the channels from the positions.
    """
    if axes is None:
        channel = _channel(shape, batch_axis, named, moved)
        axes = _letters(shape, batch_axis, channel, named, moved)
    elif len(axes) != len(shape) or axes.count("n") != 1 or axes.count("c") != 1:
        raise SplitError(
            f"layout={axes!r} must name the {len(shape)} axes of the activations "
            f"{shape} with one 'n' and one 'c', such as 'nchw' or 'ntc'.",
            code="CL-SPLIT-LAYOUT",
        )
    sizes = dict(zip(axes, shape, strict=True))
    if len(axes) == 4:
        rows, columns = (size for letter, size in sorted(sizes.items()) if letter not in "nc")
        return Layout(axes, 0, None if "s" in axes else (rows, columns))
    if len(axes) != 3 or (image_size is None and grid is None):
        return Layout(axes, n_prefix or 0, None)
    place = next(i for i, letter in enumerate(axes) if letter not in "nc")
    found = None
    if grid is None and named is not None and named.patches is not None:
        found = named.token_grid()
    elif grid is None and image_size is not None:
        found = _confirmed_grid(shape[place], (moved() or {}).get(place), image_size, seen_grids)
    return Layout(axes, *_token_grid(shape[place], found, n_prefix, grid))


def _channel(
    shape: tuple[int, ...],
    batch_axis: int,
    named: Named | None,
    moved: Callable[[], dict[int, int] | None],
) -> int:
    """Find the axis of the channels, or ask."""
    rest = [axis for axis in range(len(shape)) if axis != batch_axis]
    if len(shape) == 2 or (len(shape) in (3, 4, 5) and len([a for a in rest if shape[a] > 1]) == 1):
        # One number a position would be no channels at all: (n, c, 1, 1) comes from a pooling.
        return next((axis for axis in rest if shape[axis] > 1), rest[-1])
    if len(shape) in (3, 4, 5) and batch_axis in (0, 1):
        found = None if named is None else named.channel_axis(batch_axis)
        if found is None:
            still = [axis for axis in rest if axis not in (moved() or dict.fromkeys(rest))]
            found = still[0] if len(still) == 1 else None
        if found is not None:
            return found
    raise SplitError(
        f"It cannot be told which axis of the activations {shape} holds the channels. Name the "
        "axes, with n for samples and c for channels: SplitModel(..., layout='nchw'), 'nhwc', "
        "'ntc', 'nct' or 'tnc'; or choose another layer.",
        code="CL-SPLIT-LAYOUT",
    )


def _letters(
    shape: tuple[int, ...],
    batch_axis: int,
    channel: int,
    named: Named | None,
    moved: Callable[[], dict[int, int] | None],
) -> str:
    places = [axis for axis in range(len(shape)) if axis not in (batch_axis, channel)]
    tags = [None if named is None else named.axes[axis] for axis in places]
    usual = {0: "", 1: "t", 2: "hw", 3: "dhw"}[len(places)]
    if len(places) == 2 and tags.count("t") == 2:
        # Rows and columns double with the image; attention's positions are fourfold then.
        other = moved() or {}
        plane = all(other.get(axis) == 2 * shape[axis] for axis in places)
        usual = "hw" if plane else "st"
    elif len(places) > 1 and sorted(filter(None, tags)) == ["t", "x", "y"][3 - len(places) :]:
        usual = "".join({"t": "d", "y": "h", "x": "w"}[str(tag)] for tag in tags)
    letters = dict(zip(places, usual, strict=True)) | {batch_axis: "n", channel: "c"}
    return "".join(letters[axis] for axis in range(len(shape)))


def _confirmed_grid(
    tokens: int,
    doubled: int | None,
    image_size: tuple[int, int],
    seen_grids: Iterable[tuple[int, int]],
) -> tuple[int, tuple[int, int] | None]:
    """Find the grid of tokens whose number followed the image's size."""
    patches = ((doubled or tokens) - tokens) // 3  # height and width were doubled
    if not 0 < patches <= tokens or tokens + 3 * patches != doubled:
        return 0, None
    squares = [(math.isqrt(patches),) * 2] if image_size[0] == image_size[1] else []
    for rows, columns in [*reversed(list(seen_grids)), *squares]:
        if rows * columns == patches:
            return tokens - patches, (rows, columns)
    return 0, None


def _token_grid(
    tokens: int,
    found: tuple[int, tuple[int, int] | None] | None,
    n_prefix: int | None,
    grid: tuple[int, int] | None,
) -> tuple[int, tuple[int, int] | None]:
    """Give the user's word, or else what was found."""
    if grid is not None:
        rest = tokens - grid[0] * grid[1]
        if rest < 0 or (n_prefix is not None and rest != n_prefix):
            raise SplitError(
                f"grid={grid} and n_prefix={n_prefix} do not make the layer's {tokens} tokens.",
                code="CL-SPLIT-LAYOUT",
            )
        return rest, (int(grid[0]), int(grid[1]))
    if found is None or found[1] is None or n_prefix not in (None, found[0]):
        return n_prefix or 0, None
    return found
