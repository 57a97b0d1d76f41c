"""What all baselines share: survey, gates, result."""

from __future__ import annotations

__all__ = ["Baseline", "outer", "whole"]

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import nn

from conceptlab.parameters import Whole
from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, draw_seed, torch_generator
from conceptlab.training import Engine
from unlearning.gan.finetune import rows_of
from unlearning.gan.generators import Generator, as_generator, learn
from unlearning.gan.guide import TEMPLATES, Guide
from unlearning.gan.layers import sensitive_layers
from unlearning.gan.options import Request
from unlearning.gan.result import GanResult
from unlearning.gan.sight import Sight, look
from unlearning.notices import UnlearningWarning


class Baseline(BaseEstimator):
    """What all baselines share: survey, gates, result."""

    encoder: Any
    target: str | Sequence[str]
    anchor: str | Sequence[str] | None
    retain: Mapping[str, Sequence[str]] | None
    n_survey: int
    random_state: RandomState

    def unlearn(self, generator: Generator | nn.Module, *, progress: Progress = None) -> GanResult:
        """Give a new generator; see :meth:`TextToUnlearn.unlearn`.

        Parameters
        ----------
        generator : Generator or torch.nn.Module
            Left as it is.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        GanResult
        """
        start = time.process_time()
        request = Request.of(self.target, self.anchor, self.retain)
        Whole(16).check("n_survey", self.n_survey)
        seed = draw_seed(self.random_state)
        draws = torch_generator(seed)
        given = as_generator(generator)
        given.check()
        guide = Guide(self.encoder, TEMPLATES, device=given.device)
        sight = look(
            given.frozen(),
            guide,
            request,
            draws,
            n=self.n_survey,
            second_view=False,
            partners=False,
        )
        made, run = self._make(given, sight, draws, progress)
        self.seed_ = seed
        history, stopped = (rows_of(run), run.stopped) if run else ([], "done")
        told = list(run.warnings) if run else []
        for message in told:
            warnings.warn(message, UnlearningWarning, stacklevel=2)
        anchors = {gate.concept.name: gate.concept.anchor for gate in sight.gates}
        seconds = time.process_time() - start
        return GanResult(made, history, stopped, seed, seconds, {"anchors": anchors}, told)

    def _make(
        self,
        given: Generator,
        sight: Sight,
        draws: torch.Generator,
        progress: Progress,
    ) -> tuple[Generator, Engine | None]:
        raise NotImplementedError


def outer(module: nn.Module, given: Generator) -> Generator:
    """Declare a wrapping module: latents of the given law, one-hot classes within them."""
    return Generator(module, latent=given.draw, output_range=(0.0, 1.0), n_classes=0)


def whole(given: Generator) -> tuple[Generator, list[nn.Parameter]]:
    """Give a copy to train, and all parameters of its synthesis."""
    trained = given.fork()
    body: Any = trained.module.synthesis if trained.has_styles else trained.module
    learn(body, True)
    return trained, list(sensitive_layers(body, torch.zeros(()), "all").values())
