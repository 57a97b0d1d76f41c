"""Concepts without a language model: a vocabulary that ships with us, and random words."""

from __future__ import annotations

__all__ = ["from_random_words", "from_vocabulary", "load_vocabulary"]

import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from conceptlab.arrays import as_numpy, check_finite
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Whole
from conceptlab.seeds import RandomState, draw_seed
from conceptlab.vocabulary.concepts import ClassConcepts, Texts, encode_unique
from conceptlab.vocabulary.filters import ClassNames
from conceptlab.vocabulary.neighbours import check_classes
from conceptlab.vocabulary.prompts import PromptPreset, plain_prompt

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder


def load_vocabulary(
    groups: Sequence[str] | None = None, *, phrased: bool = False
) -> dict[str, list[str]]:
    """Give the visual terms that ship with the package, by group.

    Parameters
    ----------
    groups : sequence of str, optional
        Some of ``"colours"``, ``"shapes"``, ``"textures"``, ``"materials"``,
        ``"parts"`` and ``"scenes"``; all by default.
    phrased : bool
        Whether terms come as words that fit after "with", such as "a round
        shape" instead of "round".

    Returns
    -------
    dict of str to list of str
        Over 400 terms, all different.

    Examples
    --------
    >>> load_vocabulary(["colours"])["colours"][:3]
    ['red', 'orange', 'yellow']
    """
    known = _data()["groups"]
    chosen = list(known) if groups is None else list(groups)
    for group in chosen:
        if group not in known:
            raise unknown_name("group of terms", group, known)
    return {
        group: [
            known[group]["phrase"].replace("{}", term) if phrased else term
            for term in known[group]["terms"]
        ]
        for group in chosen
    }


def from_vocabulary(
    classes: Sequence[str],
    encoder: Encoder,
    n_concepts: int = 20,
    *,
    terms: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    phrased: bool = False,
    prototypes: Any = None,
    min_margin: float | None = None,
    max_cosine: float | None = 0.95,
    template: str | PromptPreset = "cgbc",
) -> ClassConcepts:
    """Choose for every class the terms that speak for it and for no other class.

    The margin of term t for class k is ``cos(t, p_k) - max_j cos(t, p_j)`` over
    the other classes j, where p are the embeddings of the plain class prompts:
    what the text tower knows of the class. The terms of largest margin are taken.

    Parameters
    ----------
    classes : sequence of str
        Labels, all different. With a single class the margin is the cosine.
    encoder : Encoder
        Its text tower reads terms and class prompts.
    n_concepts : int
        Terms for each class; fewer when not so many pass.
    terms : sequence of str, optional
        Words to choose from instead of ours.
    groups, phrased
        See :func:`load_vocabulary`.
    prototypes : array-like of shape (K, d), optional
        Vectors that stand for the classes instead of their names, such as mean
        embeddings of a few labelled images; of use where names say nothing.
    min_margin : float, optional
        Least margin of a term that is taken.
    max_cosine : float or None
        A term this similar to one already taken for the class is passed over.
    template : str or PromptPreset
        Whose plain sentence stands for a class.

    Returns
    -------
    ClassConcepts
        Largest margin first; ``meta["margins"]`` holds the margins.

    Raises
    ------
    InputError
        Bad classes, no terms, prototypes of another shape.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> encoder = load_encoder("embedded")
    >>> found = from_vocabulary(["red star", "blue heart"], encoder, 1, terms=["red", "blue"])
    >>> found["red star"]
    ['red']
    """
    labels = check_classes(classes)
    Whole(1).check("n_concepts", n_concepts)
    if terms is None:
        terms = [t for values in load_vocabulary(groups, phrased=phrased).values() for t in values]
    words = list(dict.fromkeys(check_terms(terms)))
    vectors = encode_unique(encoder, words)
    centres = _prototypes(prototypes, labels, encoder, template, vectors.shape[1])
    margins = term_margins(vectors @ centres.T)
    names = ClassNames(labels)
    open_to = np.array([not names.find(word) for word in words])
    texts: Texts = {}
    kept_margins: dict[str, list[float]] = {}
    for k, label in enumerate(labels):
        taken: list[int] = []
        for t in np.argsort(-margins[:, k], kind="stable"):
            if len(taken) == n_concepts or (min_margin is not None and margins[t, k] < min_margin):
                break
            near = (
                max_cosine is not None
                and taken
                and (vectors[taken] @ vectors[t]).max() >= max_cosine
            )
            if open_to[t] and not near:
                taken.append(int(t))
        texts[label] = [words[t] for t in taken]
        kept_margins[label] = [round(float(margins[t, k]), 6) for t in taken]
    meta = {"source": "vocabulary", "encoder": encoder.name, "margins": kept_margins}
    return ClassConcepts(texts, meta=meta)


