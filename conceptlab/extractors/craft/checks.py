"""The settings of CRAFT, checked before anything runs."""

from __future__ import annotations

__all__ = ["check_settings", "not_split"]

from collections.abc import Sequence
from typing import Any

import numpy as np

from conceptlab.errors import InputError, unknown_name
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.models import SplitModel
from conceptlab.parameters import OneOf, Real, Rules, Whole

_RULES = Rules(
    patches=OneOf("grid", "random", "none"),
    storage=OneOf("memory", "disk"),
    n_concepts=OneOf("auto") | Whole(1),
    n_crops=Whole(1),
    depth=Whole(0),
    n_children=Whole(2),
    max_patches=Whole(1),
    n_refits=Whole(0),
    interval=OneOf("given", "refit"),
    alpha=Real(least=0, most=1),
)


def check_settings(craft: Any) -> None:
    """Raise an InputError for the first parameter of `craft` that cannot work."""
    if not isinstance(craft.split, SplitModel):
        raise not_split(craft.split)
    _RULES.check(craft)
    sides = craft.patch_size if isinstance(craft.patch_size, tuple | list) else [craft.patch_size]
    if len(sides) not in (1, 2) or not all(Whole().takes(side) and side >= 1 for side in sides):
        raise InputError(
            f"patch_size must be at least 1 pixel and an int, got {craft.patch_size!r}.",
            code="CL-INPUT-RANGE",
        )
    if isinstance(craft.layers, str) or not isinstance(craft.layers, Sequence | None):
        raise InputError(
            f"layers must be a list of layers, the latest first, got {craft.layers!r}. "
            "For one layer write layers=['layer3'].",
            code="CL-INPUT-TYPE",
        )
    _check_split_when(craft)
    _check_parts(craft)


def not_split(given: Any) -> InputError:
    """Say that `given` should be a SplitModel."""
    return InputError(
        f"split must be a SplitModel, got {type(given).__name__}. "
        "Wrap the model: SplitModel(model, at='layer4').",
        code="CL-INPUT-TYPE",
    )


def _check_split_when(craft: Any) -> None:
    rule = craft.split_when
    if callable(rule) or (isinstance(rule, str) and rule == "auto"):
        return
    if isinstance(rule, str):
        raise unknown_name("split_when", rule, ["auto"], hint="Or a function, or concept numbers.")
    numbers: list[Any] = list(rule) if isinstance(rule, Sequence | np.ndarray) else [None]
    limit = None if craft.n_concepts == "auto" else int(craft.n_concepts)
    if not all(Whole().takes(i) and i >= 0 and (limit is None or i < limit) for i in numbers):
        raise InputError(
            "split_when must be 'auto', a function of (node, test), or numbers of concepts"
            f"{'' if limit is None else f' from 0 to {limit - 1}'}, got {rule!r}.",
            code="CL-INPUT-OPTION",
        )


def _check_parts(craft: Any) -> None:
    from conceptlab.importance import SobolImportance

    if craft.extractor is not None and not isinstance(craft.extractor, ConceptExtractor):
        raise InputError(
            f"extractor must be a concept extractor such as NMFConcepts() or SemiNMF(), got "
            f"{craft.extractor!r}.",
            code="CL-INPUT-TYPE",
        )
    if craft.importance is not None and not isinstance(craft.importance, SobolImportance):
        raise InputError(
            f"importance must be a SobolImportance, got {craft.importance!r}.",
            code="CL-INPUT-TYPE",
        )
