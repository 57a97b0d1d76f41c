"""Make a model forget a class or an object, and audit that it is gone.

Public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach
from unlearning.registry import HOMES

if TYPE_CHECKING:
    from unlearning.certificate import verify_certificate as verify_certificate
    from unlearning.classes.base import Unlearner as Unlearner
    from unlearning.classes.methods.ascent import GradientAscent as GradientAscent
    from unlearning.classes.methods.ascent import NegGradPlus as NegGradPlus
    from unlearning.classes.methods.bad_teacher import BadTeacher as BadTeacher
    from unlearning.classes.methods.boundary import BoundaryExpand as BoundaryExpand
    from unlearning.classes.methods.boundary import BoundaryShrink as BoundaryShrink
    from unlearning.classes.methods.concept_poisoning import ConceptPoisoning as ConceptPoisoning
    from unlearning.classes.methods.delete import DELETE as DELETE
    from unlearning.classes.methods.finetune import FineTune as FineTune
    from unlearning.classes.methods.fisher import FisherForgetting as FisherForgetting
    from unlearning.classes.methods.logit_mask import LogitMask as LogitMask
    from unlearning.classes.methods.random_label import RandomLabel as RandomLabel
    from unlearning.classes.methods.retrain import Retrain as Retrain
    from unlearning.classes.methods.salun import SalUn as SalUn
    from unlearning.classes.methods.scrub import SCRUB as SCRUB
    from unlearning.classes.methods.soft_relabel import SoftRelabel as SoftRelabel
    from unlearning.classes.methods.sparse import L1Sparse as L1Sparse
    from unlearning.classes.methods.ssd import SSD as SSD
    from unlearning.classes.methods.unsir import UNSIR as UNSIR
    from unlearning.classes.sequence import unlearn_sequence as unlearn_sequence
    from unlearning.classes.sharding.ensemble import ShardedEnsemble as ShardedEnsemble
    from unlearning.classes.sharding.shards import Deletion as Deletion
    from unlearning.data import Samples as Samples
    from unlearning.data import as_samples as as_samples
    from unlearning.data import split_classes as split_classes
    from unlearning.heads import Head as Head
    from unlearning.heads import features_and_logits as features_and_logits
    from unlearning.heads import find_head as find_head
    from unlearning.notices import UnlearningWarning as UnlearningWarning
    from unlearning.result import UnlearnResult as UnlearnResult

_HOMES = {
    **HOMES,
    "Deletion": "unlearning.classes.sharding.shards",
    "Head": "unlearning.heads",
    "Samples": "unlearning.data",
    "ShardedEnsemble": "unlearning.classes.sharding.ensemble",
    "UnlearnResult": "unlearning.result",
    "UnlearningWarning": "unlearning.notices",
    "Unlearner": "unlearning.classes.base",
    "as_samples": "unlearning.data",
    "features_and_logits": "unlearning.heads",
    "find_head": "unlearning.heads",
    "split_classes": "unlearning.data",
    "unlearn_sequence": "unlearning.classes.sequence",
    "verify_certificate": "unlearning.certificate",
}

__all__ = [*_HOMES]

__getattr__, __dir__ = attach(__name__, _HOMES)
