"""Which concepts drive a model's output, where they are, and whether that is true.

The functions are in modules of the same names: :mod:`attribution.explain`,
:mod:`attribution.faithfulness`, :mod:`attribution.stability`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attribution.faithfulness_report import FaithfulnessReport as FaithfulnessReport
    from attribution.gradients import ConceptGradients as ConceptGradients
    from attribution.stability import StabilityReport as StabilityReport

_HOMES = {
    "ConceptGradients": "attribution.gradients",
    "FaithfulnessReport": "attribution.faithfulness_report",
    "StabilityReport": "attribution.stability",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attribution' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
