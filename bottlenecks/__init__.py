"""Classification through concepts: sparse, named bottlenecks.

Public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from bottlenecks.base import ConceptBottleneck as ConceptBottleneck
    from bottlenecks.concept_filters import FilterReport as FilterReport
    from bottlenecks.concept_filters import activated as activated
    from bottlenecks.concept_filters import distinct as distinct
    from bottlenecks.concept_filters import filter_concepts as filter_concepts
    from bottlenecks.concept_filters import learnable as learnable
    from bottlenecks.concept_filters import readable as readable
    from bottlenecks.concept_filters import scored as scored
    from bottlenecks.concept_filters import unlike_classes as unlike_classes
    from bottlenecks.controls import random_bank as random_bank
    from bottlenecks.evaluation import evaluate as evaluate
    from bottlenecks.explaining import Contributions as Contributions
    from bottlenecks.heads import SparseLinearHead as SparseLinearHead
    from bottlenecks.heads import number_of_effective_concepts as number_of_effective_concepts
    from bottlenecks.heads import sparse_softmax_path as sparse_softmax_path
    from bottlenecks.information import mutual_information as mutual_information
    from bottlenecks.intervention import Intervention as Intervention
    from bottlenecks.intervention import InterventionCurve as InterventionCurve
    from bottlenecks.joint import JointLeakage as JointLeakage
    from bottlenecks.joint import joint_leakage as joint_leakage
    from bottlenecks.labelfree import LabelFreeCBM as LabelFreeCBM
    from bottlenecks.leakage import Leakage as Leakage
    from bottlenecks.leakage import LeakageScores as LeakageScores
    from bottlenecks.leakage import concept_task_leakage as concept_task_leakage
    from bottlenecks.leakage import interconcept_leakage as interconcept_leakage
    from bottlenecks.leakage import measure_leakage as measure_leakage
    from bottlenecks.leakage import niche_impurity as niche_impurity
    from bottlenecks.leakage import oracle_impurity as oracle_impurity
    from bottlenecks.measures import auc_matrix as auc_matrix
    from bottlenecks.measures import completeness as completeness
    from bottlenecks.measures import name_fidelity as name_fidelity
    from bottlenecks.measures import (
        number_of_contributing_concepts as number_of_contributing_concepts,
    )
    from bottlenecks.posthoc import PostHocCBM as PostHocCBM
    from bottlenecks.projection import Projection as Projection
    from bottlenecks.projection import cos_cubed_similarity as cos_cubed_similarity
    from bottlenecks.projection import fit_projection as fit_projection
    from bottlenecks.report import BottleneckReport as BottleneckReport
    from bottlenecks.report import NameFidelity as NameFidelity
    from bottlenecks.search import ConceptMatrixSearch as ConceptMatrixSearch
    from bottlenecks.sparse import SparseCBM as SparseCBM
    from bottlenecks.splits import Splits as Splits
    from bottlenecks.splits import check_disjoint as check_disjoint
    from bottlenecks.splits import split_rows as split_rows
    from bottlenecks.submodular import SubmodularSelector as SubmodularSelector
    from bottlenecks.submodular import class_similarity as class_similarity
    from bottlenecks.submodular import concept_discriminability as concept_discriminability

_HOMES = {
    "BottleneckReport": "bottlenecks.report",
    "ConceptBottleneck": "bottlenecks.base",
    "ConceptMatrixSearch": "bottlenecks.search",
    "Contributions": "bottlenecks.explaining",
    "FilterReport": "bottlenecks.concept_filters",
    "Intervention": "bottlenecks.intervention",
    "InterventionCurve": "bottlenecks.intervention",
    "JointLeakage": "bottlenecks.joint",
    "LabelFreeCBM": "bottlenecks.labelfree",
    "Leakage": "bottlenecks.leakage",
    "LeakageScores": "bottlenecks.leakage",
    "NameFidelity": "bottlenecks.report",
    "PostHocCBM": "bottlenecks.posthoc",
    "Projection": "bottlenecks.projection",
    "SparseCBM": "bottlenecks.sparse",
    "SparseLinearHead": "bottlenecks.heads",
    "Splits": "bottlenecks.splits",
    "SubmodularSelector": "bottlenecks.submodular",
    "activated": "bottlenecks.concept_filters",
    "auc_matrix": "bottlenecks.measures",
    "check_disjoint": "bottlenecks.splits",
    "class_similarity": "bottlenecks.submodular",
    "completeness": "bottlenecks.measures",
    "concept_discriminability": "bottlenecks.submodular",
    "concept_task_leakage": "bottlenecks.leakage",
    "cos_cubed_similarity": "bottlenecks.projection",
    "distinct": "bottlenecks.concept_filters",
    "evaluate": "bottlenecks.evaluation",
    "filter_concepts": "bottlenecks.concept_filters",
    "fit_projection": "bottlenecks.projection",
    "interconcept_leakage": "bottlenecks.leakage",
    "joint_leakage": "bottlenecks.joint",
    "learnable": "bottlenecks.concept_filters",
    "measure_leakage": "bottlenecks.leakage",
    "mutual_information": "bottlenecks.information",
    "name_fidelity": "bottlenecks.measures",
    "niche_impurity": "bottlenecks.leakage",
    "number_of_contributing_concepts": "bottlenecks.measures",
    "number_of_effective_concepts": "bottlenecks.heads",
    "oracle_impurity": "bottlenecks.leakage",
    "random_bank": "bottlenecks.controls",
    "readable": "bottlenecks.concept_filters",
    "scored": "bottlenecks.concept_filters",
    "sparse_softmax_path": "bottlenecks.heads",
    "split_rows": "bottlenecks.splits",
    "unlike_classes": "bottlenecks.concept_filters",
}

__all__ = [*_HOMES]

__getattr__, __dir__ = attach(__name__, _HOMES)
