"""What may take the place of a concept: partners among the generator's own images."""

from __future__ import annotations

__all__ = ["Places", "find_places", "match_styles"]

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from unlearning.gan.gate import Gate
from unlearning.gan.survey import Survey

_CLEAR = 0.05  # probability below which a latent may be a partner
_FLOOR = 1e-3  # of probabilities, before their logarithm
_LEAST = 8  # latents of a kind that may take the concept's place


@torch.no_grad()
def match_styles(
    seen: Survey,
    shows: torch.Tensor,
    known: Mapping[str, torch.Tensor],
    gates: Sequence[Gate],
    *,
    places: Places | None = None,
    weight: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair each latent that shows the concept with near ones that do not, one of each kind.

    Near means: the same retained attributes (or, where none are known, a
    near embedding once the concept's directions are projected out), and then a near
    style. The partners are the generator's own, so what a mapper learns from them are
    images that the generator makes anyway. Were each to take its nearest partner, all red
    things might become yellow; so there is a partner of each kind that may take their place.

    Parameters
    ----------
    seen : Survey
    shows : Tensor of shape (n,)
        Probabilities, or bool. Partners are taken from where they are below 0.05: the nearest
        to a red thing are otherwise those that are red too, and taken for something else.
    known : mapping of str to Tensor of shape (n, k)
        Probabilities of the values of each retained family; see :func:`views.told`.
    gates : sequence of Gate
    places : Places, optional
        What may take the concept's place; one kind by default.
    weight : float
        Of the retained attributes beside the style.

    Returns
    -------
    rows : Tensor of shape (m,), int64
    partners : Tensor of shape (m, kinds), int64
        Positions in the survey.
    """
    rows, free = (shows > 0.5).nonzero()[:, 0], (shows < _CLEAR).nonzero()[:, 0]
    flat = seen.styles.flatten(1)
    scale = torch.cdist(flat[free[:256]], flat[free[:256]]).median() + 1e-8
    cost = torch.cdist(flat[rows], flat[free]) / scale
    e = seen.embeddings
    if known:
        for p in known.values():
            log = p.clamp(min=_FLOOR).log()
            cross = -p[rows] @ log[free].T
            own = -(p[rows] * log[rows]).sum(1, keepdim=True)
            cost = cost + weight * (cross - own).clamp(0, 5)
    else:
        directions = torch.stack(
            [gate.concept.target - gate.concept.others.mean(0) for gate in gates]
        )
        basis = torch.linalg.qr(directions.T)[0]
        rest = e - e @ basis @ basis.T
        spread = torch.cdist(rest[free[:256]], rest[free[:256]]).median() + 1e-8
        cost = cost + 2 * weight * torch.cdist(rest[rows], rest[free]) / spread
    if places is None:
        return rows, free[cost.argmin(1)][:, None]
    partners = [
        free[(cost + 5 * weight * places.misses(rows, free, kind)).argmin(1)]
        for kind in range(len(places.kinds))
    ]
    return rows, torch.stack(partners, dim=1)


@dataclass(frozen=True)
class Places:
    """What may take the place of the targets, by the families that these belong to.

    Attributes
    ----------
    likely : list of Tensor of shape (n, k)
        Probabilities of the values of each family for each latent of a survey.
    aimed : list of set of int
        The targets within each family.
    kinds : list of tuple of int
        A value that is no target from each family.
    shares : Tensor of shape (kinds,)
        How often each is there among latents without the concept.
    """

    likely: list[torch.Tensor]
    aimed: list[set[int]]
    kinds: list[tuple[int, ...]]
    shares: torch.Tensor

    def misses(self, rows: torch.Tensor, free: torch.Tensor, kind: int) -> torch.Tensor:
        """Expect in how many families latents are not what rows are to become, (rows, free).

        A red square that is to become yellow stays a square, where circles go too.
        """
        found = torch.zeros(len(rows), len(free), device=rows.device)
        for p, aimed, value in zip(self.likely, self.aimed, self.kinds[kind], strict=True):
            wanted = p[rows].argmax(1)
            for own in aimed:
                wanted = torch.where(wanted == own, value, wanted)
            found += 1 - p[free][:, wanted].T
        return found


def find_places(
    shows: torch.Tensor,
    known: Mapping[str, torch.Tensor],
    families: Mapping[str, Sequence[str]],
    targets: Sequence[str],
) -> Places | None:
    """Find what may take the place of the targets: the other values of their families.

    Parameters
    ----------
    shows : Tensor of shape (n,), bool
    known : mapping of str to Tensor of shape (n, k)
        Probabilities of the values of each family.
    families : mapping of str to sequence of str
        All families; those without a target are passed over.
    targets : sequence of str

    Returns
    -------
    Places or None
        None where no family holds a target, or one holds nothing else.
    """
    held = [name for name, values in families.items() if set(values) & set(targets)]
    aimed = [{i for i, value in enumerate(families[f]) if value in targets} for f in held]
    others = [
        [i for i in range(len(families[f])) if i not in a] for f, a in zip(held, aimed, strict=True)
    ]
    if not held or not all(others):
        return None
    likely = [known[f] for f in held]
    free = torch.stack([p.argmax(1) for p in likely], dim=1)[~shows]
    kinds, shares = [], []
    for kind in itertools.product(*others):
        there = (free == torch.tensor(kind, device=free.device)).all(1).sum()
        if there >= _LEAST:
            kinds.append(kind)
            shares.append(float(there))
    if not kinds:
        return None
    return Places(likely, aimed, kinds, torch.tensor(shares))
