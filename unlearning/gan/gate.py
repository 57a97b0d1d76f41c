"""The concept gate: which images show the concept, by the guide's own scores."""

from __future__ import annotations

__all__ = [
    "NEUTRAL",
    "Gate",
    "check_groups",
    "choose_anchor",
    "find_gates",
    "fit_gate",
    "gate_of",
    "refuse",
    "two_groups",
]

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from conceptlab.errors import InputError
from unlearning.gan.groups import Groups, evidence, two_groups
from unlearning.gan.guide import Concept, Guide
from unlearning.gan.options import Limits, Request

_RARE = 0.1  # a group that is smaller must stand behind a valley
_DIP = 0.8  # of its height
_FEW = 8  # images; fewer are no group
_EVIDENCE = 4.0  # nats for two groups; at most 1 in 100 laws of one lobe reaches them

NEUTRAL = ("a photo of an object", "an object", "an image", "a picture of a thing")
"""Texts tried as anchor when none is given.

Denials such as "without a dog" are not among them: an encoder hears "without"
and answers with whatever else can be missing.
"""


@dataclass(frozen=True)
class Gate:
    """A concept with the threshold above which an image is said to show it.

    Attributes
    ----------
    concept : Concept
    threshold : float
        Where the two groups of scores are equally likely.
    separation : float
        Ashman's D of the two groups: distance of the means over the root mean square
        deviation; above 2 they are apart.
    share : float
        Share of the generator's images that show the concept.
    gap : float
        Distance between the means of the groups.
    dip : float
        Density of the scores at the threshold over that at the mean of the upper group; a
        group that is there has a valley before it, the tail of one law has none.
    scores : ndarray of shape (n,)
        That it was fitted to.
    groups : Groups
        Of these scores.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from unlearning.gan.guide import Guide
    >>> encoder = load_encoder("embedded")
    >>> concept = Guide(encoder).concept("red", ["blue"])
    >>> rng = np.random.default_rng(0)
    >>> images = rng.random((60, 3, 32, 32), dtype=np.float32) * np.float32(0.2)
    >>> images[::3, 0] += np.float32(0.8)  # every third is red
    >>> gate = fit_gate(concept, Guide(encoder).embed_all(torch.from_numpy(images)))
    >>> round(gate.share, 2)
    0.33
    """

    concept: Concept
    threshold: float
    separation: float
    share: float
    gap: float
    dip: float
    scores: np.ndarray = field(repr=False, compare=False)
    groups: Groups

    @property
    def fewest(self) -> int:
        """Images in the smaller of the two groups that it was fitted to."""
        above = int((self.scores > self.threshold).sum())
        return min(above, len(self.scores) - above)

    def evidence(self) -> float:
        """Give the evidence that there are two groups; see :func:`unlearning.gan.groups.evidence`.

        It takes a tenth of a second.
        """
        return evidence(self.scores, self.groups)

    def score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Give the excess over the threshold in units of the gap, (n,); positive shows it."""
        return (self.concept.score(embeddings) - self.threshold) / self.gap

    def shows(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Tell which images show the concept, (n,) bool."""
        return self.score(embeddings) > 0


def fit_gate(concept: Concept, embeddings: torch.Tensor) -> Gate:
    """Find the threshold of a concept from images of the generator.

    Scores of a zero-shot encoder are biased, so that 0 is a bad threshold; but where
    a generator shows the concept now and then, its scores fall into two groups. A
    mixture of normal laws finds them, the upper one from one in a hundred on. Whether
    there are two groups at all is asked by :func:`refuse`.

    Parameters
    ----------
    concept : Concept
    embeddings : Tensor of shape (n, d)
        Of images of the generator.

    Returns
    -------
    Gate
    """
    scores = concept.score(embeddings).cpu().double().numpy()
    groups = two_groups(scores)
    low, high, deviation, threshold = groups[:4]
    upper = scores[scores > threshold]
    near = 0.5 * float(upper.std()) if len(upper) else 0.0
    valley, peak = (int((abs(scores - at) <= near).sum()) for at in (threshold, high))
    return Gate(
        concept,
        threshold,
        separation=(high - low) / max(deviation, 1e-12),
        share=len(upper) / len(scores),
        gap=max(high - low, 1e-12),
        dip=valley / max(peak, 1),
        scores=scores,
        groups=groups,
    )


def choose_anchor(
    guide: Guide,
    target: str,
    embeddings: torch.Tensor,
    *,
    siblings: Sequence[str] = (),
    candidates: Sequence[str] = NEUTRAL,
    least: float = Limits.separation,
) -> tuple[Gate, dict[str, float]]:
    """Find what to tell the target from: its siblings, or else the best neutral text.

    Siblings are what the target is confused with, and what is not told from "an object" may yet
    be told from them; so they are taken wherever they separate enough.

    Parameters
    ----------
    guide : Guide
    target : str
    embeddings : Tensor of shape (n, d)
        Of images of the generator.
    siblings : sequence of str
        Other values of the target's family, tried together as one anchor.
    candidates : sequence of str
        Tried one by one.
    least : float
        Separation that is enough for the siblings.

    Returns
    -------
    gate : Gate
        With the siblings, or with the anchor of the largest separation.
    tried : dict of str to float
        The separation of each.
    """
    choices: list[tuple[str, ...]] = [(text,) for text in candidates]
    if siblings:
        choices.insert(0, tuple(siblings))
    gates = [fit_gate(guide.concept(target, anchor), embeddings) for anchor in choices]
    tried = {gate.concept.anchor: gate.separation for gate in gates}
    if siblings and gates[0].fewest >= _FEW and gates[0].separation >= least:
        return gates[0], tried
    return max(gates, key=lambda gate: (gate.fewest >= _FEW, gate.separation)), tried


