"""Folders of sharded ensembles, as plain parts: finished ones, and training that is to go on."""

from __future__ import annotations

__all__ = ["Parts", "SlicesOnDisk", "read_parts", "write_parts"]

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conceptlab.errors import InputError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding
from conceptlab.io.swap import remove_folder
from conceptlab.io.trees import pack, unpack
from conceptlab.training import checkpoint as checkpoints
from unlearning.classes.sharding.shards import Deletion, State

_KIND = "ShardedEnsemble"


@dataclass(frozen=True)
class Parts:
    """What a folder of an ensemble holds: everything but the samples and their model's code.

    Attributes
    ----------
    settings : dict
        Parameters as JSON values.
    seed, n_classes : int
    ids : list of str
    shard, slice : ndarray of shape (n,)
    deletions : list of Deletion
    states : list of list of dict
    augmented : bool
        Whether the fit had ``augment``.
    """

    settings: dict[str, Any]
    seed: int
    n_classes: int
    ids: list[str]
    shard: np.ndarray
    slice: np.ndarray
    deletions: list[Deletion]
    states: list[list[State]]
    augmented: bool


def write_parts(path: str | os.PathLike[str], parts: Parts) -> Path:
    """Write states and the places of the samples."""
    values, arrays = pack(parts.states)
    data = {
        "settings": parts.settings,
        "seed": parts.seed,
        "n_classes": parts.n_classes,
        "ids": parts.ids,
        "deletions": [asdict(d) for d in parts.deletions],
        "states": values,
        "augmented": parts.augmented,
    }
    arrays |= {"shard": parts.shard, "slice": parts.slice}
    return write_bundle(path, Bundle(_KIND, data, arrays))


def read_parts(path: str | os.PathLike[str], *, augmented: bool) -> Parts:
    """Read what :func:`write_parts` wrote of a fit with ``augment``, or of one without.

    Raises
    ------
    CheckpointError
        The folder is damaged, or of another kind.
    InputError
        ``CL-INPUT-OPTION``: the fit had ``augment`` and this one has not, or the reverse.
    """
    bundle = read_bundle(path, _KIND)
    found = bundle.data
    with rebuilding(path, _KIND):
        parts = Parts(
            settings=dict(found["settings"]),
            seed=int(found["seed"]),
            n_classes=int(found["n_classes"]),
            ids=list(found["ids"]),
            shard=bundle.tensors["shard"],
            slice=bundle.tensors["slice"],
            deletions=[Deletion(**d) for d in found["deletions"]],
            states=unpack(found["states"], bundle.tensors),
            augmented=bool(found["augmented"]),
        )
    if parts.augmented != augmented:
        raise InputError(
            f"The ensemble was fitted {'with' if parts.augmented else 'without'} augment; give the "
            "same to load(), or later deletions would not be exact.",
            code="CL-INPUT-OPTION",
        )
    return parts


class SlicesOnDisk:
    """The checkpoint of a fit or a deletion: states of finished slices.

    Parameters
    ----------
    path : path-like or None
        The folder; None keeps nothing.
    key : dict
        What the folder must match.
    seed : int
        Of the fit.

    Attributes
    ----------
    found : list of list of dict or None
        The states that were there.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, key: dict[str, Any], *, seed: int
    ) -> None:
        self.path = None if path is None else Path(path)
        self.key, self.seed = key, seed
        self._last = time.monotonic()
        known = None if self.path is None else checkpoints.read_checkpoint(self.path, key)
        self.found: list[list[State]] | None = None if known is None else known["states"]

    def slice_done(self, states: list[list[State]]) -> None:
        """Write when the clock says so."""
        if time.monotonic() - self._last >= checkpoints.EVERY_SECONDS:
            self.write(states)

    def write(self, states: list[list[State]]) -> None:
        """Write the states of all slices so far."""
        if self.path is not None:
            checkpoints.write_checkpoint(self.path, self.key, {"seed": self.seed, "states": states})
            self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the folder of what is done."""
        if self.path is not None and os.path.isfile(self.path / "manifest.json"):
            remove_folder(self.path)
