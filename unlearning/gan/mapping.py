"""The mapping network learns the mapper: latents with a concept get styles without it."""

from __future__ import annotations

__all__ = ["fold_into_mapping"]

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.generators import Generator, learn
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.sight import Sight
from unlearning.gan.survey import Survey

_FRESH = 16384
_HELD_OUT = 2048
_RATE = 1.2  # see _rates
_TRIES = 3


def fold_into_mapping(
    trained: Generator,
    sight: Sight,
    mapper: LatentMapper,
    draws: torch.Generator,
    *,
    steps: int = 3000,
    batch_size: int = 256,
) -> tuple[float, float]:
    """Train the mapping of `trained` to give what mapper and gate make of the old one's styles.

    Whether a fresh latent shows the concept is read from its style by a small classifier
    that learns the gate's answers on the survey, so that no image is needed.

    Parameters
    ----------
    trained : Generator
        Its mapping is changed.
    sight : Sight
    mapper : LatentMapper
    draws : torch.Generator
    steps, batch_size
        Of the training.

    Returns
    -------
    before, after : float
        Mean absolute error of the styles on latents that were not trained on, in units of
        their scale; the same where the mapping was set back to what it was.

    Notes
    -----
    What takes the concept's place changes at once where one latent goes another way than its
    neighbour, and a mapping that is trained too little or too gently gives blends there. The
    rates are therefore as large as each layer's size allows. Where the error does not fall all
    the same, the mapping is set back, and trained at a quarter of the rates; after three tries
    it stays as it was.
    """
    frozen, seen, shows = sight.frozen, sight.seen, sight.shows
    classify = _style_gate(seen, shows, mapper, draws)
    with torch.no_grad():
        z = torch.cat([seen.z, frozen.draw(min(_FRESH, 16 * len(seen)), draws)])
        old = frozen.styles(z)
        has = classify(old)
        has[: len(seen)] = shows
        shape = (len(old), *[1] * (old.ndim - 1))
        goal = torch.where(has.view(shape), mapper(old, mapper.choose(z)), old)
    mapping: nn.Module = trained.module.mapping  # type: ignore[assignment]
    learn(mapping, True)
    held = slice(len(z) - min(_HELD_OUT, len(z) // 4), len(z))
    first = {name: value.clone() for name, value in mapping.state_dict().items()}
    with torch.no_grad():
        before = float(((old[held] - goal[held]) / mapper.scale).abs().mean())
    rate, error = _RATE, before
    for _ in range(_TRIES):
        learner = torch.optim.Adam(_rates(mapping, rate))
        for step in range(steps):
            for group in learner.param_groups:
                group["lr"] = group["most"] * min(1.0, 2 * (1 - step / steps))
            rows = torch.randint(held.start, (batch_size,), generator=draws)
            off = (trained.styles(z[rows]) - goal[rows]) / mapper.scale
            loss = functional.smooth_l1_loss(off, torch.zeros_like(off), beta=0.1)
            learner.zero_grad(set_to_none=True)
            loss.backward()
            learner.step()
        with torch.no_grad():
            error = float(((trained.styles(z[held]) - goal[held]) / mapper.scale).abs().mean())
        if error < before:
            break
        mapping.load_state_dict(first)
        rate, error = rate / 4, before
    learn(mapping, False)
    return before, error


def _style_gate(
    seen: Survey, shows: torch.Tensor, mapper: LatentMapper, draws: torch.Generator
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Learn from the survey which styles are to be moved, (n, ...) to (n,) bool."""

    def heads(w: torch.Tensor) -> torch.Tensor:
        return mapper.normal(w).unflatten(0, (len(w), -1))[:, 0]

    inputs, truth = heads(seen.styles), shows.to(seen.styles)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        classifier = nn.Sequential(
            nn.Linear(len(mapper.centre), 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
        ).to(inputs.device)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.02)
    for _ in range(400):
        rows = torch.randint(len(inputs), (256,), generator=draws)
        loss = functional.binary_cross_entropy_with_logits(
            classifier(inputs[rows])[:, 0], truth[rows]
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return lambda w: classifier(heads(w))[:, 0] > 0


def _rates(mapping: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Give each layer a rate in proportion to its weights, less for more inputs.

    So the training is the same however the weights are scaled within the module, as
    StyleGAN scales them, and steps change what layers give by as much in wide ones.
    """
    groups = []
    for module in mapping.modules():
        own = list(module.parameters(recurse=False))
        if own:
            size = torch.cat([p.detach().flatten() for p in own]).square().mean().sqrt()
            inputs = max([p[0].numel() for p in own if p.ndim > 1] or [p.numel() for p in own])
            most = rate * float(size) / inputs**0.5
            groups.append({"params": own, "lr": most, "most": most})
    return groups
