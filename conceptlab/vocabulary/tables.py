"""Concepts from what is known of the classes: attribute tables and triples."""

from __future__ import annotations

__all__ = ["RELATIONS", "from_attributes", "from_triples"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conceptlab.arrays import as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import Real
from conceptlab.vocabulary.concepts import ClassConcepts, Texts
from conceptlab.vocabulary.neighbours import check_classes

RELATIONS: dict[str, str] = {
    "has part": "with {}",
    "has": "with {}",
    "made of": "made of {}",
    "property": "that is {}",
    "has property": "that is {}",
    "is": "that is {}",
    "found at": "in a {}",
    "located at": "in a {}",
    "lives in": "in a {}",
    "has colour": "with {} colour",
    "has color": "with {} colour",
    "has shape": "with a {} shape",
    "has texture": "with a {} texture",
    "used for": "used for {}",
    "wears": "wearing {}",
}
"""Phrases for the relations of triples; they follow "a photo of a {class}"."""


def from_attributes(
    table: Any,
    classes: Sequence[str] | None = None,
    attributes: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    max_concepts: int | None = None,
    phrases: Mapping[str, str] | None = None,
) -> ClassConcepts:
    """Take the attributes that each class has as its concepts.

    Parameters
    ----------
    table : array-like of shape (K, m), or pandas.DataFrame
        Whether, or how much, class k has attribute a: booleans, shares or
        scores. A frame brings its index as classes and its columns as attributes.
    classes : sequence of K str
        Labels; not with a frame.
    attributes : sequence of m str
        Names. ``"group::value"``, as in CUB, is worded "value group" without a
        leading "has".
    threshold : float
        An attribute counts when its entry is at least this.
    max_concepts : int, optional
        Only the highest entries of each class, equal ones in the order of the
        table.
    phrases : mapping of str to str, optional
        Group to a phrase with ``{}`` for the value, such as
        ``{"has_wing_color": "{} wings"}``; the key ``""`` is for attributes
        without a group.

    Returns
    -------
    ClassConcepts
        A class without attributes has no concepts.

    Raises
    ------
    InputError
        NaN, shapes that do not fit, repeated names, phrases without ``{}``.

    Examples
    --------
    >>> from_attributes([[1, 1], [0, 1]], ["robin", "crow"], ["has_breast::red", "wings"]).texts
    {'robin': ['red breast', 'wings'], 'crow': ['wings']}
    """
    if hasattr(table, "columns") and hasattr(table, "index"):
        classes = [str(label) for label in table.index] if classes is None else classes
        attributes = [str(name) for name in table.columns] if attributes is None else attributes
        table = table.to_numpy()
    if classes is None or attributes is None:
        raise InputError(
            "An array has no names: give classes=[...] and attributes=[...], or a DataFrame.",
            code="CL-INPUT-NAMES",
        )
    labels, names = check_classes(classes), list(attributes)
    values = as_numpy(table)
    if values.dtype.kind not in "fiub":
        raise InputError(
            f"The table must hold numbers or booleans, got dtype {values.dtype}.",
            code="CL-INPUT-TYPE",
        )
    if values.shape != (len(labels), len(names)):
        raise InputError(
            f"The table must have the shape (classes, attributes) = ({len(labels)}, {len(names)}), "
            f"got {values.shape}.",
            code="CL-INPUT-SHAPE",
        )
    Real().check("threshold", threshold)
    scores = values.astype(np.float64)
    check_finite(scores, "the attribute table")
    worded = [_worded(name, phrases or {}) for name in names]
    if len(set(worded)) < len(worded):
        twice = next(text for text in worded if worded.count(text) > 1)
        raise InputError(
            f"Two attributes have the same words {twice!r}. Name them apart, or give phrases.",
            code="CL-INPUT-NAMES",
        )
    texts: Texts = {}
    for label, row in zip(labels, scores, strict=True):
        held = np.flatnonzero(row >= threshold)
        if max_concepts is not None:
            held = held[np.argsort(-row[held], kind="stable")][:max_concepts]
        texts[label] = [worded[int(a)] for a in held]
    return ClassConcepts(texts, meta={"source": "attributes", "threshold": threshold})


def from_triples(
    triples: Any,
    *,
    relations: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> ClassConcepts:
    """Word (class, relation, value) triples as concepts.

    Parameters
    ----------
    triples : iterable of (str, str, str), or pandas.DataFrame with three columns
        Such as ``("robin", "has part", "a red breast")``.
    relations : mapping of str to str, optional
        Relation to a phrase with ``{}`` for the value; added to
        :data:`RELATIONS`. Underscores and case do not matter.
    classes : sequence of str, optional
        The classes, in this order; by default in order of appearance.

    Returns
    -------
    ClassConcepts
        Phrases that follow the class name, so ``meta["prompt"]`` is
        ``"phrase"``: "a photo of a {class} {concept}."

    Raises
    ------
    InputError
        A relation without a phrase (``CL-INPUT-OPTION``); triples of another
        form (``CL-INPUT-TYPE``); a class that is not among `classes`.

    Examples
    --------
    >>> made = from_triples([("robin", "has part", "a red breast"), ("robin", "found at", "tree")])
    >>> made.prompts()
    ['a photo of a robin with a red breast.', 'a photo of a robin in a tree.']
    """
    if hasattr(triples, "columns"):
        if len(triples.columns) != 3:
            raise InputError(
                f"The table needs three columns (class, relation, value), got "
                f"{list(triples.columns)}.",
                code="CL-INPUT-SHAPE",
            )
        triples = triples.itertuples(index=False, name=None)
    phrases = {_relation(key): value for key, value in {**RELATIONS, **(relations or {})}.items()}
    _check_phrases(phrases)
    texts: Texts = {} if classes is None else {label: [] for label in check_classes(classes)}
    for number, triple in enumerate(triples):
        if (
            isinstance(triple, str)
            or len(triple) != 3
            or not all(isinstance(v, str) for v in triple)
        ):
            raise InputError(
                f"Triple {number} must be (class, relation, value), three texts, got "
                f"{triple!r:.80}.",
                code="CL-INPUT-TYPE",
            )
        label, relation, value = triple
        phrase = phrases.get(_relation(relation))
        if phrase is None:
            raise InputError(
                f"Triple {number} has the relation {relation!r}, which has no phrase. Known: "
                f"{', '.join(phrases)}. Add one: relations={{{relation!r}: 'with {{}}'}}.",
                code="CL-INPUT-OPTION",
            )
        if classes is not None and label not in texts:
            raise InputError(
                f"Triple {number} is about {label!r}, which is not among the classes.",
                code="CL-INPUT-LABELS",
            )
        if not value.strip():
            raise InputError(f"Triple {number} has a blank value.", code="CL-INPUT-NAMES")
        concept = phrase.replace("{}", " ".join(value.replace("_", " ").split()))
        held = texts.setdefault(label, [])
        if concept not in held:
            held.append(concept)
    return ClassConcepts(texts, meta={"source": "triples", "prompt": "phrase"})


def _relation(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _worded(name: str, phrases: Mapping[str, str]) -> str:
    _check_phrases(phrases)
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"An attribute's name must be a text, got {name!r}.", code="CL-INPUT-NAMES"
        )
    group, parted, value = name.rpartition("::")
    words = " ".join(value.replace("_", " ").split())
    if group in phrases:
        return phrases[group].replace("{}", words)
    if not parted:
        return words
    thing = " ".join(group.replace("_", " ").split()).removeprefix("has ")
    return f"{words} {thing}"


def _check_phrases(phrases: Mapping[str, str]) -> None:
    for key, phrase in phrases.items():
        if not isinstance(phrase, str) or phrase.count("{}") != 1:
            raise InputError(
                f"The phrase for {key!r} needs {{}} once, where the value goes, got {phrase!r}.",
                code="CL-INPUT-OPTION",
            )
