"""Which concepts drive an output: Sobol indices, ablation, directional derivatives."""

from __future__ import annotations

__all__ = [
    "ESTIMATORS",
    "SAMPLERS",
    "Ablation",
    "Decision",
    "Design",
    "DirectionalDerivatives",
    "HeadOnCoefficients",
    "Importance",
    "SobolImportance",
    "ablate",
    "decision",
    "directional_derivatives",
    "sample_design",
]

from conceptlab.importance.ablation import Ablation, ablate
from conceptlab.importance.design import SAMPLERS, Design, sample_design
from conceptlab.importance.directional import DirectionalDerivatives, directional_derivatives
from conceptlab.importance.estimators import ESTIMATORS
from conceptlab.importance.head import HeadOnCoefficients
from conceptlab.importance.result import Importance
from conceptlab.importance.sobol import SobolImportance
from conceptlab.importance.sufficiency import Decision, decision
