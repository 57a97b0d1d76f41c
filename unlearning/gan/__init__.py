"""Make a generator forget by telling it so, and see what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from unlearning.gan.assessment import assess as assess
    from unlearning.gan.attacks import latent_search as latent_search
    from unlearning.gan.attacks import paraphrases as paraphrases
    from unlearning.gan.attacks import prompt_attack as prompt_attack
    from unlearning.gan.attacks import relearn as relearn
    from unlearning.gan.baselines import DirectionalAdaptation as DirectionalAdaptation
    from unlearning.gan.baselines import LatentGuard as LatentGuard
    from unlearning.gan.baselines import NegativeFineTune as NegativeFineTune
    from unlearning.gan.baselines import RejectionFilter as RejectionFilter
    from unlearning.gan.gamma import degree_of_unlearning as degree_of_unlearning
    from unlearning.gan.gate import Gate as Gate
    from unlearning.gan.generators import Generator as Generator
    from unlearning.gan.losses import directional_loss as directional_loss
    from unlearning.gan.losses import identity_loss as identity_loss
    from unlearning.gan.losses import margin_loss as margin_loss
    from unlearning.gan.losses import perceptual_loss as perceptual_loss
    from unlearning.gan.losses import retain_divergence as retain_divergence
    from unlearning.gan.mapper import LatentMapper as LatentMapper
    from unlearning.gan.report import GanReport as GanReport
    from unlearning.gan.result import GanResult as GanResult
    from unlearning.gan.text_to_unlearn import TextToUnlearn as TextToUnlearn

_HOMES = {
    "DirectionalAdaptation": "unlearning.gan.baselines",
    "GanReport": "unlearning.gan.report",
    "GanResult": "unlearning.gan.result",
    "Gate": "unlearning.gan.gate",
    "Generator": "unlearning.gan.generators",
    "LatentGuard": "unlearning.gan.baselines",
    "LatentMapper": "unlearning.gan.mapper",
    "NegativeFineTune": "unlearning.gan.baselines",
    "RejectionFilter": "unlearning.gan.baselines",
    "TextToUnlearn": "unlearning.gan.text_to_unlearn",
    "assess": "unlearning.gan.assessment",
    "degree_of_unlearning": "unlearning.gan.gamma",
    "directional_loss": "unlearning.gan.losses",
    "identity_loss": "unlearning.gan.losses",
    "latent_search": "unlearning.gan.attacks",
    "margin_loss": "unlearning.gan.losses",
    "paraphrases": "unlearning.gan.attacks",
    "perceptual_loss": "unlearning.gan.losses",
    "prompt_attack": "unlearning.gan.attacks",
    "relearn": "unlearning.gan.attacks",
    "retain_divergence": "unlearning.gan.losses",
}

__all__ = [*_HOMES]

__getattr__, __dir__ = attach(__name__, _HOMES)
