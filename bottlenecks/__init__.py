"""Classification through concepts: sparse, named bottlenecks.

Public names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottlenecks.base import ConceptBottleneck as ConceptBottleneck
    from bottlenecks.explaining import Contributions as Contributions
    from bottlenecks.heads import SparseLinearHead as SparseLinearHead
    from bottlenecks.heads import number_of_effective_concepts as number_of_effective_concepts
    from bottlenecks.heads import sparse_softmax_path as sparse_softmax_path
    from bottlenecks.intervention import Intervention as Intervention
    from bottlenecks.intervention import InterventionCurve as InterventionCurve
    from bottlenecks.search import ConceptMatrixSearch as ConceptMatrixSearch
    from bottlenecks.sparse import SparseCBM as SparseCBM

_HOMES = {
    "ConceptBottleneck": "bottlenecks.base",
    "ConceptMatrixSearch": "bottlenecks.search",
    "Contributions": "bottlenecks.explaining",
    "Intervention": "bottlenecks.intervention",
    "InterventionCurve": "bottlenecks.intervention",
    "SparseCBM": "bottlenecks.sparse",
    "SparseLinearHead": "bottlenecks.heads",
    "number_of_effective_concepts": "bottlenecks.heads",
    "sparse_softmax_path": "bottlenecks.heads",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bottlenecks' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
