"""The latent mapper: styles of images with a concept to styles without it."""

from __future__ import annotations

__all__ = ["LatentMapper", "Survey", "match_styles", "survey", "train_mapper"]

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.gate import Gate
from unlearning.gan.generators import Generator
from unlearning.gan.guide import Guide
from unlearning.gan.losses import margin_loss, perceptual_loss, retain_divergence


@dataclass(frozen=True)
class Survey:
    """What a frozen generator shows.

    Attributes
    ----------
    z : Tensor of shape (n, ...)
    styles : Tensor of shape (n, ...)
    embeddings : Tensor of shape (n, d)
    """

    z: torch.Tensor
    styles: torch.Tensor
    embeddings: torch.Tensor

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: torch.Tensor | slice) -> Survey:
        return Survey(self.z[rows], self.styles[rows], self.embeddings[rows])


@torch.no_grad()
def survey(
    generator: Generator, guide: Guide, n: int, draws: torch.Generator, batch: int = 128
) -> Survey:
    """Draw latents and look at their images with the guide."""
    z = generator.draw(n, draws)
    styles = torch.cat([generator.styles(part) for part in z.split(batch)])
    found = [guide.embed(generator.images_of(part)) for part in styles.split(batch)]
    return Survey(z, styles, torch.cat(found))


