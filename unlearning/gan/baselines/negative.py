"""Fine-tuning on generated examples with and without the concept."""

from __future__ import annotations

__all__ = ["NegativeFineTune"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conceptlab.progress import Progress
from conceptlab.seeds import RandomState
from conceptlab.training import Engine
from unlearning.gan.baselines._base import Baseline, whole
from unlearning.gan.finetune import finetune
from unlearning.gan.generators import Generator, learn
from unlearning.gan.losses import perceptual_loss
from unlearning.gan.sight import Sight


class NegativeFineTune(Baseline):
    """Fine-tune on generated examples: away from those with the concept, true to the others.

    Parameters
    ----------
    encoder, target, anchor, retain
        As in :class:`TextToUnlearn`.
    steps, batch_size, lr
        Of the training.
    reach : float
        Images with the concept are pushed no farther than this mean absolute difference.
    n_survey : int
    random_state : optional

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> encoder = load_encoder("embedded")
    >>> method = NegativeFineTune(encoder, "red", steps=1, n_survey=128, random_state=0)
    >>> result = method.unlearn(load_embedded_gan())  # some 100 steps are needed
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
        steps: int = 100,
        batch_size: int = 32,
        lr: float = 2e-3,
        reach: float = 0.15,
        n_survey: int = 1024,
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.reach = reach
        self.n_survey = n_survey
        self.random_state = random_state

    def _make(
        self,
        given: Generator,
        sight: Sight,
        draws: torch.Generator,
        progress: Progress,
    ) -> tuple[Generator, Engine | None]:
        frozen = sight.frozen
        with_it, free = sight.seen[sight.shows], sight.seen[~sight.shows]
        half = self.batch_size // 2

        def losses(step: int) -> dict[str, torch.Tensor]:
            rows = torch.randint(len(with_it), (half,), generator=draws)
            others = torch.randint(len(free), (self.batch_size - half,), generator=draws)
            w = torch.cat([with_it.styles[rows], free.styles[others]])
            with torch.no_grad():
                before = frozen.images_of(w)
            images = trained.images_of(w)
            # From the very same image no direction leads away, so a little noise gives one.
            noise = 0.02 * torch.randn(before[:half].shape, generator=draws).to(before)
            away = (images[:half] - before[:half] - noise).abs().mean((1, 2, 3))
            return {
                "negative": (self.reach - away).clamp(min=0).mean(),
                "preserve": perceptual_loss(images[half:], before[half:]),
            }

        trained, parameters = whole(given)
        run = finetune(
            parameters,
            losses,
            steps=self.steps,
            lr=self.lr,
            draws=draws,
            progress=progress,
            description="fine-tune",
        )
        learn(trained.module, False)
        return trained, run
