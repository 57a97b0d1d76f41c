"""What a classifier can be made of: concepts in all their forms, to vectors by class."""

from __future__ import annotations

__all__ = ["ConceptVectors", "class_means", "resolve_concepts", "resolve_prior"]

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_floats, as_numpy, check_finite
from conceptlab.errors import InputError, SpaceMismatchError, unknown_name

if TYPE_CHECKING:
    from conceptlab.vocabulary import ClassConcepts

_UNIT = 2e-3  # float16 vectors of length one are off by this much at most
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ConceptVectors:
    """Unit vectors of the concepts of every class.

    Attributes
    ----------
    classes : list of str
        K labels.
    texts : list of list of str
        What each concept is called.
    vectors : ndarray of shape (n, d)
        Class after class.
    offsets : ndarray of shape (K + 1,), int64
    space : str or None
        Fingerprint of the encoder.
    concepts : ClassConcepts or None
        The texts with their vectors, where they came from texts.
    numbered : bool
        Whether the classes have numbers and no names.
    """

    classes: list[str]
    texts: list[list[str]]
    vectors: np.ndarray
    offsets: np.ndarray
    space: str | None
    concepts: ClassConcepts | None = None
    numbered: bool = False


def resolve_concepts(concepts: Any, encoder: Any, prompt: str | None) -> ConceptVectors:
    """Give vectors by class for what a user may pass as concepts.

    Parameters
    ----------
    concepts : ClassConcepts, mapping, path-like or array
        See :class:`conceptlab.zeroshot.BayesianZeroShot`.
    encoder : Encoder or None
        Reads the texts where they have no vectors yet.
    prompt : str or None
        Passed to ``ClassConcepts.embed``.

    Returns
    -------
    ConceptVectors

    Raises
    ------
    InputError
        Classes without concepts, fewer than two classes, texts without an
        encoder, vectors that do not fit together.
    SpaceMismatchError
        Vectors of another encoder than the given one.
    """
    from conceptlab.vocabulary import ClassConcepts, read_concepts

    if isinstance(concepts, str | os.PathLike):
        concepts = read_concepts(concepts)
    if hasattr(concepts, "ndim") or _holds_arrays(concepts):
        return _from_arrays(concepts)
    if not isinstance(concepts, ClassConcepts):
        if not isinstance(concepts, Mapping):
            raise InputError(
                "concepts must be ClassConcepts, a mapping from class to texts or vectors, the "
                f"path of a concept file, or an array (K, C, d); got {type(concepts).__name__}.",
                code="CL-INPUT-TYPE",
            )
        concepts = ClassConcepts(concepts)
    _check_classes(list(concepts.classes), concepts.counts)
    if concepts.bank is None:
        if encoder is None:
            raise InputError(
                "These concepts are texts without vectors, and there is no encoder to read them. "
                "Give encoder='embedded' or another, or concepts.embed(encoder).",
                code="CL-INPUT-OPTION",
            )
        concepts = concepts.embed(encoder, prompt)
    elif encoder is not None and concepts.bank.space not in (None, encoder.fingerprint):
        raise SpaceMismatchError(
            f"The concept vectors were made by another encoder ({concepts.bank.space[:12]}...) "
            f"than {encoder.name!r} ({encoder.fingerprint[:12]}...). Embed the texts again: "
            "concepts.embed(encoder)."
        )
    bank = concepts.bank
    vectors = _unit_rows(np.asarray(bank.vectors), list(bank.names))
    texts = [concepts[label] for label in concepts.classes]
    return ConceptVectors(
        list(concepts.classes), texts, vectors, np.asarray(concepts.offsets), bank.space, concepts
    )


def with_vectors(texts: Mapping[str, list[str]], vectors: np.ndarray, space: str | None) -> Any:
    """Give texts of classes with their vectors, as concepts that can be fitted again."""
    from conceptlab.bank import ConceptBank
    from conceptlab.vocabulary import ClassConcepts
    from conceptlab.vocabulary.concepts import unique_names

    labels = [label for label, values in texts.items() for _ in values]
    flat = [text for values in texts.values() for text in values]
    bank = ConceptBank(vectors, unique_names(labels, flat), space=space)
    return ClassConcepts(texts, bank=bank)


def _holds_arrays(concepts: ArrayLike) -> bool:
    from conceptlab.vocabulary import ClassConcepts

    if not isinstance(concepts, Mapping) or isinstance(concepts, ClassConcepts) or not concepts:
        return False
    return all(hasattr(value, "ndim") for value in concepts.values())


