"""Rows of activations: what crops and positions share.

Both compute g in passes that fit the memory, and put what comes out, row by row,
into memory or into a store.
"""

from __future__ import annotations

__all__ = ["INDEX_COLUMNS", "Passes", "Rows", "Sink", "automatic_batch"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.batching import BatchMemory, check_batch_size, run_together
from conceptlab.models.session import Inputs

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel
    from conceptlab.models.store import ActivationStore

INDEX_COLUMNS = ("image", "y", "x", "side")
"""Columns of an index: number of the image, upper left corner and side in pixels."""


@dataclass(frozen=True)
class Rows:
    """Activations and where each comes from.

    Attributes
    ----------
    rows : numpy.ndarray of shape (n_rows, c), float32, or ActivationStore
        One row a crop, or a position in mode ``"none"``.
    index : numpy.ndarray of shape (n_rows, 4), int64
        Columns :data:`INDEX_COLUMNS`. In mode ``"none"`` the square about the
        position's cell; side 0 for positions without a place in the image
        (class tokens; words, of which ``y`` is the place in the text).
    positions : tuple of int or None
        Sizes of the layer's positions, which the rows of an input run through, in mode
        ``"none"``; None for crops.
    """

    rows: Any
    index: np.ndarray
    positions: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[Any]:
        """Unpack to ``rows, index``."""
        return iter((self.rows, self.index))


class Sink:
    """Takes rows in order, into memory or a store.

    Parameters
    ----------
    store : ActivationStore, optional
        Where rows go; by default they stay in memory.
    """

    def __init__(self, store: ActivationStore | None) -> None:
        self.store = store
        self.parts: list[np.ndarray] = []
        self._known = 0

    @property
    def done(self) -> int:
        """Rows that an earlier run has left."""
        return 0 if self.store is None else len(self.store)

    def begin(self, step: int) -> int:
        """Give the row to go on from, the first of a group of `step` that is not whole.

        A run that goes on makes the batches of one that never stopped: a row's last bits
        may hang on the others in its batch. What is there already is not added again.
        """
        row = self.done
        if self.store is not None and not self.store.complete:
            row -= row % step
        self._known = self.done - row
        return row

    def add(self, rows: torch.Tensor) -> None:
        """Append rows, but for those of this group that are there already."""
        rows, self._known = rows[self._known :], max(self._known - len(rows), 0)
        if self.store is not None:
            self.store.append(rows)
        else:
            self.parts.append(rows.to("cpu", torch.float32).numpy())

    def finish(self) -> Any:
        """Give the matrix, or the store, which is then complete."""
        if self.store is not None:
            self.store.finish()
            return self.store
        return np.concatenate(self.parts) if self.parts else np.empty((0, 0), np.float32)


def automatic_batch(batch_size: int | str, shape: tuple[int, int], device: torch.device) -> int:
    """Resolve ``"auto"`` by the size of the input and the kind of device."""
    checked = check_batch_size(batch_size)
    if checked != "auto":
        return checked
    at_224 = 16 if device.type == "cpu" else 256
    return int(np.clip(at_224 * 224 * 224 // (shape[0] * shape[1]), 1, 1024))


class Passes:
    """Runs g without a graph, on fewer inputs at a time when memory runs out.

    Parameters
    ----------
    split : SplitModel
        The model, cut.
    batch_size : int or "auto"
        What the user said; a number is not gone below.
    """

    def __init__(self, split: SplitModel, batch_size: int | str) -> None:
        self.split, self.batch_size = split, check_batch_size(batch_size)
        self.memory = BatchMemory()

    def g(self, batch: Any) -> torch.Tensor:
        """Give the activations of a batch: a tensor, or a dict of tensors."""
        many = Inputs.of(batch) if isinstance(batch, Mapping) else None
        n = len(batch) if many is None else many.batch_size

        def run(start: int, stop: int) -> torch.Tensor:
            part = batch
            if stop - start < n:
                rows = torch.arange(start, stop)
                part = batch[start:stop] if many is None else many.rows(rows).kwargs
            with torch.no_grad():
                found: torch.Tensor = self.split.g(part)
                return found

        return run_together(run, n, batch_size=self.batch_size, memory=self.memory)
