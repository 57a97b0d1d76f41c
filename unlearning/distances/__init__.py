"""Distances between two sets of features: FID, KID, CMMD, U-IDS.

Arrays in, score out; :class:`Features` holds a matrix that is compared more than once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from unlearning.distances.bias import null_bias as null_bias
    from unlearning.distances.features import Features as Features
    from unlearning.distances.fid import FrechetResult as FrechetResult
    from unlearning.distances.fid import frechet as frechet
    from unlearning.distances.fid import frechet_distance as frechet_distance
    from unlearning.distances.ids import p_ids as p_ids
    from unlearning.distances.ids import u_ids as u_ids
    from unlearning.distances.kernels import cmmd as cmmd
    from unlearning.distances.kernels import kid as kid
    from unlearning.distances.moments import FeatureStatistics as FeatureStatistics

_HOMES = {
    "FeatureStatistics": ".moments",
    "Features": ".features",
    "FrechetResult": ".fid",
    "cmmd": ".kernels",
    "frechet": ".fid",
    "frechet_distance": ".fid",
    "kid": ".kernels",
    "null_bias": ".bias",
    "p_ids": ".ids",
    "u_ids": ".ids",
}
__all__ = list(_HOMES)

__getattr__, __dir__ = attach(__name__, _HOMES)