def _from_arrays(concepts: ArrayLike) -> ConceptVectors:
    """Take vectors as they are, with the names "concept 0", "concept 1", ..."""
    if not isinstance(concepts, Mapping):
        array = as_numpy(concepts)
        if array.ndim != 3:
            raise InputError(
                f"An array of concepts has the axes (classes, concepts, features), got shape "
                f"{array.shape}. Use array[:, None] for one concept a class.",
                code="CL-INPUT-RANK",
            )
        K, C, d = array.shape
        classes = [str(k) for k in range(K)]
        counts, vectors = np.full(K, C), array.reshape(K * C, d)
    else:
        parts = {str(label): as_numpy(value) for label, value in concepts.items()}
        classes = list(parts)
        for label, part in parts.items():
            if part.ndim != 2 or part.shape[1] != next(iter(parts.values())).shape[-1]:
                raise InputError(
                    f"The vectors of class {label!r} have shape {part.shape}; expected (concepts, "
                    "features) with equally many features for all classes.",
                    code="CL-INPUT-SHAPE",
                )
        counts = np.array([len(part) for part in parts.values()])
        vectors = np.concatenate(list(parts.values())) if counts.sum() else np.empty((0, 1))
    _check_classes(classes, counts)
    if vectors.dtype.kind != "f":
        vectors = vectors.astype(np.float64)
    names = [f"{c}: concept {i}" for c, n in zip(classes, counts, strict=True) for i in range(n)]
    texts = [[f"concept {i}" for i in range(n)] for n in counts]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    numbered = not isinstance(concepts, Mapping)
    return ConceptVectors(
        classes, texts, _unit_rows(vectors, names), offsets, None, numbered=numbered
    )


def _check_classes(classes: list[str], counts: np.ndarray) -> None:
    empty = [label for label, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise InputError(
            f"{len(empty)} of {len(classes)} classes have no concepts: {shown}. Add some, for "
            "example their plain names, or leave the classes out.",
            code="CL-INPUT-EMPTY",
        )
    if len(classes) < 2:
        raise InputError(
            f"A classifier needs at least two classes, got {len(classes)} class: {classes}. With "
            "one class every probability is 1; add a class such as 'something else'.",
            code="CL-INPUT-FEW",
        )


def _unit_rows(vectors: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Give rows of length one in the same dtype; the same array where they have it already."""
    check_finite(vectors, "concepts")
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), _ROWS):  # float16 is widened a part at a time
        part = vectors[start : start + _ROWS].astype(np.float64)
        norms[start : start + _ROWS] = np.sqrt(np.einsum("ij,ij->i", part, part))
    if (norms == 0).any():
        place = int(np.flatnonzero(norms == 0)[0])
        raise InputError(
            f"The vector of {names[place]!r} has length zero, so it points nowhere. Remove it.",
            code="CL-INPUT-ZERO",
        )
    exact = 1e-5 if vectors.dtype != np.float16 else _UNIT
    if np.abs(norms - 1).max() <= exact:
        return vectors
    unit: np.ndarray = (vectors / norms[:, None]).astype(vectors.dtype)
    return unit


def class_means(X: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """Give the mean direction of the rows of each class, (K, d); y are columns."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    unit = X / np.where(norms == 0, 1, norms)
    sums = np.zeros((n_classes, X.shape[1]), dtype=X.dtype)
    np.add.at(sums, y, unit)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    means: np.ndarray = sums / np.where(length == 0, 1, length)
    return means


def resolve_prior(prior: Any, found: ConceptVectors) -> np.ndarray | None:
    """Give the prior of every concept, (n,), summing to one in each class, or None.

    Parameters
    ----------
    prior : None, mapping of class to weights, or sequence of n weights
        In the order of the concepts; a class that a mapping leaves out is
        uniform.
    found : ConceptVectors
        The concepts.

    Returns
    -------
    ndarray of shape (n,), float64, or None
    """
    if prior is None:
        return None
    n, offsets = len(found.vectors), found.offsets
    if isinstance(prior, Mapping):
        flat = np.ones(n)
        for label, weights in prior.items():
            if label not in found.classes:
                raise unknown_name("class", label, found.classes, code="CL-INPUT-LABELS")
            k = found.classes.index(label)
            part = as_floats(weights, "weights")
            if part.shape != (offsets[k + 1] - offsets[k],):
                raise InputError(
                    f"concept_prior of class {label!r} has shape {part.shape}, but the class has "
                    f"{offsets[k + 1] - offsets[k]} concepts.",
                    code="CL-INPUT-SHAPE",
                )
            flat[offsets[k] : offsets[k + 1]] = part
    else:
        try:
            flat = as_floats(prior, "prior")
        except (TypeError, ValueError) as error:
            raise InputError(
                f"concept_prior must be numbers, or a mapping from class to numbers, got "
                f"{prior!r:.60}.",
                code="CL-INPUT-TYPE",
            ) from error
        if flat.shape != (n,):
            raise InputError(
                f"concept_prior has shape {flat.shape}; expected one weight for each of the {n} "
                "concepts, class after class.",
                code="CL-INPUT-SHAPE",
            )
    check_finite(flat, "concept_prior")
    totals = np.add.reduceat(flat, offsets[:-1])
    if (flat < 0).any() or (totals <= 0).any():
        raise InputError(
            "concept_prior must be at least 0, and above 0 for one concept of every class.",
            code="CL-INPUT-RANGE",
        )
    checked: np.ndarray = flat / np.repeat(totals, np.diff(offsets))
    return checked
