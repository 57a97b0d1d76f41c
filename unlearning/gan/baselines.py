"""What else could be done: adaptation, a guard on latents, rejection, negative fine-tuning."""

from __future__ import annotations

__all__ = ["DirectionalAdaptation", "LatentGuard", "NegativeFineTune", "RejectionFilter"]

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import nn

from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, draw_seed, torch_generator
from unlearning.gan.gate import Gate
from unlearning.gan.generators import Generator, as_generator, learn
from unlearning.gan.guide import TEMPLATES, Guide
from unlearning.gan.losses import directional_loss, perceptual_loss
from unlearning.gan.mapper import Survey, survey
from unlearning.gan.text_to_unlearn import TextToUnlearn
from unlearning.gan.training import GanResult, Loop, sensitive_layers


class _Baseline(BaseEstimator):
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
        seed = draw_seed(self.random_state)
        draws = torch_generator(seed)
        given = as_generator(generator)
        given.check()
        frozen, guide = given.frozen(), Guide(self.encoder, TEMPLATES)
        seen = survey(frozen, guide, self.n_survey, draws)
        finder = TextToUnlearn(self.encoder, self.target, self.anchor, retain=self.retain)
        gates, _ = finder.find_gates(guide, seen)
        made, loop = self._make(given, frozen, guide, gates, seen, draws, progress)
        self.seed_ = seed
        history, stopped = (loop.history, loop.stopped) if loop else ([], "done")
        anchors = {gate.concept.name: gate.concept.anchor for gate in gates}
        seconds = time.process_time() - start
        return GanResult(made, history, stopped, seed, seconds, {"anchors": anchors})

    def _make(
        self, given: Generator, frozen: Generator, guide: Guide, gates: list[Gate], seen: Survey,
        draws: torch.Generator, progress: Progress,
    ) -> tuple[Generator, Loop | None]:  # fmt: skip
        raise NotImplementedError


class DirectionalAdaptation(_Baseline):
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
        self, given: Generator, frozen: Generator, guide: Guide, gates: list[Gate], seen: Survey,
        draws: torch.Generator, progress: Progress,
    ) -> tuple[Generator, Loop | None]:  # fmt: skip
        ways = [g.concept.others.mean(0) - g.concept.target for g in gates]
        direction = torch.stack(ways).mean(0)

        def losses(step: int) -> dict[str, torch.Tensor]:
            w = seen.styles[torch.randint(len(seen), (self.batch_size,), generator=draws)]
            with torch.no_grad():
                before = frozen.images_of(w)
            e, still = guide.embed_pair(trained.images_of(w), before, None)
            return {"direction": directional_loss(e, still, direction)}

        trained, loop = _loop(self, given, draws, progress)
        loop.run(losses, "adapt")
        learn(trained.module, False)
        return trained, loop


class NegativeFineTune(_Baseline):
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
        self, given: Generator, frozen: Generator, guide: Guide, gates: list[Gate], seen: Survey,
        draws: torch.Generator, progress: Progress,
    ) -> tuple[Generator, Loop | None]:  # fmt: skip
        shows = _shows(gates, seen)
        with_it, free = seen[shows], seen[~shows]
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

        trained, loop = _loop(self, given, draws, progress)
        loop.run(losses, "fine-tune")
        learn(trained.module, False)
        return trained, loop


