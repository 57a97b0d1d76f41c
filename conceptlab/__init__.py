"""Find the concepts that a vision model uses, explain, classify, forget, audit.

Public names are imported on first use, so that ``import conceptlab`` is quick.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from conceptlab.bank import ConceptBank as ConceptBank
    from conceptlab.encoders import EncodeImages as EncodeImages
    from conceptlab.encoders import load_encoder as load_encoder
    from conceptlab.explanation import Explanation as Explanation
    from conceptlab.extractors import CRAFT as CRAFT
    from conceptlab.extractors import ConvexNMF as ConvexNMF
    from conceptlab.extractors import NMFConcepts as NMFConcepts
    from conceptlab.extractors import SemiNMF as SemiNMF
    from conceptlab.importance import SobolImportance as SobolImportance
    from conceptlab.models import ActivationStore as ActivationStore
    from conceptlab.models import SplitModel as SplitModel

_HOMES = {
    "ActivationStore": "conceptlab.models",
    "CRAFT": "conceptlab.extractors",
    "ConceptBank": "conceptlab.bank",
    "ConvexNMF": "conceptlab.extractors",
    "EncodeImages": "conceptlab.encoders",
    "Explanation": "conceptlab.explanation",
    "NMFConcepts": "conceptlab.extractors",
    "SemiNMF": "conceptlab.extractors",
    "SobolImportance": "conceptlab.importance",
    "SplitModel": "conceptlab.models",
    "load_encoder": "conceptlab.encoders",
}
_MODULES = {"datasets", "errors", "maps", "plot"}

__all__ = [*_HOMES, "datasets", "errors", "maps", "plot"]

try:
    __version__ = importlib.metadata.version("conceptlab")
except importlib.metadata.PackageNotFoundError:  # a source tree on the path
    __version__ = "0+unknown"

__getattr__, __dir__ = attach(__name__, _HOMES, _MODULES)
