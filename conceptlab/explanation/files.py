"""An explanation as a folder: figures, pictures and names; never the model."""

from __future__ import annotations

__all__ = ["explanation_from", "parts_of", "saved_as"]

import contextlib
import importlib
from dataclasses import fields
from typing import Any

import numpy as np

from conceptlab.explanation.names import ConceptNames
from conceptlab.explanation.tree import ConceptTree
from conceptlab.importance import Decision, Importance
from conceptlab.importance.effects import ConceptEffects
from conceptlab.io.trees import Form, pack, unpack
from conceptlab.io.values import plain

_UPPER = "attribution.faithfulness_report"
"""Tells how its reports are saved when it is imported."""


def _shallow(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


_FORMS = {
    "ConceptTree": Form("$ConceptTree", ConceptTree, ConceptTree.to_dict, ConceptTree.from_dict)
}


def saved_as(kind: type) -> None:
    """Let explanations with objects of a dataclass in them be saved, field by field."""
    _FORMS[kind.__name__] = Form(f"${kind.__name__}", kind, _shallow, lambda parts: kind(**parts))


for _kind in (Importance, Decision, ConceptNames, ConceptEffects):
    saved_as(_kind)


def parts_of(explanation: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Divide an explanation into JSON values and arrays."""
    parts = _shallow(explanation)
    parts["settings"] = plain(parts["settings"])
    return pack(parts, "explanation", list(_FORMS.values()))


def explanation_from(kind: type, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Any:
    """Make an explanation of class `kind` from its parts."""
    with contextlib.suppress(ImportError):
        importlib.import_module(_UPPER)
    return kind(**unpack(data, tensors, list(_FORMS.values())))
