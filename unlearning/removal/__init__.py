"""Judge object removers without the original image as the answer.

Removed images are compared with real images that never held the class: FID*, KID*,
CMMD*, U-IDS*, concept presence and concept FID, with floors, ceilings and intervals.
Features in, score out: :func:`frechet_distance`, :func:`kid`, :func:`cmmd`,
:func:`u_ids`; whole evaluations: :class:`RemovalBenchmark`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from unlearning.distances.bias import null_bias as null_bias
    from unlearning.distances.fid import FrechetResult as FrechetResult
    from unlearning.distances.fid import frechet as frechet
    from unlearning.distances.fid import frechet_distance as frechet_distance
    from unlearning.distances.ids import p_ids as p_ids
    from unlearning.distances.ids import u_ids as u_ids
    from unlearning.distances.kernels import cmmd as cmmd
    from unlearning.distances.kernels import kid as kid
    from unlearning.distances.moments import FeatureStatistics as FeatureStatistics
    from unlearning.removal.cache import RemovalCache as RemovalCache
    from unlearning.removal.class_presence import Presence as Presence
    from unlearning.removal.class_presence import presence as presence
    from unlearning.removal.concept_shift import ConceptShift as ConceptShift
    from unlearning.removal.concept_shift import concept_fid as concept_fid
    from unlearning.removal.context import match_context as match_context
    from unlearning.removal.datasets import CocoRemovals as CocoRemovals
    from unlearning.removal.datasets import MaskFolder as MaskFolder
    from unlearning.removal.datasets import RemovalDataset as RemovalDataset
    from unlearning.removal.datasets import SceneRemovals as SceneRemovals
    from unlearning.removal.masks import MaskPolicy as MaskPolicy
    from unlearning.removal.masks import effect_mask as effect_mask
    from unlearning.removal.paired import Lpips as Lpips
    from unlearning.removal.paired import psnr as psnr
    from unlearning.removal.paired import ssim as ssim
    from unlearning.removal.protocol import RemovalBenchmark as RemovalBenchmark
    from unlearning.removal.removers import RemoverSetup as RemoverSetup
    from unlearning.removal.removers import make_remover as make_remover
    from unlearning.removal.report import RemovalReport as RemovalReport
    from unlearning.removal.surroundings import remove_score as remove_score

_HOMES = {
    "CocoRemovals": ".datasets",
    "ConceptShift": ".concept_shift",
    "FeatureStatistics": "unlearning.distances.moments",
    "FrechetResult": "unlearning.distances.fid",
    "Lpips": ".paired",
    "MaskFolder": ".datasets",
    "MaskPolicy": ".masks",
    "Presence": ".class_presence",
    "RemovalBenchmark": ".protocol",
    "RemovalCache": ".cache",
    "RemovalDataset": ".datasets",
    "RemovalReport": ".report",
    "RemoverSetup": ".removers",
    "SceneRemovals": ".datasets",
    "cmmd": "unlearning.distances.kernels",
    "concept_fid": ".concept_shift",
    "effect_mask": ".masks",
    "frechet": "unlearning.distances.fid",
    "frechet_distance": "unlearning.distances.fid",
    "kid": "unlearning.distances.kernels",
    "make_remover": ".removers",
    "match_context": ".context",
    "null_bias": "unlearning.distances.bias",
    "p_ids": "unlearning.distances.ids",
    "presence": ".class_presence",
    "psnr": ".paired",
    "remove_score": ".surroundings",
    "ssim": ".paired",
    "u_ids": "unlearning.distances.ids",
}
__all__ = list(_HOMES)

__getattr__, __dir__ = attach(__name__, _HOMES)