def from_random_words(
    classes: Sequence[str] | ClassConcepts,
    n_concepts: int | None = None,
    *,
    kind: Literal["words", "characters", "both"] = "words",
    n_words: int = 2,
    words: Sequence[str] | None = None,
    shared: bool = True,
    random_state: RandomState = None,
) -> ClassConcepts:
    """Make the control: as many "concepts" of random words or characters.

    On natural images random words have been found to help as much as those of
    a language model (Roth et al. 2023, "Waffling around for performance"). What
    a method gains over this control is what its concepts give.

    Parameters
    ----------
    classes : sequence of str or ClassConcepts
        Labels; concepts bring their counts along, class by class.
    n_concepts : int, optional
        Concepts for each class; 30 by default for labels.
    kind : {"words", "characters", "both"}
        Words of our list that have no look of their own, strings of random
        letters, or every other one of each.
    n_words : int
        Words (or strings) in a concept.
    words : sequence of str, optional
        Words to draw from instead of ours.
    shared : bool
        Whether all classes get the same draws, so that nothing but the class
        name tells them apart.
    random_state : int, RandomState, Generator or None
        Draws the words.

    Returns
    -------
    ClassConcepts
        Concepts of a class differ.

    Raises
    ------
    InputError
        Too few words for so many different concepts (``CL-INPUT-MANY``).

    Examples
    --------
    >>> made = from_random_words(["newt", "frog"], 3, random_state=0)
    >>> made["newt"] == made["frog"], made.counts.tolist()
    (True, [3, 3])
    """
    if isinstance(classes, ClassConcepts):
        labels = list(classes.classes)
        counts = classes.counts.tolist() if n_concepts is None else [n_concepts] * len(labels)
    else:
        labels = check_classes(classes)
        counts = [30 if n_concepts is None else n_concepts] * len(labels)
    if kind not in ("words", "characters", "both"):
        raise unknown_name("kind", kind, ["words", "characters", "both"])
    Whole(1).check("n_words", n_words)
    if n_concepts is not None:
        Whole(1).check("n_concepts", n_concepts)
    pool = sorted(set(check_terms(words))) if words is not None else _data()["words"]
    if kind != "characters" and max(counts, default=0) > len(pool) ** n_words:
        raise InputError(
            f"{max(counts)} different concepts of {n_words} words cannot be made of {len(pool)} "
            "words. Use fewer concepts, more words, or kind='characters'.",
            code="CL-INPUT-MANY",
        )
    seed = draw_seed(random_state)
    texts: Texts = {}
    for k, (label, count) in enumerate(zip(labels, counts, strict=True)):
        rng = np.random.default_rng([seed, 0 if shared else k])
        texts[label] = _draws(rng, count, kind, n_words, pool)
    return ClassConcepts(texts, meta={"source": "random words", "kind": kind, "seed": seed})


def term_margins(similarity: np.ndarray) -> np.ndarray:
    """Subtract from each entry the largest other entry of its row; a lone column stays.

    Parameters
    ----------
    similarity : ndarray of shape (n, K)

    Returns
    -------
    ndarray of shape (n, K)
    """
    if similarity.shape[1] < 2:
        return similarity.copy()
    top = np.argmax(similarity, axis=1)
    rows = np.arange(len(similarity))
    best = similarity[rows, top]
    rest = similarity.copy()
    rest[rows, top] = -np.inf
    margins = similarity - best[:, None]
    margins[rows, top] = best - rest.max(axis=1)
    return margins


def check_terms(terms: Sequence[str]) -> list[str]:
    """Give terms as a list, or say what is wrong with them."""
    items = [terms] if isinstance(terms, str) else list(terms)
    if not items:
        raise InputError("There are no terms. Give at least one.", code="CL-INPUT-EMPTY")
    for place, term in enumerate(items):
        if not isinstance(term, str) or not term.strip():
            raise InputError(
                f"Term {place} must be a text that is not blank, got {term!r:.80}.",
                code="CL-INPUT-NAMES",
            )
    return items


def _prototypes(
    prototypes: Any,
    labels: Sequence[str],
    encoder: Encoder,
    template: str | PromptPreset,
    dim: int,
) -> np.ndarray:
    if prototypes is None:
        return encode_unique(encoder, [plain_prompt(template, label) for label in labels])
    centres = as_numpy(prototypes).astype(np.float32)
    if centres.shape != (len(labels), dim):
        raise InputError(
            f"prototypes must have the shape (classes, d) = ({len(labels)}, {dim}), got "
            f"{centres.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(centres, "prototypes")
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    if (lengths == 0).any():
        label = labels[int(np.flatnonzero(lengths[:, 0] == 0)[0])]
        raise InputError(f"The prototype of {label!r} is zero.", code="CL-INPUT-ZERO")
    return centres / lengths


def _draws(
    rng: np.random.Generator, count: int, kind: str, n_words: int, pool: Sequence[str]
) -> list[str]:
    letters = np.array(list(string.ascii_lowercase))
    found: dict[str, None] = {}
    while len(found) < count:
        if kind == "words" or (kind == "both" and len(found) % 2 == 0):
            parts = [pool[int(i)] for i in rng.integers(len(pool), size=n_words)]
        else:
            sizes = rng.integers(4, 9, size=n_words)
            parts = ["".join(rng.choice(letters, size=size)) for size in sizes]
        found[" ".join(parts)] = None
    return list(found)


def _data() -> Mapping[str, Any]:
    text = importlib.resources.files(__package__).joinpath("terms.json").read_text(encoding="utf-8")
    data: Mapping[str, Any] = json.loads(text)
    return data
