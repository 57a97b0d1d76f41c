"""Text-to-Unlearn: take a concept out of a generator by telling it so."""

from __future__ import annotations

__all__ = ["TextToUnlearn"]

import functools
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import nn

from conceptlab.errors import unknown_name
from conceptlab.parameters import Rules, Whole
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint
from conceptlab.seeds import RandomState, torch_generator
from conceptlab.training import Engine
from conceptlab.training.checkpoint import resumed_seed
from unlearning.gan.aim import ADVICE, missed
from unlearning.gan.detour import with_detour
from unlearning.gan.detour_training import (
    Bank,
    copy_losses,
    detour_losses,
    learn_gate,
    new_detour,
)
from unlearning.gan.finetune import finetune, rows_of
from unlearning.gan.generators import Generator, as_generator, learn
from unlearning.gan.guide import TEMPLATES, Guide
from unlearning.gan.held_out import HeldOut
from unlearning.gan.layers import sensitive_layers
from unlearning.gan.losses import perceptual_loss
from unlearning.gan.mapper_training import MapperOptions, mean_move, train_mapper
from unlearning.gan.mapping import fold_into_mapping
from unlearning.gan.objective import Objective, Weights
from unlearning.gan.options import Limits, Request, Target
from unlearning.gan.result import GanResult
from unlearning.gan.sight import Sight, look
from unlearning.gan.thumbnails import Thumbnails
from unlearning.notices import UnlearningWarning

Made = tuple[Generator, Engine, dict[str, float], dict[str, Any]]
_DETOUR_LR = 1e-3
_DETOUR_HELD_OUT = 400  # latents: they cost no gradient, and a rare concept is in few

_RULES = Rules(
    n_survey=Whole(16),
    n_held_out=Whole(1),
    batch_size=Whole(4),
    steps=Whole(0),
    detour_steps=Whole(0),
    mapper_steps=Whole(0),
    fold_steps=Whole(0),
    groups=Whole(1),
    guide_every=Whole(1),
)