class LatentMapper(nn.Module):
    """Styles to styles: w + M(w), with M a small perceptron.

    Parameters
    ----------
    styles : Tensor of shape (n, d) or (n, layers, d)
        Examples, for scale and centre.
    groups : int
        Groups of layers that move apart from each other where styles have layers;
        StyleCLIP uses three.
    width : int
        Of the hidden layers.

    References
    ----------
    Patashnik et al. 2021, StyleCLIP, section 5.

    Examples
    --------
    >>> w = torch.randn(10, 4, 8)
    >>> bool((LatentMapper(w)(w) == w).all())  # before training it leaves styles alone
    True
    """

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, styles: torch.Tensor, groups: int = 1, width: int = 128) -> None:
        super().__init__()
        self.layers = styles.shape[1] if styles.ndim == 3 else 0
        self.groups = min(groups, self.layers) if self.layers else 1
        heads = self._heads(styles)
        dim = heads.shape[2]
        self.register_buffer("centre", heads.mean((0, 1)))
        self.register_buffer("scale", (heads - self.centre).square().mean().sqrt() + 1e-8)
        self.body = nn.Sequential(
            nn.Linear(dim, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
        )
        self.step = nn.Linear(width, self.groups * dim)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """Give w + M(w), of the shape of w."""
        heads = self._heads(w)
        body = self.body((heads[:, 0] - self.centre) / self.scale)
        step = self.scale * self.step(body).view(len(w), self.groups, -1)
        if not self.layers:
            return w + step[:, 0].view_as(w)
        return w + self._spread(step)

    def normal(self, w: torch.Tensor) -> torch.Tensor:
        """Give the style of each group in units of the scale, (n · groups, d)."""
        return ((self._heads(w) - self.centre) / self.scale).flatten(0, 1)

    def _bounds(self) -> list[int]:
        return [round(i * self.layers / self.groups) for i in range(self.groups + 1)]

    def _heads(self, w: torch.Tensor) -> torch.Tensor:
        if not self.layers:
            return w.flatten(1)[:, None]
        return torch.stack([w[:, i] for i in self._bounds()[:-1]], dim=1)

    def _spread(self, step: torch.Tensor) -> torch.Tensor:
        bounds = self._bounds()
        counts = [b - a for a, b in itertools.pairwise(bounds)]
        return step.repeat_interleave(torch.tensor(counts, device=step.device), dim=1)


@torch.no_grad()
def match_styles(
    seen: Survey,
    shows: torch.Tensor,
    guide: Guide,
    families: Mapping[str, torch.Tensor],
    gates: Sequence[Gate],
    *,
    weight: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair each latent that shows the concept with the nearest one that does not.

    Near means: the same retained attributes by the guide (or, without families, a
    near embedding once the concept's directions are projected out), and then a near
    style. The partners are the generator's own, so what a mapper learns from them are
    images that the generator makes anyway.

    Parameters
    ----------
    seen : Survey
    shows : Tensor of shape (n,), bool
    guide : Guide
    families : mapping of str to Tensor of shape (k, d)
    gates : sequence of Gate
    weight : float
        Of the retained attributes beside the style.

    Returns
    -------
    rows, partners : Tensor of shape (m,), int64
        Positions in the survey.
    """
    rows, free = shows.nonzero()[:, 0], (~shows).nonzero()[:, 0]
    flat = seen.styles.flatten(1)
    scale = torch.cdist(flat[free[:256]], flat[free[:256]]).median() + 1e-8
    cost = torch.cdist(flat[rows], flat[free]) / scale
    e = seen.embeddings
    if families:
        for vectors in families.values():
            log = (guide.scale * e @ vectors.T).log_softmax(1)
            cross = -log[rows].exp() @ log[free].T
            own = -(log[rows].exp() * log[rows]).sum(1, keepdim=True)
            cost = cost + weight * (cross - own).clamp(0, 5)
    else:
        directions = torch.stack(
            [gate.concept.target - gate.concept.others.mean(0) for gate in gates]
        )
        basis = torch.linalg.qr(directions.T)[0]
        rest = e - e @ basis @ basis.T
        spread = torch.cdist(rest[free[:256]], rest[free[:256]]).median() + 1e-8
        cost = cost + 2 * weight * torch.cdist(rest[rows], rest[free]) / spread
    return rows, free[cost.argmin(1)]


def train_mapper(
    generator: Generator,
    guide: Guide,
    gates: Sequence[Gate],
    seen: Survey,
    families: Mapping[str, torch.Tensor],
    draws: torch.Generator,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    margin: float,
    weights: Mapping[str, float],
    groups: int = 1,
    warm_steps: int = 400,
    perceptual: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = perceptual_loss,
    track: Callable[[range], Iterator[int]] = iter,
) -> tuple[LatentMapper, list[dict[str, float]]]:
    """Train a mapper that takes the concept out.

    First it learns the styles of matched latents, which costs no image. Then images
    come in: scores below the gate by a margin, retained attributes as they were, a
    light perceptual term, and a critic of styles that tells moved styles from
    the generator's own ones, so that the guide is not pleased by styles that
    the generator never makes.

    Parameters
    ----------
    generator : Generator
        Frozen.
    guide : Guide
    gates : sequence of Gate
        One for each target.
    seen : Survey
        Of `generator`.
    families : mapping of str to Tensor of shape (k, d)
        Texts of retained attributes.
    draws : torch.Generator
    steps, batch_size, lr, margin
        Of the second part.
    weights : mapping
        ``"margin"``, ``"retain"``, ``"perceptual"``, ``"critic"``, ``"norm"``.
    groups : int
        See :class:`LatentMapper`.
    warm_steps : int
        Of the first part; 0 leaves it out.
    perceptual : callable
        From two batches of images to a loss.
    track : callable
        Wraps the range of steps, for a progress bar.

    Returns
    -------
    mapper : LatentMapper
    history : list of dict
    """
    shows = torch.stack([gate.shows(seen.embeddings) for gate in gates]).any(0)
    state = torch.random.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        mapper = LatentMapper(seen.styles, groups).to(seen.styles.device)
        critic = nn.Sequential(
            nn.Linear(len(mapper.centre), 128), nn.LeakyReLU(0.2),
            nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1),
        ).to(seen.styles.device)  # fmt: skip
    torch.random.set_rng_state(state)
    with_it, without = seen[shows], seen.styles[~shows]
    if warm_steps:
        _warm(mapper, seen, shows, guide, families, gates, warm_steps, draws)
    optimiser = torch.optim.Adam(mapper.parameters(), lr=lr, betas=(0.5, 0.99))
    judge = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.99))
    history: list[dict[str, float]] = []
    for step in track(range(steps)):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, 2 * (1 - step / steps) + 0.05)
        rows = torch.randint(len(with_it), (batch_size,), generator=draws)
        part = with_it[rows]
        moved = mapper(part.styles)
        own = without[torch.randint(len(without), (4 * batch_size,), generator=draws)]
        _teach(critic, judge, mapper, own, _more(mapper, with_it.styles, 4 * batch_size, draws))
        images = generator.images_of(moved)
        with torch.no_grad():
            before = generator.images_of(part.styles)
        e = guide.embed(images)
        terms = {
            "margin": torch.stack([margin_loss(gate.score(e), margin) for gate in gates]).sum(),
            "retain": retain_divergence(e, part.embeddings, families, guide.scale),
            "perceptual": perceptual(images, before),
            "critic": functional.softplus(-critic(mapper.normal(moved))).mean(),
            "norm": ((moved - part.styles) / mapper.scale).square().mean(),
        }
        loss = torch.stack([weights.get(name, 0.0) * term for name, term in terms.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        history.append({"step": step, **{k: float(v.detach()) for k, v in terms.items()}})
    return mapper.requires_grad_(False).eval(), history


def _warm(
    mapper: LatentMapper, seen: Survey, shows: torch.Tensor, guide: Guide, families: Any,
    gates: Sequence[Gate], steps: int, draws: torch.Generator,
) -> None:  # fmt: skip
    rows, partners = match_styles(seen, shows, guide, families, gates)
    optimiser = torch.optim.Adam(mapper.parameters(), lr=2e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - step / steps))
        chosen = torch.randint(len(rows), (128,), generator=draws)
        moved = mapper(seen.styles[rows[chosen]])
        # The absolute difference tends to one partner where two are as near, the square to
        # the blend between them.
        loss = functional.l1_loss(moved, seen.styles[partners[chosen]]) / mapper.scale
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _more(
    mapper: LatentMapper, styles: torch.Tensor, n: int, draws: torch.Generator
) -> torch.Tensor:
    return mapper(styles[torch.randint(len(styles), (n,), generator=draws)])


def _teach(
    critic: nn.Module, optimiser: torch.optim.Optimizer, mapper: LatentMapper,
    own: torch.Tensor, moved: torch.Tensor,
) -> None:  # fmt: skip
    real = mapper.normal(own).requires_grad_(True)
    on_real = critic(real)
    loss = functional.softplus(-on_real).mean()
    loss = loss + functional.softplus(critic(mapper.normal(moved))).mean()
    (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
    loss = loss + 0.5 * slope.square().sum(1).mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
