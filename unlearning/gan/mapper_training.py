"""The training of a latent mapper: partners, the guide, and a critic of styles."""

from __future__ import annotations

__all__ = ["MapperOptions", "mean_move", "train_mapper"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.losses import margin_loss, perceptual_loss, retain_divergence
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.places import match_styles
from unlearning.gan.sight import Sight
from unlearning.gan.survey import Survey

_LATENTS = 32  # at once, where no gradient is kept
_WARM = 400  # steps that learn the styles of partners
_WINDOW = 8  # steps that must please the gate before the training ends
_PLEASED = 0.003  # of the margin loss
_WITH_PARTNERS = {"margin": 1.0, "stay": 1.0, "critic": 0.05}
_ALONE = {"margin": 1.0, "retain": 0.3, "perceptual": 0.1, "critic": 0.05}


@dataclass(frozen=True)
class MapperOptions:
    """How a mapper is trained.

    Attributes
    ----------
    steps, batch_size, lr
        Of the part with images, which ends when some steps in a row have pleased the gate.
    margin : float
        How far below the gate scores must be, in units of its gap.
    groups : int
        See :class:`LatentMapper`.
    partners : bool
        Whether it learns the styles of partners first, and is held by them.
    perceptual : callable
        From two batches of images to a loss; holds the images where there are no partners.
    """

    steps: int = 40
    batch_size: int = 24
    lr: float = 1e-3
    margin: float = 0.1
    groups: int = 1
    partners: bool = True
    perceptual: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = perceptual_loss


def train_mapper(
    sight: Sight,
    options: MapperOptions,
    draws: torch.Generator,
    *,
    track: Callable[[range], Iterator[int]] = iter,
) -> tuple[LatentMapper, list[dict[str, float]]]:
    """Train a mapper that takes the concept out.

    First it learns the styles of its partners, which costs no image. Then images come in:
    scores below the gate by a margin, styles that stay with the partner's, and a critic that
    tells moved styles from the generator's own ones, so that the guide is not pleased by
    styles that the generator never makes. Without partners, retained attributes and a light
    perceptual term hold the image instead; they hold what is to go as well, and the images
    look less like the generator's own.

    Parameters
    ----------
    sight : Sight
    options : MapperOptions
    draws : torch.Generator
    track : callable
        Wraps the range of steps, for a progress bar.

    Returns
    -------
    mapper : LatentMapper
    history : list of dict
        A row a step; shorter than `steps` where the gate was pleased, and where a loss was
        not finite, which ends the training before the step.
    """
    seen, shows, places = sight.seen, sight.shows, sight.places
    mapper, critic = _new(sight, options.groups, draws)
    with_it, without = seen[shows], seen.styles[~shows]
    if places is not None:
        mapper.share_out(with_it, places.shares)
    partners = None
    if options.partners:
        rows, partners = match_styles(seen, sight.likely, sight.known, sight.gates, places=places)
        _warm(mapper, seen, rows, partners, draws)
    weights = _ALONE if partners is None else _WITH_PARTNERS
    optimiser = torch.optim.Adam(mapper.parameters(), lr=options.lr, betas=(0.5, 0.99))
    history: list[dict[str, float]] = []
    for step in track(range(options.steps)):
        for group in optimiser.param_groups:
            group["lr"] = options.lr * min(1.0, 2 * (1 - step / options.steps) + 0.05)
        rows = torch.randint(len(with_it), (options.batch_size,), generator=draws)
        part = with_it[rows]
        kind = mapper.choose(part.z)
        moved = mapper(part.styles, kind)
        many = 4 * options.batch_size
        own = without[torch.randint(len(without), (many,), generator=draws)]
        more = with_it[torch.randint(len(with_it), (many,), generator=draws)]
        with torch.no_grad():
            others = mapper.normal(mapper.moved(more))
        critic.learn(mapper.normal(own), others)
        images = sight.frozen.images_of(moved)
        e = sight.guide.embed(images)
        margins = [margin_loss(gate.score(e), options.margin) for gate in sight.gates]
        terms = {
            "margin": torch.stack(margins).sum(),
            "critic": functional.softplus(-critic(mapper.normal(moved))).mean(),
        }
        if partners is not None:
            terms["stay"] = _apart(mapper, moved, seen.styles[partners[rows, kind]])
        else:
            terms["retain"] = retain_divergence(
                e, part.embeddings, sight.families, sight.guide.scale
            )
            with torch.no_grad():
                before = sight.frozen.images_of(part.styles)
            terms["perceptual"] = options.perceptual(images, before)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        slope = nn.utils.get_total_norm([p.grad for p in mapper.parameters() if p.grad is not None])
        if not bool(torch.isfinite(loss + slope)):
            break  # the mapper as it was before this step is given back
        optimiser.step()
        history.append({"step": step, **{k: float(v.detach()) for k, v in terms.items()}})
        last = [row["margin"] for row in history[-_WINDOW:]]
        if len(last) == _WINDOW and sum(last) < _WINDOW * _PLEASED:
            break
    return mapper.requires_grad_(False).eval(), history


@torch.no_grad()
def mean_move(sight: Sight, mapper: LatentMapper, most: int) -> torch.Tensor:
    """Give the direction in which embeddings move with their styles, a unit vector (d,).

    Parameters
    ----------
    sight : Sight
    mapper : LatentMapper
    most : int
        Latents with the concept to look at.
    """
    pairs = sight.seen[sight.shows][:most]
    moved = [sight.frozen.images_of(w) for w in mapper.moved(pairs).split(_LATENTS)]
    after = sight.guide.embed_all(torch.cat(moved))
    difference = (after - pairs.embeddings).mean(0)
    return difference / difference.norm()


class _Critic(nn.Module):
    """Tells styles that were moved from the generator's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(dim, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
        )
        self.optimiser = torch.optim.Adam(self.parameters(), lr=2e-3, betas=(0.5, 0.99))

    def forward(self, styles: torch.Tensor) -> torch.Tensor:
        return self.body(styles)

    def learn(self, own: torch.Tensor, moved: torch.Tensor) -> None:
        """Descend once, its slope on own styles held down."""
        own = own.requires_grad_(True)
        on_own = self(own)
        loss = functional.softplus(-on_own).mean() + functional.softplus(self(moved)).mean()
        (slope,) = torch.autograd.grad(on_own.sum(), own, create_graph=True)
        loss = loss + 0.5 * slope.square().sum(1).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def _new(sight: Sight, groups: int, draws: torch.Generator) -> tuple[LatentMapper, _Critic]:
    """Make both with weights that are drawn from `draws`."""
    styles, places = sight.seen.styles, sight.places
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        kinds = len(places.kinds) if places is not None else 1
        mapper = LatentMapper(styles, groups, kinds=kinds).to(styles.device)
        critic = _Critic(len(mapper.centre)).to(styles.device)
    return mapper, critic


def _warm(
    mapper: LatentMapper,
    seen: Survey,
    rows: torch.Tensor,
    partners: torch.Tensor,
    draws: torch.Generator,
) -> None:
    optimiser = torch.optim.Adam(mapper.parameters(), lr=2e-3)
    for step in range(_WARM):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - step / _WARM))
        chosen = torch.randint(len(rows), (128,), generator=draws)
        kind = torch.randint(mapper.kinds, (128,), generator=draws)
        moved = mapper(seen.styles[rows[chosen]], kind.to(rows))
        loss = _apart(mapper, moved, seen.styles[partners[chosen, kind]])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def _apart(mapper: LatentMapper, moved: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference, which tends to one goal where two are as near.

    A square would tend to the blend between them.
    """
    return functional.l1_loss(moved, goal) / mapper.scale
