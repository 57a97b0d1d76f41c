"""Scores of all removers on one class, and how they are kept in files."""

from __future__ import annotations

__all__ = ["TOLD", "ClassResult"]

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unlearning.removal.concept_shift import ConceptShift

TOLD = 0.9
"""The least AUC of originals against class-free places at which presence is judged."""
_SHIFT = ("distance", "removal", "collateral")


@dataclass(eq=False)
class ClassResult:
    """Scores of all removers on one class.

    Attributes
    ----------
    name : str
        The class.
    n, n_comparison : int
        Images with it, and without.
    labels : list of str
        The removers.
    rows : dict of str to dict of str to float
        Scores of each remover; see ``unlearning.removal.scores.SCORES``.
    floors, ceilings : dict of str to float
        What the true removals (or images without the class) score, and what the originals
        score.
    replicates : dict of str to ndarray of shape (r, b)
        Bootstrap replicates of some scores.
    shifts : dict of str to ConceptShift
        What each remover leaves and makes.
    truth_is_floor : bool
        Whether the floor comes from true removals; else from two halves of the comparison
        set.
    context_check : dict or None
        Whether matching is sound; see ``unlearning.removal.context.ContextCheck``.
    originals_presence : float or None
        How well the encoder tells the originals from places without the class (AUC). Below
        :data:`TOLD` presence is not judged: it would call every hole empty.
    effects : int
        Images in which the truth differs outside the mask too, as where a shadow went.
    pictures : dict
        Worst and best images of each remover.
    """

    name: str
    n: int
    n_comparison: int
    labels: list[str]
    rows: dict[str, dict[str, float]]
    floors: dict[str, float]
    ceilings: dict[str, float]
    replicates: dict[str, np.ndarray] = field(default_factory=dict)
    shifts: dict[str, ConceptShift] = field(default_factory=dict)
    truth_is_floor: bool = False
    context_check: dict[str, float] | None = None
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    originals_presence: float | None = None
    effects: int = 0

    def packed(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Divide into JSON values and arrays by name."""
        arrays = {f"replicates/{name}": array for name, array in self.replicates.items()}
        shifts, pictures = {}, {}
        for label, shift in self.shifts.items():
            at = f"shifts/{self.labels.index(label)}"
            arrays[f"{at}/contributions"] = shift.contributions
            arrays[f"{at}/shift"] = shift.shift
            scores = _written({name: getattr(shift, name) for name in _SHIFT})
            shifts[label] = {"names": list(shift.names), "target": shift.target, **scores}
        for label, shown in self.pictures.items():
            arrays[f"pictures/{self.labels.index(label)}"] = shown["images"]
            pictures[label] = {"by": shown["by"], "labels": shown["labels"]}
        values = {
            "name": self.name,
            "n": self.n,
            "n_comparison": self.n_comparison,
            "labels": self.labels,
            "rows": {label: _written(row) for label, row in self.rows.items()},
            "floors": _written(self.floors),
            "ceilings": _written(self.ceilings),
            "truth_is_floor": self.truth_is_floor,
            "context_check": self.context_check,
            "originals_presence": self.originals_presence,
            "effects": self.effects,
            "shifts": shifts,
            "pictures": pictures,
        }
        return values, arrays

    @classmethod
    def unpacked(cls, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> ClassResult:
        """Join what :meth:`packed` divided."""
        labels, shifts, pictures = values["labels"], {}, {}
        for label, facts in values["shifts"].items():
            at = f"shifts/{labels.index(label)}"
            shifts[label] = ConceptShift(
                names=tuple(facts["names"]),
                target=facts["target"],
                contributions=arrays[f"{at}/contributions"],
                shift=arrays[f"{at}/shift"],
                **{name: float(facts[name]) for name in _SHIFT},
            )
        for label, shown in values["pictures"].items():
            pictures[label] = {**shown, "images": arrays[f"pictures/{labels.index(label)}"]}
        found = {
            "rows": {label: _numbers(row) for label, row in values["rows"].items()},
            "floors": _numbers(values["floors"]),
            "ceilings": _numbers(values["ceilings"]),
            "shifts": shifts,
            "pictures": pictures,
            "replicates": {
                name.removeprefix("replicates/"): array
                for name, array in arrays.items()
                if name.startswith("replicates/")
            },
        }
        return cls(**{**values, **found})


def _written(values: dict[str, Any]) -> dict[str, Any]:
    """Turn NumPy numbers to Python's, and what is not finite to text."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, float | np.floating) and not np.isfinite(value):
            out[name] = str(float(value))
        else:
            out[name] = value.item() if isinstance(value, np.generic) else value
    return out


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
