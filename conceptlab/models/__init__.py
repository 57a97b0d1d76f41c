"""Models cut in two, their activations, and the crops to run through them."""

from __future__ import annotations

__all__ = [
    "ActivationStore",
    "Patches",
    "SplitModel",
    "SplitWarning",
    "crop",
    "pooled_activations",
]

from conceptlab.models.faults import SplitWarning
from conceptlab.models.patches import Patches, crop, pooled_activations
from conceptlab.models.split import SplitModel
from conceptlab.models.store import ActivationStore