class TextToUnlearn(BaseEstimator):
    """Make a generator forget what a text names, with nothing but the text.

    The paper's way, :meth:`paper`: a latent mapper on the frozen generator turns latents that
    show the concept into latents that do not, the mean difference of the pairs in the encoder's
    space is the reference direction, and a copy of the generator is trained along it
    against the frozen one. By default more is done:

    - A survey of the generator's own images tells which latents show the concept: by the
      encoder's scores, and by a second view, their styles, which mends errors of the first.
    - The mapper learns from partners: near latents without the concept, as many of
      each value that may take its place as there are. Then it must please the guide, and a
      critic that tells moved styles from the generator's own.
    - The mapping network, where there is one, learns the mapper, so that no latent has the old
      styles any more; and the copy is trained to give the old styles the images of their mapped
      ones, and to leave all other images as they are.
    - The end is when latents that were held out show no more of it, by the guide.

    Parameters
    ----------
    encoder : Encoder
        The guide: from :func:`conceptlab.load_encoder`.
    target : str, sequence of str, or array
        What to forget; several texts at once are forgotten together. What no text says: images
        that show it, (n, 3, height, width) in [0, 1], or a direction (d,) in the encoder's
        space.
    anchor : str, sequence of str, or None
        What to tell the target from. None tries the other values of the target's family in
        `retain` first, and where the encoder does not tell these, neutral texts.
    retain : mapping of str to sequence of str, optional
        Attributes to keep, a family of texts at a time, such as
        ``{"colour": ["red", "blue"], "shape": [...]}``. The family of a target names what
        may take its place; without it, that is whatever is near.
    method : {"auto", "weights", "detour", "distilled"}
        What is made. "weights": a module of the user's class with other weights, by all that
        is said above. "detour": the generator untouched, with a small gate that looks at its
        images and a small map that shifts the latents of those with the concept; one module,
        which takes the latents that the generator took. "distilled": a copy of
        the generator that has learned, as far as it can, to give by itself what it gives with the
        detour. "auto" is "weights" for a generator with mapping and synthesis, and "detour" for
        any other: without a mapping network there is nothing that could learn where latents
        go, and weights alone forget little. Whoever has the weights can take a detour off.
    gate : bool
        Whether latents without the concept keep their own image. Without, all latents are
        moved, as in the paper.
    second_view : bool
        Whether what images show is read from their styles too, which mends errors of the
        guide; see :func:`unlearning.gan.views.two_views`.
    surrogate : bool
        Whether latents with the concept learn the image of their mapped latent; without, the
        mapper has no partners, and the mapping network stays as it is.
    fold_steps : int
        Steps in which the mapping network, where there is one, learns the mapper too; 0
        leaves it as it is.
    direction_weight, surrogate_weight, preserve_weight, retain_weight, perceptual_weight : float
        Of the losses, each over all steps: terms that need the guide come every `guide_every`
        steps and count so many times. `perceptual_weight` draws images with the concept to what
        they were.
    identity : callable, optional
        An identity network, from images in [0, 1] to features.
    identity_weight : float
    fisher_weight : float
        Of the distance of weights to the old ones, each weighted by its Fisher information
        on latents without the concept.
    perceptual : callable, optional
        A perceptual loss of two batches, such as LPIPS; a pyramid of absolute differences
        by default.
    layers : "auto", "all" or sequence of str
        Which layers of the synthesis are trained; "auto" measures how sensitive each is.
    augment : bool
        Whether the guide sees moved, scaled and tinted images, both of a pair alike.
    n_survey, n_held_out : int
        Latents to look at before (four times as many more for the gate of a detour), and to
        check on while training.
    detour_steps : int
        Of the shift of a detour, and twice as many of a distilled copy.
    mapper_steps, steps, batch_size, mapper_lr, lr, groups
        Of the mapper and of the training; `groups` as in :class:`LatentMapper`.
    margin : float
        How far below the gate the mapper must push scores, in units of the distance between
        images with and without the concept.
    guide_every : int
        Steps between two losses that need the guide, which is most of the time of a step.
    average : float
        Decay of the mean of the weights that is given back.
    min_separation, min_share : float
        Targets that separate images less, or are shown less often, are refused.
    templates : sequence of str
    max_steps, max_seconds : optional
        Budget of the training of the copy; survey, mapper and mapping come before it.
    device : str or torch.device
        "auto" is where the generator is.
    random_state : optional

    See Also
    --------
    unlearning.gan.assess : What was forgotten, and what else.

    Notes
    -----
    Several requests in sequence: give the result's generator to the next call. The frozen
    generator is then the one that forgot already, so that nothing comes back.

    References
    ----------
    "Prompting Forgetting: Unlearning in GANs via Textual Guidance", 2025, arXiv:2504.01218.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> unlearner = TextToUnlearn(load_encoder("embedded"), "red", random_state=0)
    >>> result = unlearner.unlearn(load_embedded_gan())  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: Any,
        target: Target,
        anchor: str | Sequence[str] | None = None,
        *,
        retain: Mapping[str, Sequence[str]] | None = None,
        method: str = "auto",
        gate: bool = True,
        second_view: bool = True,
        surrogate: bool = True,
        fold_steps: int = 3000,
        direction_weight: float = 0.05,
        surrogate_weight: float = 0.4,
        preserve_weight: float = 5.0,
        retain_weight: float = 0.05,
        perceptual_weight: float = 0.0,
        identity: Callable[[torch.Tensor], torch.Tensor] | None = None,
        identity_weight: float = 0.1,
        fisher_weight: float = 0.0,
        perceptual: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        layers: str | Sequence[str] = "auto",
        augment: bool = True,
        n_survey: int = 1200,
        n_held_out: int = 96,
        mapper_steps: int = 40,
        steps: int = 150,
        detour_steps: int = 300,
        batch_size: int = 24,
        mapper_lr: float = 1e-3,
        lr: float = 8e-4,
        groups: int = 1,
        margin: float = 0.1,
        guide_every: int = 8,
        average: float = 0.95,
        min_separation: float = 2.8,
        min_share: float = 0.005,
        templates: Sequence[str] = TEMPLATES,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.encoder = encoder
        self.target = target
        self.anchor = anchor
        self.retain = retain
        self.method = method
        self.gate = gate
        self.second_view = second_view
        self.surrogate = surrogate
        self.fold_steps = fold_steps
        self.direction_weight = direction_weight
        self.surrogate_weight = surrogate_weight
        self.preserve_weight = preserve_weight
        self.retain_weight = retain_weight
        self.perceptual_weight = perceptual_weight
        self.identity = identity
        self.identity_weight = identity_weight
        self.fisher_weight = fisher_weight
        self.perceptual = perceptual
        self.layers = layers
        self.augment = augment
        self.n_survey = n_survey
        self.n_held_out = n_held_out
        self.mapper_steps = mapper_steps
        self.steps = steps
        self.detour_steps = detour_steps
        self.batch_size = batch_size
        self.mapper_lr = mapper_lr
        self.lr = lr
        self.groups = groups
        self.margin = margin
        self.guide_every = guide_every
        self.average = average
        self.min_separation = min_separation
        self.min_share = min_share
        self.templates = templates
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    @classmethod
    def paper(cls, encoder: Any, target: Target, **options: Any) -> TextToUnlearn:
        """Make the method of the paper alone: mapper, direction, perceptual and identity losses.

        Parameters
        ----------
        encoder, target
            As in the class.
        **options
            Replace parameters.

        Returns
        -------
        TextToUnlearn
        """
        settings: dict[str, Any] = {
            "method": "weights",
            "gate": False,
            "second_view": False,
            "surrogate": False,
            "fold_steps": 0,
            "direction_weight": 1.0,
            "retain_weight": 0.0,
            "perceptual_weight": 0.3,
            "guide_every": 1,
            "augment": False,
            "layers": "all",
            "steps": 60,
            "lr": 1e-3,
            "margin": 0.5,
        }
        return cls(encoder, target, **{**settings, **options})

    def unlearn(
        self,
        generator: Generator | nn.Module,
        *,
        progress: Progress = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> GanResult:
        """Give a new generator that no longer shows the target.

        Parameters
        ----------
        generator : Generator or torch.nn.Module
            Left as it is.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.
        checkpoint : path-like, optional
            Folder where the training is kept on a clock, at an interruption (Ctrl-C) and at
            a budget's end; the same call goes on from there to the same bits. Removed when
            the run is done.

        Returns
        -------
        GanResult

        Raises
        ------
        InputError
            A generator that is not as declared, a target that the encoder cannot tell from
            the anchor or that the generator never shows (``CL-INPUT-TARGET``), an unknown
            layer (``CL-SPLIT-LAYER``).
        """
        start = time.process_time()
        _RULES.check(self)
        request = Request.of(
            self.target, self.anchor, self.retain, Limits(self.min_separation, self.min_share)
        )
        seed = resumed_seed(self.random_state, checkpoint)
        draws = torch_generator(seed)
        given = as_generator(generator).on(self.device)
        given.check()
        way = self._way(given)
        sight = look(
            given.frozen(),
            Guide(self.encoder, self.templates, device=given.device),
            request,
            draws,
            n=self.n_survey,
            second_view=self.second_view and way == "weights",
            partners=self.surrogate and way == "weights",
        )
        make = self._by_weights if way == "weights" else self._by_detour
        trained, run, figures, details = make(
            given,
            sight,
            draws,
            progress=progress,
            max_steps=self.max_steps,
            max_seconds=self.max_seconds,
            checkpoint=checkpoint,
            key=self._key(seed, given),
            seed=seed,
            description="forget " + ", ".join(request.targets),
        )
        gates = {gate.concept.name: gate for gate in sight.gates}
        details = {
            "targets": request.targets,
            "method": way,
            "anchors": {name: gate.concept.anchor for name, gate in gates.items()},
            "separations": {name: gate.separation for name, gate in gates.items()},
            "tried": sight.tried,
            "shares": {name: gate.share for name, gate in gates.items()},
            **details,
            "held-out": figures,
        }
        self.seed_ = seed
        seconds = time.process_time() - start
        run.finish()
        told, stopped = list(run.warnings), run.stopped
        falls = ", ".join(missed(figures["removed"], figures["unchanged"]))
        if falls:
            told.append(
                f"Not forgotten as asked: {falls} of held-out latents, by the guide. {ADVICE}"
            )
            stopped = f"missed: {falls}" if stopped == "done" else stopped
        for message in told:
            warnings.warn(message, UnlearningWarning, stacklevel=2)
        return GanResult(trained, rows_of(run), stopped, seed, seconds, details, told)

    def _way(self, given: Generator) -> str:
        ways = ("auto", "weights", "detour", "distilled")
        if self.method not in ways:
            raise unknown_name("method", self.method, ways)
        if self.method != "auto":
            return self.method
        return "weights" if given.has_styles else "detour"

    def _by_weights(
        self, given: Generator, sight: Sight, draws: torch.Generator, **running: Any
    ) -> Made:
        """Train a mapper, let the mapping learn it, and train the synthesis of a copy."""
        progress = running["progress"]
        mapper, mapped = train_mapper(sight, self._mapper_options(), draws, track=_bar(progress))
        direction = mean_move(sight, mapper, self.n_survey // 8)
        if not self.gate:
            sight = sight.of_all()
        trained = given.fork()
        if given.dtype in {torch.float16, torch.bfloat16}:  # too coarse for small steps
            trained.module.float()
        off = (0.0, 0.0)
        if self.fold_steps and self.surrogate and trained.has_styles:
            off = fold_into_mapping(trained, sight, mapper, draws, steps=self.fold_steps)
        folded = off[1] < off[0]
        work = Objective(Weights.of(self), sight, trained, mapper, direction, folded)
        chosen = self._layers(work, draws)
        held_out = HeldOut(sight, trained, self.n_held_out, draws, Thumbnails(progress))
        run = finetune(
            list(chosen.values()),
            lambda step: work.losses(step, draws),
            steps=self.steps,
            lr=self.lr,
            draws=draws,
            average=self.average,
            check=held_out,
            **running,
        )
        _same_kind(trained.module, given.module)
        details = {
            "layers": sorted({name.rpartition(".")[0] for name in chosen}),
            "mapper": mapped[-1] if mapped else {},
            "mapper_steps": len(mapped),
            "mapping": {"learned": folded, "error before": off[0], "error": off[1]},
            "direction": direction.cpu().numpy(),
        }
        return trained, run, held_out.at_the_end(), details

    def _by_detour(
        self, given: Generator, sight: Sight, draws: torch.Generator, **running: Any
    ) -> Made:
        """Train gate and shift of a detour; a copy learns it where it is not to stay."""
        gate, shift = new_detour(sight, draws)
        z, scores, found = learn_gate(gate, sight, draws)
        bank = Bank(sight, shift, z, scores, draws)
        stays = self.method != "distilled"
        run = finetune(
            list(shift.parameters()),
            detour_losses(shift, bank, sight, self.batch_size, self.margin),
            steps=self.detour_steps,
            lr=_DETOUR_LR,
            draws=draws,
            average=self.average,
            **(running if stays else {"progress": running["progress"]}),
        )
        learn(gate, False)
        learn(shift, False)
        trained = with_detour(given, gate, shift)
        detour: Any = trained.module
        if stays:
            _same_kind(detour.module, given.module)
        else:
            trained = given.fork()
            trained.module.float()
            learn(trained.module, True)
            run = finetune(
                list(trained.module.parameters()),
                copy_losses(detour, bank, trained, 2 * self.batch_size),
                steps=2 * self.detour_steps,
                lr=_DETOUR_LR,
                draws=draws,
                average=self.average,
                **running,
            )
            _same_kind(trained.module, given.module)
        n = max(self.n_held_out, _DETOUR_HELD_OUT)
        figures = HeldOut(sight, trained, n, draws, Thumbnails(running["progress"])).at_the_end()
        layers = ["shift"] if stays else sorted(_layers_of(trained.module))
        return trained, run, figures, {"gate": found, "layers": layers}

    def _mapper_options(self) -> MapperOptions:
        return MapperOptions(
            self.mapper_steps,
            self.batch_size,
            self.mapper_lr,
            self.margin,
            self.groups,
            self.surrogate,
            self.perceptual or perceptual_loss,
        )

    def _layers(self, work: Objective, draws: torch.Generator) -> dict[str, nn.Parameter]:
        """Choose what is trained of the synthesis, by the slopes of a first batch."""
        module: Any = work.trained.module
        body = module.synthesis if work.trained.has_styles else module
        learn(body, True)
        first = torch.stack(list(work.losses(0, draws).values())).sum()
        chosen = sensitive_layers(body, first, self.layers)
        if self.fisher_weight:
            work.measure_fisher(chosen)
        return chosen

    def _key(self, seed: int, given: Generator) -> dict[str, Any]:
        """Tell what a checkpoint must match."""
        plain = (bool, int, float, str, list, tuple, type(None))
        kept = {k: v for k, v in self.get_params(deep=False).items() if isinstance(v, plain)}
        for budget in ("max_steps", "max_seconds", "random_state"):
            kept.pop(budget, None)
        parameters = {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}
        if not isinstance(self.target, str | list | tuple):
            meant: Any = Request.of(self.target).given
            parameters["target"] = hashlib.sha256(meant.numpy().tobytes()).hexdigest()
        return {
            "method": type(self).__name__,
            "seed": seed,
            "generator": fingerprint(given.module),
            "guide": self.encoder.fingerprint,
            "parameters": parameters,
        }


def _layers_of(module: nn.Module) -> set[str]:
    return {name.rpartition(".")[0] for name, _ in module.named_parameters()}


def _bar(progress: Progress) -> Callable[[range], Any]:
    return functools.partial(track, description="learn the mapper", progress=progress, unit="step")


def _same_kind(module: nn.Module, like: nn.Module) -> None:
    """Give the weights the types and flags, and the module the mode, that the user's has."""
    learn(module, False)
    for kind in ("parameters", "buffers"):
        for new, old in zip(getattr(module, kind)(), getattr(like, kind)(), strict=True):
            if new.dtype != old.dtype:
                new.data = new.data.to(old.dtype)
            new.requires_grad_(old.requires_grad)
    for new_part, old_part in zip(module.modules(), like.modules(), strict=True):
        if new_part.training != old_part.training:
            new_part.training = old_part.training
