"""Tell a forgotten class from a suppressed one.

:func:`audit` measures a model beside its original, a logit mask, and retrained models, and
gives a :class:`Report` with a verdict. The measures work on arrays as well:
:func:`js_divergence`, :func:`modified_entropy`, :func:`non_member_share`, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from unlearning.audit.concept_level import concept_surrogate as concept_surrogate
    from unlearning.audit.concept_level import find_class_concepts as find_class_concepts
    from unlearning.audit.concept_trace import ConceptTrace as ConceptTrace
    from unlearning.audit.concept_trace import trace_concepts as trace_concepts
    from unlearning.audit.divergence import activation_distance as activation_distance
    from unlearning.audit.divergence import agreement as agreement
    from unlearning.audit.divergence import js_divergence as js_divergence
    from unlearning.audit.divergence import zero_retrain_forgetting as zero_retrain_forgetting
    from unlearning.audit.evidence import Evidence as Evidence
    from unlearning.audit.evidence import Verdict as Verdict
    from unlearning.audit.membership import loss_attack as loss_attack
    from unlearning.audit.membership import member_share as member_share
    from unlearning.audit.membership import modified_entropy as modified_entropy
    from unlearning.audit.membership import non_member_share as non_member_share
    from unlearning.audit.options import Sizes as Sizes
    from unlearning.audit.options import Training as Training
    from unlearning.audit.probing import class_probe as class_probe
    from unlearning.audit.probing import concept_auc as concept_auc
    from unlearning.audit.protocol import audit as audit
    from unlearning.audit.quantising import quantise as quantise
    from unlearning.audit.quantising import quantised_copy as quantised_copy
    from unlearning.audit.recovery import spontaneous_recovery as spontaneous_recovery
    from unlearning.audit.relearning import RelearnCurve as RelearnCurve
    from unlearning.audit.relearning import anamnesis_index as anamnesis_index
    from unlearning.audit.relearning import relearn as relearn
    from unlearning.audit.report import Report as Report
    from unlearning.audit.scores import adaptive_unlearning_score as adaptive_unlearning_score
    from unlearning.audit.scores import average_gap as average_gap
    from unlearning.audit.scores import tug_of_war as tug_of_war
    from unlearning.audit.thresholds import Thresholds as Thresholds
    from unlearning.audit.verdict import judge as judge

_HOMES = {
    "ConceptTrace": ".concept_trace",
    "Evidence": ".evidence",
    "RelearnCurve": ".relearning",
    "Report": ".report",
    "Sizes": ".options",
    "Thresholds": ".thresholds",
    "Training": ".options",
    "Verdict": ".evidence",
    "activation_distance": ".divergence",
    "adaptive_unlearning_score": ".scores",
    "agreement": ".divergence",
    "anamnesis_index": ".relearning",
    "audit": ".protocol",
    "average_gap": ".scores",
    "class_probe": ".probing",
    "concept_auc": ".probing",
    "concept_surrogate": ".concept_level",
    "find_class_concepts": ".concept_level",
    "js_divergence": ".divergence",
    "judge": ".verdict",
    "loss_attack": ".membership",
    "member_share": ".membership",
    "modified_entropy": ".membership",
    "non_member_share": ".membership",
    "quantise": ".quantising",
    "quantised_copy": ".quantising",
    "relearn": ".relearning",
    "spontaneous_recovery": ".recovery",
    "trace_concepts": ".concept_trace",
    "tug_of_war": ".scores",
    "zero_retrain_forgetting": ".divergence",
}
__all__ = list(_HOMES)

__getattr__, __dir__ = attach(__name__, _HOMES)
