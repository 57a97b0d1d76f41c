"""Composed concepts: distinct unordered sets of atomic ones, and the most diverse of them."""

from __future__ import annotations

__all__ = ["compose", "distinct_sets", "select_diverse"]

import hashlib
import itertools
import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Whole
from conceptlab.seeds import RandomState, draw_seed
from conceptlab.vocabulary.concepts import ClassConcepts, Texts, encode_unique
from conceptlab.vocabulary.dpp import DPPSelector
from conceptlab.vocabulary.filters import fold
from conceptlab.vocabulary.margins import Prototypes, concept_margins, embedded_by, unit_rows
from conceptlab.vocabulary.prompts import PromptPreset

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder


def distinct_sets(
    m: int, size: int, n: int | None = None, random_state: RandomState = None
) -> np.ndarray:
    """Draw distinct unordered sets of `size` numbers below `m`.

    Parameters
    ----------
    m : int
        How many numbers there are.
    size : int
        Numbers in a set, at most `m`.
    n : int, optional
        Sets to draw; all of them, in order, when None or when there are no more.
    random_state : int, RandomState, Generator or None
        Draws the sets.

    Returns
    -------
    ndarray of shape (n, size), int64
        Rising within each row; no row twice.

    Examples
    --------
    >>> distinct_sets(3, 2).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    if not 1 <= size <= m:
        raise InputError(
            f"size must be between 1 and the number of items, {m}, got {size}.",
            code="CL-INPUT-RANGE",
        )
    if n is not None:
        Whole(1).check("n", n)
    total = math.comb(m, size)
    if n is None or n >= total:
        return np.array(list(itertools.combinations(range(m), size)), dtype=np.int64)
    rng = np.random.default_rng(draw_seed(random_state))
    if 2 * n > total:  # few are left out, so drawing would meet old ones too often
        every = np.array(list(itertools.combinations(range(m), size)), dtype=np.int64)
        return every[rng.permutation(total)[:n]]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        found[tuple(sorted(rng.choice(m, size=size, replace=False).tolist()))] = None
    return np.array(list(found), dtype=np.int64)


def compose(
    concepts: ClassConcepts,
    size: int = 3,
    n: int | None = 500,
    *,
    join: str = " or ",
    random_state: RandomState = None,
) -> ClassConcepts:
    """Join atomic concepts to composed ones, each set of them at most once.

    The published code draws sets with their order and repeats some; here no two
    sets of a class are the same. A class draws from a stream of its own, so that
    adding classes changes no other class.

    Parameters
    ----------
    concepts : ClassConcepts
        Atomic concepts; texts a class has twice count once.
    size : int
        Concepts in a set. A class with fewer gets the one set of all it has.
    n : int, optional
        Sets for each class; all there are when None.
    join : str
        What stands between the texts, such as ``" or "``, ``" and "``, ``", "``.
    random_state : int, RandomState, Generator or None
        Draws the sets.

    Returns
    -------
    ClassConcepts
        Without vectors.

    Examples
    --------
    >>> atoms = ClassConcepts({"newt": ["a tail", "wet skin", "four legs"]})
    >>> compose(atoms, size=2)["newt"]
    ['a tail or wet skin', 'a tail or four legs', 'wet skin or four legs']
    """
    seed = draw_seed(random_state)
    Whole(1).check("size", size)
    texts: Texts = {}
    for label in concepts.classes:
        first: dict[str, str] = {}
        for text in concepts[label]:
            first.setdefault(fold(text), text)
        atoms = list(first.values())
        if not atoms:
            texts[label] = []
            continue
        digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
        stream = int.from_bytes(digest[:4], "little") >> 1
        sets = distinct_sets(len(atoms), min(size, len(atoms)), n, stream)
        texts[label] = [join.join(atoms[i] for i in row) for row in sets]
    settings = {"size": size, "n": n, "join": join, "seed": seed}
    return ClassConcepts(texts, meta={**concepts.meta, "compose": settings})


def select_diverse(
    concepts: ClassConcepts,
    n_select: int,
    encoder: Encoder,
    *,
    kernel: Literal["text", "residual"] = "text",
    margin_weight: float = 0.0,
    prototypes: Prototypes = "plain",
    exchange: bool = False,
    start: Literal["diverse", "central"] = "central",
    jitter: float = 1e-5,
    template: str | PromptPreset | None = None,
) -> ClassConcepts:
    """Keep the concepts of each class that are good and differ, by a determinantal point process.

    Parameters
    ----------
    concepts : ClassConcepts
        Candidates, as a rule from :func:`compose`.
    n_select : int
        Concepts to keep for each class; classes with no more keep all.
    encoder : Encoder
        Its text tower gives the similarities.
    kernel : {"text", "residual"}
        ``"text"``, as published: cosines of the bare texts. ``"residual"``:
        cosines of the full prompts after the direction of the plain class
        prompt, which they all share, is projected out.
    margin_weight : float
        Quality is ``exp(margin_weight * margin)``; 0, as published, looks at
        diversity alone, and large values take the largest margins.
    prototypes
        For the margins; see :func:`concept_margins`.
    exchange, start, jitter
        See :class:`DPPSelector`. A larger determinant means texts that say less of the same:
        of three, one names the colour, one the texture, one the shape. Rules that trim what
        lies apart ("trim", "gated", "median", "tukey") then lose true evidence, since each text
        is a third of it; so the default begins in the middle and swaps nothing. With exchanges,
        or below a dozen texts, pool by "mean".
    template : str or PromptPreset, optional
        Sentence of the full prompts.

    Returns
    -------
    ClassConcepts
        In the order of choice, with vectors where `concepts` has them;
        ``meta["select"]`` holds the log-determinants.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.vocabulary import ClassConcepts
    >>> found = ClassConcepts({"red star": ["a star", "a red star", "red"]})
    >>> select_diverse(found, 2, load_encoder("embedded")).counts.tolist()
    [2]
    """
    OneOf("text", "residual").check("kernel", kernel)
    Whole(1).check("n_select", n_select)
    rows = unit_rows(
        concepts.embed(encoder, "concept")
        if kernel == "text"
        else embedded_by(concepts, encoder, template)
    )
    if kernel == "residual":
        plain = encode_unique(encoder, concepts.plain_prompts(template)).astype(np.float64)
        shared = plain[concepts.labels]
        rows = rows - np.einsum("ij,ij->i", rows, shared)[:, None] * shared
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 1e-12, lengths, 1.0)
    quality = None
    if margin_weight:
        margins = concept_margins(
            concepts, encoder, template=template, prototypes=prototypes
        ).values
        # Only ratios within a class matter; the least that a float64 can hold is far away.
        quality = np.exp(np.clip(margin_weight * np.nan_to_num(margins), -300, 300))
    selector = DPPSelector(n_select, exchange=exchange, start=start, jitter=jitter)
    kept, values = {}, {}
    for k, label in enumerate(concepts.classes):
        part = slice(int(concepts.offsets[k]), int(concepts.offsets[k + 1]))
        if concepts.counts[k] <= n_select:
            continue
        selector.fit(rows[part], None if quality is None else quality[part])
        kept[label] = selector.selected_.tolist()
        values[label] = selector.log_det_
    chosen = concepts.take(kept)
    chosen.meta["select"] = {
        "n_select": n_select,
        "kernel": kernel,
        "margin_weight": margin_weight,
        "exchange": exchange,
        "start": start,
        "log_det": values,
    }
    return chosen
