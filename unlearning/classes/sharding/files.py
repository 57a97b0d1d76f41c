"""Folders of sharded ensembles: finished ones, and training that is to go on."""

from __future__ import annotations

__all__ = ["SETTINGS", "SlicesOnDisk", "load_ensemble", "save_ensemble"]

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from conceptlab.errors import CheckpointError, InputError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding
from conceptlab.io.swap import remove_folder
from conceptlab.io.trees import pack, unpack
from conceptlab.provenance import fingerprint
from conceptlab.training import checkpoint as checkpoints
from unlearning.certificate import describe_parameters
from unlearning.classes.sharding.shards import Deletion, State

if TYPE_CHECKING:
    from unlearning.classes.sharding.ensemble import ShardedEnsemble

_KIND = "ShardedEnsemble"
SETTINGS = (
    "n_shards",
    "n_slices",
    "epochs",
    "lr",
    "batch_size",
    "momentum",
    "weight_decay",
    "norm",
)
"""Parameters that a file can hold, but for ``late_classes``."""


def save_ensemble(ensemble: ShardedEnsemble, path: str | os.PathLike[str]) -> Path:
    """Write states and the places of the samples; not the samples."""
    values, arrays = pack(ensemble.states_)
    data = {
        "settings": settings_of(ensemble),
        "seed": ensemble.seed_,
        "n_classes": len(ensemble.classes_),
        "ids": ensemble.ids_,
        "deletions": [asdict(d) for d in ensemble.deletions_],
        "states": values,
        "augmented": ensemble.augment is not None,
    }
    arrays |= {"shard": ensemble.shard_, "slice": ensemble.slice_}
    return write_bundle(path, Bundle(_KIND, data, arrays))


def load_ensemble(
    cls: type[ShardedEnsemble],
    path: str | os.PathLike[str],
    build: Callable[[], nn.Module],
    augment: Callable[..., Any] | None,
) -> ShardedEnsemble:
    """Read what :func:`save_ensemble` wrote, without the samples."""
    bundle = read_bundle(path, _KIND)
    found = bundle.data
    with rebuilding(path, _KIND):
        augmented = bool(found["augmented"])
    if augmented != (augment is not None):
        raise InputError(
            "The ensemble was fitted "
            + ("with" if augmented else "without")
            + " augment; give the same to load(), or later deletions would not be exact.",
            code="CL-INPUT-OPTION",
        )
    with rebuilding(path, _KIND):
        ensemble = cls(build, augment=augment, random_state=found["seed"], **found["settings"])
        ensemble.seed_ = int(found["seed"])
        ensemble.classes_ = np.arange(int(found["n_classes"]))
        ensemble.deletions_ = [Deletion(**d) for d in found["deletions"]]
        ensemble.states_ = unpack(found["states"], bundle.tensors)
        ensemble.ids_ = list(found["ids"])
        ensemble.shard_, ensemble.slice_ = bundle.tensors["shard"], bundle.tensors["slice"]
    ensemble.data_ = None
    with rebuilding(path, _KIND):
        try:
            ensemble.as_module()
        except RuntimeError as error:
            raise CheckpointError(
                f"The models that build() makes do not fit the weights in {path}: {error}",
                code="CL-CHECKPOINT-KIND",
            ) from error
    return ensemble


def settings_of(ensemble: ShardedEnsemble) -> dict[str, Any]:
    """Give the parameters as JSON values."""
    plain = {name: getattr(ensemble, name) for name in SETTINGS}
    return {**plain, "late_classes": [int(c) for c in ensemble.late_classes]}


class SlicesOnDisk:
    """The checkpoint of a fit or a deletion: states of finished slices.

    Parameters
    ----------
    path : path-like or None
        The folder; None keeps nothing.
    ensemble : ShardedEnsemble
        With its seed, the places of its samples, and the states to begin with.
    **facts
        What the folder must match besides parameters, seed and samples.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, ensemble: ShardedEnsemble, **facts: Any
    ) -> None:
        self.path = None if path is None else Path(path)
        self.ensemble = ensemble
        self.key = {
            "parameters": {
                **settings_of(ensemble),
                **describe_parameters({"augment": ensemble.augment}),
            },
            "seed": ensemble.seed_,
            "samples": fingerprint(ensemble.ids_),
            **facts,
        }
        self._last = time.monotonic()
        if self.path is not None:
            found = checkpoints.read_checkpoint(self.path, self.key)
            if found is not None:
                states: list[list[State]] = found["states"]
                ensemble.states_ = states

    def slice_done(self) -> None:
        """Write when the clock says so."""
        if time.monotonic() - self._last >= checkpoints.EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the states of all slices so far."""
        if self.path is not None:
            state = {"seed": self.ensemble.seed_, "states": self.ensemble.states_}
            checkpoints.write_checkpoint(self.path, self.key, state)
            self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the folder of what is done."""
        if self.path is not None and os.path.isfile(self.path / "manifest.json"):
            remove_folder(self.path)
