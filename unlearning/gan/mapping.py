"""The mapping network learns the mapper: latents with a concept get styles without it."""

from __future__ import annotations

__all__ = ["fold_into_mapping"]

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.generators import Generator, learn
from unlearning.gan.mapper import LatentMapper, Survey

_FRESH = 16384


def fold_into_mapping(
    trained: Generator,
    frozen: Generator,
    seen: Survey,
    shows: torch.Tensor,
    mapper: LatentMapper,
    draws: torch.Generator,
    *,
    steps: int = 1500,
    batch_size: int = 256,
    lr: float = 2e-3,
) -> float:
    """Train the mapping of `trained` to give what mapper and gate make of the old one's styles.

    Whether a fresh latent shows the concept is read from its style by a small classifier
    that learns the gate's answers on the survey, so that no image is needed.

    Parameters
    ----------
    trained : Generator
        Its mapping is changed.
    frozen : Generator
    seen : Survey
    shows : Tensor of shape (n,), bool
        The gate's answers on the survey.
    mapper : LatentMapper
    draws : torch.Generator
    steps, batch_size, lr
        Of the training.

    Returns
    -------
    float
        Mean absolute error of the styles on fresh latents, in units of their scale.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        classifier = nn.Sequential(
            nn.Linear(len(mapper.centre), 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
        ).to(seen.styles.device)
    inputs = mapper.normal(seen.styles).unflatten(0, (len(seen), -1))[:, 0]
    truth = shows.to(inputs)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.02)
    for _ in range(400):
        rows = torch.randint(len(inputs), (256,), generator=draws)
        loss = functional.binary_cross_entropy_with_logits(
            classifier(inputs[rows])[:, 0], truth[rows]
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        z = torch.cat([seen.z, frozen.draw(min(_FRESH, 16 * len(seen)), draws)])
        old = frozen.styles(z)
        heads = mapper.normal(old).unflatten(0, (len(old), -1))[:, 0]
        has = classifier(heads)[:, 0] > 0
        has[: len(seen)] = shows
        shape = (len(old), *[1] * (old.ndim - 1))
        goal = torch.where(has.view(shape), mapper(old), old)
    mapping: nn.Module = trained.module.mapping  # type: ignore[assignment]
    parameters = list(mapping.parameters())
    for p in parameters:
        p.requires_grad_(True)
    learner = torch.optim.Adam(parameters, lr=lr)
    for step in range(steps):
        learner.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        rows = torch.randint(len(z), (batch_size,), generator=draws)
        off = (trained.styles(z[rows]) - goal[rows]) / mapper.scale
        loss = functional.smooth_l1_loss(off, torch.zeros_like(off), beta=0.1)
        learner.zero_grad(set_to_none=True)
        loss.backward()
        learner.step()
    with torch.no_grad():
        learn(mapping, False)
        fresh = slice(len(seen), len(seen) + 2048)
        off = (trained.styles(z[fresh]) - goal[fresh]) / mapper.scale
        return float(off.abs().mean())
