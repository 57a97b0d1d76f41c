"""Concepts of rendered species, true and false by design, to measure classifiers with."""

from __future__ import annotations

__all__ = ["Outliers", "scene_concepts"]

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from conceptlab.datasets.world import COLOURS, SHAPES, SPECIES, TEXTURES, Species
from conceptlab.errors import InputError, unknown_name
from conceptlab.seeds import RandomState, numpy_generator
from conceptlab.vocabulary import ClassConcepts

Outliers = Literal["absent", "other", "rival"]
_FRAMES = ("a photo of {}", "a picture of {}", "an image of {}", "there is {}", "this is {}", "{}")
# Which of colour, texture and shape a sentence names: every choice but none.
_CHOICES = tuple(c for c in itertools.product((True, False), repeat=3) if any(c))


def scene_concepts(
    species: Sequence[Species] = SPECIES,
    n_concepts: int = 20,
    *,
    outliers: Outliers | None = None,
    rate: float = 0.0,
    random_state: RandomState = None,
) -> ClassConcepts:
    """Describe every species by sentences on parts of its signature, some of them false.

    Parameters
    ----------
    species : sequence of Species
        The classes.
    n_concepts : int
        Sentences for each class, at most 42, all different.
    outliers : {"absent", "other", "rival"}, optional
        What false sentences name: a colour, a texture and a shape that the
        class has not; the signature of another class, each of any; or that of
        one and the same other class, the next in the list.
    rate : float
        Probability of each sentence to be false, so that classes differ in how
        many they have.
    random_state : int, RandomState, Generator or None

    Returns
    -------
    ClassConcepts
        Whole sentences (``meta["prompt"]`` is "concept");
        ``meta["planted"]`` tells which are false, by class.

    Raises
    ------
    InputError
        More sentences than there are, a rate outside [0, 1], no second class.

    Examples
    --------
    >>> made = scene_concepts(n_concepts=3, random_state=0)
    >>> made["arvo"]
    ['an image of a striped object', 'a photo of a red object', 'this is a red striped circle']
    """
    if outliers is not None and outliers not in ("absent", "other", "rival"):
        raise unknown_name("kind of outlier", outliers, ["absent", "other", "rival"])
    if len({s.signature for s in species}) < max(2, len(species)):
        raise InputError(
            "species must be at least two, with different signatures.", code="CL-INPUT-FEW"
        )
    limit = len(_FRAMES) * len(_CHOICES)
    if not 1 <= n_concepts <= limit or not 0 <= rate <= 1:
        raise InputError(
            f"n_concepts must be in 1 to {limit} and rate in [0, 1], got {n_concepts} and {rate}.",
            code="CL-INPUT-RANGE",
        )
    rng = numpy_generator(random_state)
    texts: dict[str, list[str]] = {}
    planted: dict[str, list[bool]] = {}
    signatures = [(s.colour, s.texture, s.shape) for s in species]
    for kind, own in zip(species, signatures, strict=True):
        forms = rng.permutation(limit)[:n_concepts]
        false = rng.random(n_concepts) < (rate if outliers else 0.0)
        made: list[str] = []
        for form, is_false in zip(forms, false, strict=True):
            words = _false(own, signatures, outliers, rng) if is_false else own
            frame, choice = _FRAMES[form % len(_FRAMES)], _CHOICES[form // len(_FRAMES)]
            made.append(frame.format(_phrase(words, choice)))
        texts[kind.name] = made
        planted[kind.name] = false.tolist()
    return ClassConcepts(texts, meta={"prompt": "concept", "planted": planted})


def _false(
    own: tuple[str, ...],
    signatures: Sequence[tuple[str, ...]],
    outliers: Outliers | None,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    if outliers == "rival":
        return signatures[(signatures.index(own) + 1) % len(signatures)]
    if outliers == "other":
        others = [s for s in signatures if s != own]
        return others[int(rng.integers(len(others)))]
    families = (COLOURS, TEXTURES, SHAPES)
    return tuple(
        str(rng.choice([v for v in family if v != word]))
        for family, word in zip(families, own, strict=True)
    )


def _phrase(words: tuple[str, ...], choice: tuple[bool, ...]) -> str:
    """Name the chosen ones of colour, texture and shape."""
    colour, texture, shape = choice
    parts = [w for w, named in zip(words[:2], (colour, texture), strict=True) if named]
    parts.append(words[2] if shape else "object")
    return ("an " if parts[0][0] in "aeiou" else "a ") + " ".join(parts)