def gate_of(
    guide: Guide, target: str, embeddings: torch.Tensor, request: Request
) -> tuple[Gate, dict[str, float]]:
    """Find anchor and threshold of a target, as it is asked for.

    Returns
    -------
    gate : Gate
    tried : dict of str to float
        The separation of every anchor that was tried.
    """
    if request.given is not None:
        gate = fit_gate(_concept_of(guide, request, embeddings), embeddings)
        return gate, {gate.concept.anchor: gate.separation}
    if request.anchor is None:
        return choose_anchor(guide, target, embeddings, siblings=request.siblings(target))
    gate = fit_gate(guide.concept(target, request.anchor), embeddings)
    return gate, {gate.concept.anchor: gate.separation}


def _concept_of(guide: Guide, request: Request, embeddings: torch.Tensor) -> Concept:
    """Put images, or a direction, in the place of a text.

    Images are told from the mean of the generator's own, where no anchor is given.
    """
    given: torch.Tensor = request.given  # type: ignore[assignment]
    name, anchor = request.targets[0], "the generator's own images"
    if given.ndim == 1:
        if len(given) != embeddings.shape[1]:
            raise InputError(
                f"The direction has {len(given)} numbers, the encoder's vectors have "
                f"{embeddings.shape[1]}.",
                code="CL-INPUT-SHAPE",
            )
        target, own = given.to(embeddings), torch.zeros_like(embeddings[0])
        anchor = "its opposite"
    else:
        target, own = guide.embed_all(given.to(embeddings)).mean(0), embeddings.mean(0)
        own = functional.normalize(own, dim=0)
    others = own[None]
    if request.anchor is not None:
        others, anchor = guide.texts(request.anchor), " | ".join(request.anchor)
    return Concept(name, anchor, functional.normalize(target, dim=0), others)


def find_gates(
    guide: Guide, embeddings: torch.Tensor, request: Request
) -> tuple[list[Gate], dict[str, dict[str, float]]]:
    """Find the gate of each target; refuse those that cannot be forgotten.

    Parameters
    ----------
    guide : Guide
    embeddings : Tensor of shape (n, d)
        Of images of the generator.
    request : Request

    Returns
    -------
    gates : list of Gate
    tried : dict of str to dict
        By target, the separation of every anchor that was tried.

    Raises
    ------
    InputError
        ``CL-INPUT-TARGET``.
    """
    gates, tried = [], {}
    for target in request.targets:
        gate, tried[target] = gate_of(guide, target, embeddings, request)
        refuse(gate, request.limits)
        gates.append(gate)
    return gates, tried


def refuse(gate: Gate, limits: Limits) -> None:
    """Raise where a target cannot be told apart, or is never made.

    Raises
    ------
    InputError
        ``CL-INPUT-TARGET``.
    """
    name, anchor = gate.concept.name, gate.concept.anchor
    same = float((gate.concept.others @ gate.concept.target).max())
    if same > 0.999:
        raise InputError(
            f"The encoder cannot tell {name!r} from the anchor {anchor!r}: the cosine of their "
            f"vectors is {same:.4f}. Give another anchor=, or another wording of the target.",
            code="CL-INPUT-TARGET",
        )
    why = _flaw(gate, limits) if limits.separation > 0 else ""
    if why:
        raise InputError(
            f"The images of this generator do not fall into two groups by {name!r} against "
            f"{anchor!r}: separation {gate.separation:.2f}, at least {limits.separation:g} is "
            f"needed, with {100 * gate.share:.1f} % of the images above the threshold, {why}. "
            "Either the generator hardly ever shows it, or the encoder cannot see it. Give another "
            "wording, anchor= or encoder; where it is rare, more latents (n_survey=, n=); "
            "min_separation=0 takes any gate.",
            code="CL-INPUT-TARGET",
        )
    if gate.share < limits.share:
        raise InputError(
            f"The generator shows {name!r} in {100 * gate.share:.2f} % of its images, fewer than "
            f"{100 * limits.share:g} %: there is nothing to forget. Check the wording.",
            code="CL-INPUT-TARGET",
        )


def _flaw(gate: Gate, limits: Limits) -> str:
    """Say why the scores are not of two groups; empty where they are."""
    if gate.separation < limits.separation:
        return "too near to the others"
    if gate.fewest < _FEW:
        return f"and only {gate.fewest} images in one of the groups, fewer than {_FEW}"
    if gate.share < _RARE and gate.dip > _DIP:
        return "and no valley in the scores before them"
    if gate.evidence() < _EVIDENCE:
        return "and one law with a single lobe says as much of the scores as two groups"
    return ""


def check_groups(shows: torch.Tensor, targets: Sequence[str]) -> None:
    """Raise where no latent of a survey shows the targets, or all do.

    Raises
    ------
    InputError
        ``CL-INPUT-TARGET``.
    """
    found, names = int(shows.sum()), " or ".join(map(repr, targets))
    if not found:
        raise InputError(
            f"None of {len(shows)} images shows {names}: there is nothing to forget. Check the "
            "wording, or give a larger n_survey.",
            code="CL-INPUT-TARGET",
        )
    if found == len(shows):
        raise InputError(
            f"All {len(shows)} images show {names}: nothing is left to take the place. Forget less "
            "at once.",
            code="CL-INPUT-TARGET",
        )
