"""The latent mapper: styles of images with a concept to styles without it."""

from __future__ import annotations

__all__ = ["LatentMapper", "train_mapper"]

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.gate import Gate
from unlearning.gan.generators import Generator
from unlearning.gan.guide import Guide
from unlearning.gan.losses import margin_loss, perceptual_loss, retain_divergence
from unlearning.gan.places import Places, match_styles
from unlearning.gan.survey import Survey

_WINDOW = 8  # steps that must please the gate before the training of a mapper ends
_PLEASED = 0.003  # of the margin loss
_WITH_PARTNERS = {"margin": 1.0, "stay": 1.0, "retain": 0.0, "perceptual": 0.0, "critic": 0.05}
_ALONE = {"margin": 1.0, "stay": 0.0, "retain": 0.3, "perceptual": 0.1, "critic": 0.05}


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
    kinds : int
        Ways to go: what red things may become is yellow, green or blue. Each has a last
        layer of its own; :meth:`choose` tells which way a latent goes.

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
    ways: torch.Tensor
    offsets: torch.Tensor

    def __init__(
        self, styles: torch.Tensor, groups: int = 1, width: int = 128, kinds: int = 1
    ) -> None:
        super().__init__()
        self.layers = styles.shape[1] if styles.ndim == 3 else 0
        self.groups = min(groups, self.layers) if self.layers else 1
        self.kinds = kinds
        heads = self._heads(styles)
        dim = heads.shape[2]
        self.register_buffer("centre", heads.mean((0, 1)))
        self.register_buffer("scale", (heads - self.centre).square().mean().sqrt() + 1e-8)
        self.register_buffer("ways", torch.zeros(0, kinds).to(self.centre))
        self.register_buffer("offsets", torch.zeros(kinds).to(self.centre))
        self.body = nn.Sequential(
            nn.Linear(dim, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
        )
        self.step = nn.Linear(width, kinds * self.groups * dim)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, w: torch.Tensor, kind: torch.Tensor | None = None) -> torch.Tensor:
        """Give w + M(w), of the shape of w; `kind`, (n,) int64, is the first by default."""
        heads = self._heads(w)
        body = self.body((heads[:, 0] - self.centre) / self.scale)
        every = self.step(body).unflatten(1, (self.kinds, self.groups, -1))
        kind = torch.zeros(len(w), dtype=torch.int64, device=w.device) if kind is None else kind
        step = self.scale * every[torch.arange(len(w), device=w.device), kind]
        if not self.layers:
            return w + step[:, 0].view_as(w)
        return w + self._spread(step)

    def moved(self, part: Survey) -> torch.Tensor:
        """Give w + M(w) of latents, each on the way that :meth:`choose` tells."""
        return self(part.styles, self.choose(part.z))

    def choose(self, z: torch.Tensor) -> torch.Tensor:
        """Tell which way each latent goes, (n,) int64."""
        if not len(self.ways):
            return torch.zeros(len(z), dtype=torch.int64, device=z.device)
        return (z.flatten(1) @ self.ways + self.offsets).argmax(1)

    @torch.no_grad()
    def share_out(self, part: Survey, shares: torch.Tensor) -> None:
        """Settle which latents go which way, so that each way is taken as often as asked.

        Each way has a direction of its own, and a latent goes the way that it lies farthest
        along. The directions are those in which latents differ while what the guide sees
        does not, so that what becomes of an image depends on nothing in it. They are of
        latents, not of styles, since the mapping network must learn the choice, and learns
        plain cuts of its own input best.

        Parameters
        ----------
        part : Survey
            Latents with the concept.
        shares : Tensor of shape (kinds,)
        """
        if self.kinds == 1:
            return
        z = part.z.flatten(1)
        centred = (z - z.mean(0)).double()
        e = (part.embeddings - part.embeddings.mean(0)).double()
        told = torch.linalg.svd(e, full_matrices=False)[0][:, : max(1, min(16, len(z) // 8))]
        # The share of the variance along each direction that embeddings tell, least first.
        spread, turn = torch.linalg.eigh(centred.T @ centred / len(z))
        wide = spread > 0.01 * spread.max()
        whiten = turn[:, wide] / spread[wide].sqrt()
        seen = told.T @ (centred @ whiten) / len(z) ** 0.5
        hidden = whiten @ torch.linalg.eigh(seen.T @ seen)[1][:, : self.kinds - 1]
        # Corners of a simplex; where there are too few directions, of its shadow, in which
        # corners stay apart.
        angles = torch.arange(self.kinds) + 0.5
        corners = [torch.cos(torch.pi / self.kinds * i * angles) for i in range(1, self.kinds)]
        self.ways = (hidden @ torch.stack(corners)[: hidden.shape[1]].to(hidden)).to(self.centre)
        along = z.to(self.ways) @ self.ways
        self.offsets.copy_(-along.mean(0))
        goal = (shares / shares.sum()).to(self.offsets)
        for step in range(400):
            found = (along + self.offsets).argmax(1).bincount(minlength=self.kinds) / len(z)
            self.offsets += (goal - found) / (1 + 0.05 * step)

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


def train_mapper(
    generator: Generator,
    guide: Guide,
    gates: Sequence[Gate],
    seen: Survey,
    shows: torch.Tensor,
    families: Mapping[str, torch.Tensor],
    known: Mapping[str, torch.Tensor],
    draws: torch.Generator,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    margin: float,
    weights: Mapping[str, float] | None = None,
    groups: int = 1,
    places: Places | None = None,
    warm_steps: int = 400,
    perceptual: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = perceptual_loss,
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
    generator : Generator
        Frozen.
    guide : Guide
    gates : sequence of Gate
        One for each target.
    seen : Survey
        Of `generator`.
    shows : Tensor of shape (n,)
        The probability that each latent of the survey shows a target.
    families : mapping of str to Tensor of shape (k, d)
        Texts of retained attributes.
    known : mapping of str to Tensor of shape (n, k)
        What the survey shows of them; see :func:`match_styles`.
    draws : torch.Generator
    steps, batch_size, lr, margin
        Of the second part, which ends when some steps in a row have pleased the gate.
    weights : mapping, optional
        Other weights for ``"margin"``, ``"stay"``, ``"retain"``, ``"perceptual"``, ``"critic"``.
    groups : int
        See :class:`LatentMapper`.
    places : Places, optional
        What may take the concept's place, as evenly as it is there.
    warm_steps : int
        Of the first part; 0 leaves it out, and the partners.
    perceptual : callable
        From two batches of images to a loss.
    track : callable
        Wraps the range of steps, for a progress bar.

    Returns
    -------
    mapper : LatentMapper
    history : list of dict
        A row a step; shorter than `steps` where the gate was pleased, and where a loss was
        not finite, which ends the training before the step.
    """
    weights = {**(_WITH_PARTNERS if warm_steps else _ALONE), **(weights or {})}
    state = torch.random.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        kinds = len(places.kinds) if places is not None else 1
        mapper = LatentMapper(seen.styles, groups, kinds=kinds).to(seen.styles.device)
        critic = nn.Sequential(
            nn.Linear(len(mapper.centre), 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
        ).to(seen.styles.device)
    torch.random.set_rng_state(state)
    with_it, without = seen[shows > 0.5], seen.styles[shows <= 0.5]
    if places is not None:
        mapper.share_out(with_it, places.shares)
    partners = None
    if warm_steps:
        positions, partners = match_styles(seen, shows, known, gates, places=places)
        _warm(mapper, seen, positions, partners, warm_steps, draws)
    optimiser = torch.optim.Adam(mapper.parameters(), lr=lr, betas=(0.5, 0.99))
    judge = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.99))
    history: list[dict[str, float]] = []
    for step in track(range(steps)):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, 2 * (1 - step / steps) + 0.05)
        rows = torch.randint(len(with_it), (batch_size,), generator=draws)
        part = with_it[rows]
        kind = mapper.choose(part.z)
        moved = mapper(part.styles, kind)
        own = without[torch.randint(len(without), (4 * batch_size,), generator=draws)]
        _teach(critic, judge, mapper, own, _more(mapper, with_it, 4 * batch_size, draws))
        e = guide.embed(images := generator.images_of(moved))
        terms = {
            "margin": torch.stack([margin_loss(gate.score(e), margin) for gate in gates]).sum(),
            "critic": functional.softplus(-critic(mapper.normal(moved))).mean(),
        }
        if partners is not None:
            terms["stay"] = _apart(mapper, moved, seen.styles[partners[rows, kind]])
        if weights["retain"]:
            terms["retain"] = retain_divergence(e, part.embeddings, families, guide.scale)
        if weights["perceptual"]:
            with torch.no_grad():
                before = generator.images_of(part.styles)
            terms["perceptual"] = perceptual(images, before)
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


def _warm(
    mapper: LatentMapper,
    seen: Survey,
    rows: torch.Tensor,
    partners: torch.Tensor,
    steps: int,
    draws: torch.Generator,
) -> None:
    optimiser = torch.optim.Adam(mapper.parameters(), lr=2e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - step / steps))
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


@torch.no_grad()
def _more(mapper: LatentMapper, part: Survey, n: int, draws: torch.Generator) -> torch.Tensor:
    return mapper.moved(part[torch.randint(len(part), (n,), generator=draws)])


def _teach(
    critic: nn.Module,
    optimiser: torch.optim.Optimizer,
    mapper: LatentMapper,
    own: torch.Tensor,
    moved: torch.Tensor,
) -> None:
    real = mapper.normal(own).requires_grad_(True)
    on_real = critic(real)
    loss = functional.softplus(-on_real).mean()
    loss = loss + functional.softplus(critic(mapper.normal(moved))).mean()
    (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
    loss = loss + 0.5 * slope.square().sum(1).mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
