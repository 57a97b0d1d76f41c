"""What is asked for, checked before anything is computed."""

from __future__ import annotations

__all__ = ["Limits", "Request", "Target", "check_families", "target_texts"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from conceptlab.arrays import as_floats, check_finite
from conceptlab.errors import InputError

Target = str | Sequence[str] | np.ndarray | torch.Tensor
_SHAPES = {4: "the images given", 1: "the direction given"}


@dataclass(frozen=True)
class Limits:
    """What a target must reach, or it is refused.

    Attributes
    ----------
    separation : float
        Ashman's D of the two groups of images.
    share : float
        Share of the generator's images that show it.
    """

    separation: float = 2.8
    share: float = 0.005


@dataclass(frozen=True)
class Request:
    """What is to be forgotten, what it is told from, and what is to be kept.

    Attributes
    ----------
    targets : list of str
    anchor : list of str or None
        None lets :func:`unlearning.gan.gate.find_gates` choose.
    retain : dict of str to list of str
        Attributes by family; those of targets among them.
    limits : Limits
    given : Tensor or None
        What is meant where no text says it: images (n, 3, height, width) in [0, 1], or a direction
        (d,) in the space of the encoder. Its only target has a name that says so.
    """

    targets: list[str]
    anchor: list[str] | None = None
    retain: dict[str, list[str]] = field(default_factory=dict)
    limits: Limits = Limits()
    given: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        target: Target,
        anchor: str | Sequence[str] | None = None,
        retain: Mapping[str, Sequence[str]] | None = None,
        limits: Limits = Limits(),
    ) -> Request:
        """Check what a user asks for.

        Raises
        ------
        InputError
            See :func:`target_texts` and :func:`check_families`; images or a direction of a wrong
            shape (``CL-INPUT-SHAPE``), not finite, or images outside [0, 1] (``CL-INPUT-RANGE``).
        """
        given = None
        if isinstance(target, np.ndarray | torch.Tensor):
            given = _given(target)
            targets = [_SHAPES[given.ndim]]
        else:
            targets = target_texts(target)
        check_families(retain)
        texts = [anchor] if isinstance(anchor, str) else list(anchor or ())
        kept = {name: list(values) for name, values in (retain or {}).items()}
        return cls(targets, texts or None, kept, limits, given)

    def siblings(self, target: str) -> list[str]:
        """Name the values of the target's family that are no targets."""
        for values in self.retain.values():
            if target in values:
                return [value for value in values if value not in self.targets]
        return []

    def kept(self) -> dict[str, list[str]]:
        """Give the families that hold no target."""
        targets = set(self.targets)
        return {name: v for name, v in self.retain.items() if not targets & set(v)}


def _given(target: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Check images or a direction."""
    values = as_floats(target, "target")
    if values.ndim not in _SHAPES or not values.size or (values.ndim == 4 and values.shape[1] != 3):
        raise InputError(
            "target must be a text, several, images (n, 3, height, width) in [0, 1], or a "
            f"direction (d,) in the space of the encoder, got an array of shape {values.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(values, "target")
    if values.ndim == 4 and not 0 <= values.min() <= values.max() <= 1:
        raise InputError(
            f"Images of a target lie in [0, 1], got [{values.min():.3g}, {values.max():.3g}].",
            code="CL-INPUT-RANGE",
        )
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def target_texts(target: str | Sequence[str]) -> list[str]:
    """Give the targets as a list, each once.

    Raises
    ------
    InputError
        No text, or an empty one (``CL-INPUT-EMPTY``).
    """
    given = [target] if isinstance(target, str) else target
    good = isinstance(given, Sequence) and all(isinstance(t, str) and t.strip() for t in given)
    if not good or not given:
        raise InputError(
            f"target must be a text or several, got {target!r}.", code="CL-INPUT-EMPTY"
        )
    return list(dict.fromkeys(given))


def check_families(retain: Mapping[str, Sequence[str]] | None) -> None:
    """See that attributes come in families of texts.

    Raises
    ------
    InputError
        ``CL-INPUT-TYPE``.
    """
    if retain is None:
        return
    example = '{"colour": ["red", "blue"], ...}'
    if not isinstance(retain, Mapping):
        raise InputError(
            f"retain must be families of texts, such as {example}, got {type(retain).__name__}.",
            code="CL-INPUT-TYPE",
        )
    for name, values in retain.items():
        texts = not isinstance(values, str) and isinstance(values, Sequence)
        if not texts or not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise InputError(
                f"retain[{name!r}] must be a list of texts, such as {example}, got {values!r}.",
                code="CL-INPUT-TYPE",
            )
