"""The settings of CRAFT, checked before anything runs."""

from __future__ import annotations

__all__ = ["check_labels", "check_names", "check_settings", "not_split"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError, unknown_name
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.models import SplitModel

if TYPE_CHECKING:
    from conceptlab.extractors.craft.estimator import CRAFT


def check_settings(craft: CRAFT) -> None:
    """Raise an InputError for the first parameter of `craft` that cannot work."""
    if not isinstance(craft.split, SplitModel):
        raise not_split(craft.split)
    if craft.patches not in ("grid", "random", "none"):
        raise unknown_name("patches", craft.patches, ["grid", "random", "none"])
    if craft.storage not in ("memory", "disk"):
        raise unknown_name("storage", craft.storage, ["memory", "disk"])
    if craft.n_concepts != "auto" and not (_whole(craft.n_concepts) and craft.n_concepts >= 1):
        raise InputError(
            f"n_concepts must be a positive int or 'auto', got {craft.n_concepts!r}.",
            code="CL-INPUT-RANGE",
        )
    sides = craft.patch_size if isinstance(craft.patch_size, tuple | list) else [craft.patch_size]
    if len(sides) not in (1, 2) or not all(_whole(side) and side >= 1 for side in sides):
        raise InputError(
            f"patch_size must be at least 1 pixel and an int, got {craft.patch_size!r}.",
            code="CL-INPUT-RANGE",
        )
    for name, least in (("n_crops", 1), ("depth", 0), ("n_children", 2), ("max_patches", 1)):
        value = getattr(craft, name)
        if not _whole(value) or value < least:
            raise InputError(
                f"{name} must be an int of at least {least}, got {value!r}.", code="CL-INPUT-RANGE"
            )
    if not _real(craft.alpha) or not 0 <= craft.alpha <= 1:
        raise InputError(
            f"alpha must be a level between 0 and 1, got {craft.alpha!r}.", code="CL-INPUT-RANGE"
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


def check_names(names: Any, n_concepts: int) -> list[str]:
    """Give names of concepts as a list of strings: one each, different, not empty."""
    found = [] if isinstance(names, str) else [str(name) for name in names]
    if len(found) != n_concepts or len(set(found)) != len(found) or not all(map(str.strip, found)):
        shown = repr(names) if isinstance(names, str) else found[:5]
        raise InputError(
            f"rename needs {n_concepts} different names that are not empty, got {shown}.",
            code="CL-INPUT-NAMES",
        )
    return found


def check_labels(y: Any, n: int) -> np.ndarray:
    """Give the class of each image as integers."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise InputError(
            f"y must hold one class for each of the {n} images, got shape {labels.shape}.",
            code="CL-INPUT-LABELS",
        )
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"y must hold the numbers of the model's outputs as ints, got {labels.dtype}: "
            f"{labels[:3].tolist()}, ... Turn names into numbers by their place in class_names.",
            code="CL-INPUT-LABELS",
        )
    return labels


def _check_split_when(craft: CRAFT) -> None:
    rule = craft.split_when
    if callable(rule) or (isinstance(rule, str) and rule == "auto"):
        return
    if isinstance(rule, str):
        raise unknown_name("split_when", rule, ["auto"], hint="Or a function, or concept numbers.")
    numbers: list[Any] = list(rule) if isinstance(rule, Sequence | np.ndarray) else [None]
    limit = None if craft.n_concepts == "auto" else int(craft.n_concepts)
    if not all(_whole(i) and i >= 0 and (limit is None or i < limit) for i in numbers):
        raise InputError(
            "split_when must be 'auto', a function of (node, test), or numbers of concepts"
            f"{'' if limit is None else f' from 0 to {limit - 1}'}, got {rule!r}.",
            code="CL-INPUT-OPTION",
        )


def _check_parts(craft: CRAFT) -> None:
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


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
