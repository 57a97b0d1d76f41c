"""Find concepts in activations: factorisations, clusterings and controls behind one contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from conceptlab.extractors.base import ConceptExtractor as ConceptExtractor
    from conceptlab.extractors.coding import nnls as nnls
    from conceptlab.extractors.convex_nmf import ConvexNMF as ConvexNMF
    from conceptlab.extractors.craft.estimator import CRAFT as CRAFT
    from conceptlab.extractors.linear import ICAConcepts as ICAConcepts
    from conceptlab.extractors.linear import KMeansConcepts as KMeansConcepts
    from conceptlab.extractors.linear import PCAConcepts as PCAConcepts
    from conceptlab.extractors.linear import RandomConcepts as RandomConcepts
    from conceptlab.extractors.matching import match_concepts as match_concepts
    from conceptlab.extractors.matching import stability as stability
    from conceptlab.extractors.nmf import NMFConcepts as NMFConcepts
    from conceptlab.extractors.rank import select_rank as select_rank
    from conceptlab.extractors.semi_nmf import SemiNMF as SemiNMF

_HOMES = {
    "CRAFT": ".craft.estimator",
    "ConceptExtractor": ".base",
    "ConvexNMF": ".convex_nmf",
    "ICAConcepts": ".linear",
    "KMeansConcepts": ".linear",
    "NMFConcepts": ".nmf",
    "PCAConcepts": ".linear",
    "RandomConcepts": ".linear",
    "SemiNMF": ".semi_nmf",
    "match_concepts": ".matching",
    "nnls": ".coding",
    "select_rank": ".rank",
    "stability": ".matching",
}

__all__ = list(_HOMES)

__getattr__, __dir__ = attach(__name__, _HOMES)
