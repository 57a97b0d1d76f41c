"""Activations of every position of whole inputs: rows without crops."""

from __future__ import annotations

__all__ = ["cell_squares", "position_rows"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.datasets.resize import Fit
from conceptlab.datasets.sources import stack
from conceptlab.models.images import model_images
from conceptlab.models.joined import Joined
from conceptlab.models.rows import Passes, Rows, Sink, automatic_batch
from conceptlab.models.session import Inputs
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel


def position_rows(
    split: SplitModel,
    images: Any,
    sink: Sink,
    batch_size: int | str,
    size: int | tuple[int, int] | None,
    progress: Progress,
) -> Rows:
    """Compute one row for every position of every input; see ``pooled_activations``."""
    if isinstance(images, Mapping):
        inputs = Inputs.of(images)
        n, shape, digest = inputs.batch_size, (224, 224), fingerprint(*inputs.tensors())
    else:
        beside = images.beside if isinstance(images, Joined) else None
        source = model_images(images.images if isinstance(images, Joined) else images, split)
        n = len(source)
        pair = (size, size) if isinstance(size, int) else size
        fit = None if pair is None else Fit(*pair)
        first = stack(source.read(0, 1), fit)
        shape, digest = (int(first.shape[2]), int(first.shape[3])), ""
        if sink.store is not None:
            digest = source.digest(0, n)
            if beside is not None:
                digest = fingerprint(digest, beside.kwargs, *beside.args)
    if sink.store is not None:
        sink.store.bind(fingerprint(split.fingerprint, "none", repr(size), digest))

    def read(start: int, stop: int) -> Any:
        if isinstance(images, Mapping):
            return inputs.rows(torch.arange(start, stop)).kwargs
        batch = stack(source.read(start, stop), fit)
        return batch if beside is None else Joined(batch, beside.rows(torch.arange(start, stop)))

    step = automatic_batch(batch_size, shape, split.device)
    passes = Passes(split, batch_size)
    squares = np.empty((0, 3), np.int64)
    sizes: tuple[int, ...] | None = None
    start = 0
    if sink.done:
        # One sample tells how many rows each has; whole batches are not computed again.
        known = split.to_positions(passes.g(read(0, 1)))
        sizes = tuple(known.shape[1:-1])
        squares = cell_squares(split, sizes, shape)
        start = sink.begin(step * len(squares)) // len(squares)
    for first_one in track(
        range(start, n, step), description="compute activations", progress=progress, unit="batch"
    ):
        positions = split.to_positions(passes.g(read(first_one, min(first_one + step, n))))
        if sizes is None:
            sizes = tuple(positions.shape[1:-1])
            squares = cell_squares(split, sizes, shape)
        sink.add(positions.reshape(-1, positions.shape[-1]))
    index = np.empty((n * len(squares), 4), np.int64)
    index[:, 0] = np.repeat(np.arange(n), len(squares))
    index[:, 1:] = np.tile(squares, (n, 1))
    return Rows(sink.finish(), index, sizes)


def cell_squares(
    split: SplitModel, positions: tuple[int, ...], shape: tuple[int, int]
) -> np.ndarray:
    """Give the square (y, x, side) in the image about each position's cell.

    Parameters
    ----------
    split : SplitModel
        After a first pass.
    positions : tuple of int
        Sizes of the positions' axes.
    shape : tuple of int
        (height, width) of the images.

    Returns
    -------
    numpy.ndarray of shape (n_positions, 3), int64
        Row by row; side 0 for what has no place in the image.
    """
    count = math.prod(positions)
    numbers = torch.arange(count).reshape(1, *positions, 1)
    plane = split.spatial(numbers)
    squares = np.zeros((count, 3), np.int64)
    if plane is None:
        squares[:, 0] = np.arange(count) if positions else 0
        return squares
    rows, columns = plane.shape[1:3]
    side = min(math.ceil(max(shape[0] / rows, shape[1] / columns)), *shape)
    for row in range(rows):
        for column in range(columns):
            y = (row + 0.5) * shape[0] / rows - side / 2
            x = (column + 0.5) * shape[1] / columns - side / 2
            squares[int(plane[0, row, column, 0])] = (
                int(np.clip(round(y), 0, shape[0] - side)),
                int(np.clip(round(x), 0, shape[1] - side)),
                side,
            )
    return squares