class LatentGuard(_Baseline):
    """Leave the weights and edit latents: take the concept's direction out of their styles.

    The direction is the difference of the mean styles with and without the concept; a
    linear gate on styles tells which are edited. The generator can still make the concept:
    whoever has the weights can take the guard off.

    Parameters
    ----------
    encoder, target, anchor, retain
        As in :class:`TextToUnlearn`.
    strength : float
        Edited styles are moved so many times past the gate as their class means lie before.
    n_survey : int
    random_state : optional
    """

    def __init__(
        self,
        encoder: Any,
        target: str | Sequence[str],
        anchor: str | Sequence[str] | None = None,
        *,
        retain: Mapping[str, Sequence[str]] | None = None,
        strength: float = 1.0,
        n_survey: int = 1024,
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.strength = strength
        self.n_survey = n_survey
        self.random_state = random_state

    def _make(
        self, given: Generator, frozen: Generator, guide: Guide, gates: list[Gate], seen: Survey,
        draws: torch.Generator, progress: Progress,
    ) -> tuple[Generator, Loop | None]:  # fmt: skip
        from sklearn.linear_model import LogisticRegression

        shows = _shows(gates, seen)
        flat = seen.styles.flatten(1)
        gate = LogisticRegression(C=10.0, max_iter=2000).fit(
            flat.cpu().numpy(), shows.cpu().numpy()
        )
        normal = torch.from_numpy(gate.coef_[0]).to(flat)
        offset = float(gate.intercept_[0])
        step = flat[~shows].mean(0) - flat[shows].mean(0)
        guarded = _Guarded(given.fork(), normal, offset, step, self.strength).requires_grad_(False)
        return _outer(guarded.eval(), given), None


class RejectionFilter(_Baseline):
    """Leave the weights and look at each image: redraw the latent until the gate is silent.

    It costs a pass of the encoder for every image, and the weights still make the concept.

    Parameters
    ----------
    encoder, target, anchor, retain
        As in :class:`TextToUnlearn`.
    max_draws : int
        Latents tried in place of one.
    n_survey : int
    random_state : optional
    """

    def __init__(
        self,
        encoder: Any,
        target: str | Sequence[str],
        anchor: str | Sequence[str] | None = None,
        *,
        retain: Mapping[str, Sequence[str]] | None = None,
        max_draws: int = 8,
        n_survey: int = 1024,
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.max_draws = max_draws
        self.n_survey = n_survey
        self.random_state = random_state

    def _make(
        self, given: Generator, frozen: Generator, guide: Guide, gates: list[Gate], seen: Survey,
        draws: torch.Generator, progress: Progress,
    ) -> tuple[Generator, Loop | None]:  # fmt: skip
        filtered = _Filtered(given.fork(), guide, gates, self.max_draws).requires_grad_(False)
        return _outer(filtered.eval(), given), None


class _Guarded(nn.Module):
    """A generator behind a guard; latents in, images out."""

    normal: torch.Tensor
    step: torch.Tensor

    def __init__(
        self, inner: Generator, normal: torch.Tensor, offset: float, step: torch.Tensor,
        strength: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inner_module, self.inner = inner.module, inner
        self.register_buffer("normal", normal)
        self.register_buffer("step", step)
        self.offset, self.strength = offset, strength

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w = self.inner.styles(z)
        flat = w.flatten(1)
        excess = flat @ self.normal + self.offset
        slope = -(self.step @ self.normal)
        length = (1 + self.strength) * excess.clamp(min=0) / slope.clamp(min=1e-8)
        return self.inner.images_of((flat + length[:, None] * self.step).view_as(w))


class _Filtered(nn.Module):
    """A generator behind a filter; latents in, images out."""

    def __init__(self, inner: Generator, guide: Guide, gates: list[Gate], max_draws: int) -> None:
        super().__init__()
        self.inner_module, self.inner = inner.module, inner
        self.guide, self.gates, self.max_draws = guide, gates, max_draws

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        images = self.inner.images(z)
        draws = torch_generator(0)
        for _ in range(self.max_draws):
            e = self.guide.embed_all(images)
            rows = torch.stack([g.shows(e) for g in self.gates]).any(0).nonzero()[:, 0]
            if not len(rows):
                break
            images = images.clone()
            images[rows] = self.inner.images(self.inner.draw(len(rows), draws))
        return images


def _outer(module: nn.Module, given: Generator) -> Generator:
    """Declare a wrapping module: latents of the given law, one-hot classes within them."""
    return Generator(module, latent=given.draw, output_range=(0.0, 1.0), n_classes=0)


def _shows(gates: list[Gate], seen: Survey) -> torch.Tensor:
    return torch.stack([gate.shows(seen.embeddings) for gate in gates]).any(0)


def _loop(
    method: Any, given: Generator, draws: torch.Generator, progress: Progress
) -> tuple[Generator, Loop]:
    trained = given.fork()
    body: Any = trained.module.synthesis if trained.has_styles else trained.module
    learn(body, True)
    chosen = sensitive_layers(body, torch.zeros(()), "all")
    loop = Loop(
        trained, list(chosen.values()), steps=method.steps, lr=method.lr, draws=draws,
        progress=progress,
    )  # fmt: skip
    return trained, loop
