"""What else could be done: adaptation, a guard on latents, rejection, negative fine-tuning."""

from __future__ import annotations

from unlearning.gan.baselines.directional import DirectionalAdaptation
from unlearning.gan.baselines.guard import LatentGuard
from unlearning.gan.baselines.negative import NegativeFineTune
from unlearning.gan.baselines.rejection import RejectionFilter

__all__ = ["DirectionalAdaptation", "LatentGuard", "NegativeFineTune", "RejectionFilter"]
