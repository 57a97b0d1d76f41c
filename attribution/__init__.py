"""Which concepts drive a model's output, where they are, and whether that is true.

The functions are in modules of the same names: :mod:`attribution.explain`,
:mod:`attribution.faithfulness`, :mod:`attribution.stability`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

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

__getattr__, __dir__ = attach(__name__, _HOMES)
