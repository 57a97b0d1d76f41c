"""Adaptation of the whole generator along a direction between texts."""

from __future__ import annotations

__all__ = ["DirectionalAdaptation"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conceptlab.progress import Progress
from conceptlab.seeds import RandomState
from conceptlab.training import Engine
from unlearning.gan.baselines._base import Baseline, whole
from unlearning.gan.finetune import finetune
from unlearning.gan.generators import Generator, learn
from unlearning.gan.losses import directional_loss
from unlearning.gan.sight import Sight


class DirectionalAdaptation(Baseline):
    """Adapt the whole generator along the direction between two texts.

    No gate, no mapper, no preservation: every latent is moved from the target's text
    towards the anchor's.

    Parameters
    ----------
    encoder, target, anchor, retain
        As in :class:`TextToUnlearn`.
    steps, batch_size, lr
        Of the training.
    n_survey : int
    random_state : optional

    References
    ----------
    Gal et al. 2022, StyleGAN-NADA: CLIP-guided domain adaptation of image generators, eq. 2.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> encoder = load_encoder("embedded")
    >>> method = DirectionalAdaptation(encoder, "red", steps=1, n_survey=128, random_state=0)
    >>> result = method.unlearn(load_embedded_gan())  # some 60 steps are needed
    >>> result.stopped, len(result.history)
    ('done', 1)
    """

    def __init__(
        self,
        encoder: Any,
        target: str | Sequence[str],
        anchor: str | Sequence[str] | None = None,
        *,
        retain: Mapping[str, Sequence[str]] | None = None,
        steps: int = 60,
        batch_size: int = 16,
        lr: float = 1e-3,
        n_survey: int = 512,
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.n_survey = n_survey
        self.random_state = random_state

    def _make(
        self,
        given: Generator,
        sight: Sight,
        draws: torch.Generator,
        progress: Progress,
    ) -> tuple[Generator, Engine | None]:
        ways = [g.concept.others.mean(0) - g.concept.target for g in sight.gates]
        direction, seen = torch.stack(ways).mean(0), sight.seen

        def losses(step: int) -> dict[str, torch.Tensor]:
            part = seen[torch.randint(len(seen), (self.batch_size,), generator=draws)]
            e = sight.guide.embed(trained.images_of(part.styles))
            return {"direction": directional_loss(e, part.embeddings, direction)}

        trained, parameters = whole(given)
        run = finetune(
            parameters,
            losses,
            steps=self.steps,
            lr=self.lr,
            draws=draws,
            progress=progress,
            description="adapt",
        )
        learn(trained.module, False)
        return trained, run
