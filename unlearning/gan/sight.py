"""All that is known of a frozen generator before anything is trained."""

from __future__ import annotations

__all__ = ["Sight", "look"]

from dataclasses import dataclass, field, replace

import torch

from unlearning.gan.gate import Gate, check_groups, find_gates
from unlearning.gan.generators import Generator
from unlearning.gan.guide import Guide
from unlearning.gan.options import Request
from unlearning.gan.places import Places, find_places
from unlearning.gan.survey import Survey, survey
from unlearning.gan.views import shown, told


@dataclass(frozen=True)
class Sight:
    """What a frozen generator shows, and what of it is to go.

    Attributes
    ----------
    frozen : Generator
    guide : Guide
    seen : Survey
        Of `frozen`, by `guide`.
    gates : list of Gate
        One for each target.
    tried : dict of str to dict
        By target, the separation of each anchor that was tried.
    likely : Tensor of shape (n,)
        The probability that each latent of the survey shows a target.
    families : dict of str to Tensor of shape (k, d)
        Texts of retained attributes.
    known : dict of str to Tensor of shape (n, k)
        Probabilities of their values for each latent; empty without partners.
    places : Places or None
        What may take the concept's place, as evenly as it is there.
    rivals : list of Tensor of shape (1 + k, d)
        For each target in a family that has others: its own text, and theirs.
    """

    frozen: Generator
    guide: Guide
    seen: Survey
    gates: list[Gate]
    tried: dict[str, dict[str, float]]
    likely: torch.Tensor
    families: dict[str, torch.Tensor]
    known: dict[str, torch.Tensor]
    places: Places | None
    rivals: list[torch.Tensor] = field(default_factory=list)

    @property
    def shows(self) -> torch.Tensor:
        """Which latents of the survey are to change, (n,) bool; the others keep their image."""
        return self.likely > 0.5

    def of_all(self) -> Sight:
        """Give the same with every latent to be changed."""
        return replace(self, likely=torch.ones_like(self.likely))


def look(
    frozen: Generator,
    guide: Guide,
    request: Request,
    draws: torch.Generator,
    *,
    n: int,
    second_view: bool = True,
    partners: bool = True,
) -> Sight:
    """Survey a generator, find the gates, and say what each latent shows.

    Parameters
    ----------
    frozen : Generator
    guide : Guide
    request : Request
    draws : torch.Generator
    n : int
        Latents.
    second_view : bool
        Whether what images show is read from their styles too.
    partners : bool
        Whether attributes, and what may take the concept's place, are asked for.

    Returns
    -------
    Sight

    Raises
    ------
    InputError
        ``CL-INPUT-TARGET``: a target that cannot be told, is never shown, or always.
    """
    seen = survey(frozen, guide, n, draws)
    gates, tried = find_gates(guide, seen.embeddings, request)
    families = guide.families(request.kept())
    views = draws if second_view else None
    likely = torch.stack([shown(gate, seen, views) for gate in gates]).amax(0)
    check_groups(likely > 0.5, request.targets)
    known, places = {}, None
    if partners:
        texts = guide.families(request.retain)
        known = {name: told(vectors, seen, views) for name, vectors in texts.items()}
        places = find_places(likely > 0.5, known, request.retain, request.targets)
    known = {name: p for name, p in known.items() if name in families}
    siblings = {target: request.siblings(target) for target in request.targets}
    rivals = [guide.texts([target, *texts]) for target, texts in siblings.items() if texts]
    return Sight(frozen, guide, seen, gates, tried, likely, families, known, places, rivals)
