"""The file that lets an interrupted synthesis go on."""

from __future__ import annotations

__all__ = ["SynthesisState", "read_state", "write_state"]

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conceptlab.errors import CheckpointError
from conceptlab.io.files import atomic_write, json_bytes
from conceptlab.io.reading import read_plain_file, rebuilding, strict_json
from conceptlab.seeds import RandomState

_KIND, _VERSION = "conceptlab synthesis", 1


@dataclass
class SynthesisState:
    """Where a synthesis stands after a round.

    Attributes
    ----------
    seed : int
        From which the seed of each round comes.
    rounds : int
        Rounds done.
    texts : dict of str to list of str
        Concepts kept.
    idle : dict of str to int
        Rounds running that brought a class nothing.
    rejected : dict of str to int
        Reason to number of texts.
    """

    seed: int
    rounds: int = 0
    texts: dict[str, list[str]] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)


def write_state(
    path: str | os.PathLike[str], settings: dict[str, Any], state: SynthesisState
) -> None:
    """Replace the file by one that holds `state`; a crash leaves the old one."""
    body = {"settings": settings, "state": asdict(state)}
    content = {"kind": _KIND, "version": _VERSION, "sha256": _digest(body), **body}
    atomic_write(path, json_bytes(content))


def read_state(
    path: str | os.PathLike[str], settings: dict[str, Any], random_state: RandomState
) -> SynthesisState | None:
    """Read the file, or give None where there is none.

    Parameters
    ----------
    path : path-like
        What `write_state` wrote.
    settings : dict
        Of this run; must be those of the file.
    random_state : int or other
        An int must be the seed of the file.

    Returns
    -------
    SynthesisState or None

    Raises
    ------
    CheckpointError
        Damaged, no such file by kind, newer, or of other settings; names what differs.
    """
    file = Path(path)
    if not os.path.exists(file):
        return None
    try:
        content = strict_json(read_plain_file(file))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not readable as a checkpoint: {error}. Remove it to start afresh."
        ) from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise CheckpointError(
            f"{file} is no checkpoint of synthesize, and is left alone. Choose another file.",
            code="CL-CHECKPOINT-KIND",
        )
    if not isinstance(content.get("version"), int) or content["version"] > _VERSION:
        raise CheckpointError(
            f"{file} has version {content.get('version')}; this conceptlab reads up to {_VERSION}. "
            "Upgrade with: pip install -U conceptlab",
            code="CL-CHECKPOINT-NEWER",
        )
    body = {key: content.get(key) for key in ("settings", "state")}
    if content.get("sha256") != _digest(body):
        raise CheckpointError(f"{file} was changed or truncated. Remove it to start afresh.")
    with rebuilding(file, "checkpoint of synthesize"):
        theirs = dict(content["settings"])
        state = _checked(SynthesisState(**content["state"]))
    differing = [k for k in settings if theirs.get(k) != json.loads(json.dumps(settings[k]))]
    if isinstance(random_state, int) and random_state != state.seed:
        differing.append("random_state")
    if differing:
        raise CheckpointError(
            f"{file} was made with other settings, namely of {', '.join(differing)}. "
            "Use the same to go on, or another file to start afresh."
            + (" " + _ENCODER if "encoder" in differing else ""),
            code="CL-CHECKPOINT-KIND",
        )
    return state


_ENCODER = (
    "(An encoder made of functions needs fingerprint=... to be the same in the next process.)"
)


def _checked(state: SynthesisState) -> SynthesisState:
    counts = [state.seed, state.rounds, *state.idle.values(), *state.rejected.values()]
    if not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError(f"counts must be numbers from 0, got {counts!r}")
    texts = [list(values) for values in state.texts.values()]
    if not all(isinstance(text, str) for values in texts for text in values):
        raise TypeError("a concept is no text")
    return state


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
