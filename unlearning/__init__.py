"""Make a model forget a class or an object, and audit that it is gone.

Public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from unlearning.classes.ascent import GradientAscent as GradientAscent
    from unlearning.classes.ascent import NegGradPlus as NegGradPlus
    from unlearning.classes.bad_teacher import BadTeacher as BadTeacher
    from unlearning.classes.base import Unlearner as Unlearner
    from unlearning.classes.boundary import BoundaryExpand as BoundaryExpand
    from unlearning.classes.boundary import BoundaryShrink as BoundaryShrink
    from unlearning.classes.certificate import verify_certificate as verify_certificate
    from unlearning.classes.concept_poisoning import ConceptPoisoning as ConceptPoisoning
    from unlearning.classes.finetune import FineTune as FineTune
    from unlearning.classes.fisher import FisherForgetting as FisherForgetting
    from unlearning.classes.logit_mask import LogitMask as LogitMask
    from unlearning.classes.random_label import RandomLabel as RandomLabel
    from unlearning.classes.result import UnlearnResult as UnlearnResult
    from unlearning.classes.retrain import Retrain as Retrain
    from unlearning.classes.salun import SalUn as SalUn
    from unlearning.classes.scrub import SCRUB as SCRUB
    from unlearning.classes.sequence import unlearn_sequence as unlearn_sequence
    from unlearning.classes.sharded import ShardedEnsemble as ShardedEnsemble
    from unlearning.classes.shards import Deletion as Deletion
    from unlearning.classes.soft_relabel import SoftRelabel as SoftRelabel
    from unlearning.classes.sparse import L1Sparse as L1Sparse
    from unlearning.classes.ssd import SSD as SSD
    from unlearning.classes.unsir import UNSIR as UNSIR
    from unlearning.data import Samples as Samples
    from unlearning.data import as_samples as as_samples
    from unlearning.data import split_classes as split_classes
    from unlearning.heads import Head as Head
    from unlearning.heads import features_and_logits as features_and_logits
    from unlearning.heads import find_head as find_head

_HOMES = {
    "BadTeacher": "unlearning.classes.bad_teacher",
    "BoundaryExpand": "unlearning.classes.boundary",
    "BoundaryShrink": "unlearning.classes.boundary",
    "ConceptPoisoning": "unlearning.classes.concept_poisoning",
    "Deletion": "unlearning.classes.shards",
    "FineTune": "unlearning.classes.finetune",
    "FisherForgetting": "unlearning.classes.fisher",
    "GradientAscent": "unlearning.classes.ascent",
    "Head": "unlearning.heads",
    "L1Sparse": "unlearning.classes.sparse",
    "LogitMask": "unlearning.classes.logit_mask",
    "NegGradPlus": "unlearning.classes.ascent",
    "RandomLabel": "unlearning.classes.random_label",
    "Retrain": "unlearning.classes.retrain",
    "SCRUB": "unlearning.classes.scrub",
    "SSD": "unlearning.classes.ssd",
    "SalUn": "unlearning.classes.salun",
    "Samples": "unlearning.data",
    "ShardedEnsemble": "unlearning.classes.sharded",
    "SoftRelabel": "unlearning.classes.soft_relabel",
    "UNSIR": "unlearning.classes.unsir",
    "UnlearnResult": "unlearning.classes.result",
    "Unlearner": "unlearning.classes.base",
    "as_samples": "unlearning.data",
    "features_and_logits": "unlearning.heads",
    "find_head": "unlearning.heads",
    "split_classes": "unlearning.data",
    "unlearn_sequence": "unlearning.classes.sequence",
    "verify_certificate": "unlearning.classes.certificate",
}

__all__ = [*_HOMES]

__getattr__, __dir__ = attach(__name__, _HOMES)
