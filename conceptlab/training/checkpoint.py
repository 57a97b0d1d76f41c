"""Checkpoints of runs: written on a clock and on an interruption, never pickled."""

from __future__ import annotations

__all__ = ["EVERY_SECONDS", "peek_seed", "read_checkpoint", "resumed_seed", "write_checkpoint"]

import os
from pathlib import Path
from typing import Any

from conceptlab.errors import CheckpointError
from conceptlab.io.files import Bundle, is_vacant, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding
from conceptlab.io.trees import clone_state, pack, unpack
from conceptlab.seeds import RandomState, draw_seed

EVERY_SECONDS = 60.0
"""Time between two checkpoints of a run."""
_KIND = "UnlearningCheckpoint"


def write_checkpoint(path: Path, key: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the state of a run over the older one."""
    values, arrays = pack(clone_state(state))
    write_bundle(path, Bundle(_KIND, {"key": key, "state": values}, arrays))


def read_checkpoint(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a run, or None where there is none yet.

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-KIND``: it belongs to another run.
    """
    if is_vacant(path):
        return None
    bundle = read_bundle(path, _KIND)
    with rebuilding(path, _KIND):
        found, key = _flat(bundle.data["key"]), _flat(key)
    differs = sorted(k for k in {*found, *key} if found.get(k) != key.get(k))
    if differs:
        shown = "; ".join(f"{k}: {_short(found.get(k))} != {_short(key.get(k))}" for k in differs)
        raise CheckpointError(
            f"The checkpoint {path} belongs to another run ({shown}). Give the same model, data "
            "and parameters, or another folder, or remove this one.",
            code="CL-CHECKPOINT-KIND",
        )
    with rebuilding(path, _KIND):
        return dict(unpack(bundle.data["state"], bundle.tensors))


def peek_seed(path: Path) -> int | None:
    """Read the seed of an interrupted run, for one that draws its own."""
    if not os.path.isfile(path / "manifest.json"):
        return None
    bundle = read_bundle(path, _KIND)
    with rebuilding(path, _KIND):
        return int(unpack(bundle.data["state"], bundle.tensors)["seed"])


def resumed_seed(random_state: RandomState, path: str | os.PathLike[str] | None) -> int:
    """Draw a seed; without a `random_state` take that of the interrupted run, if there is one."""
    if random_state is None and path is not None:
        known = peek_seed(Path(path))
        if known is not None:
            return known
    return draw_seed(random_state)


def _flat(key: dict[str, Any]) -> dict[str, Any]:
    """Lift the parameters to the level of the other facts, so that a message names one."""
    return {**{k: v for k, v in key.items() if k != "parameters"}, **dict(key["parameters"])}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else text[:37] + "..."
