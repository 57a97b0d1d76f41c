"""How much each concept speaks for its own class and not for another."""

from __future__ import annotations

__all__ = ["Margins", "concept_margins", "filter_margins"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from conceptlab.arrays import as_floats, check_finite
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Whole
from conceptlab.vocabulary.concepts import ClassConcepts, encode_unique
from conceptlab.vocabulary.prompts import PromptPreset

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder

_BLOCK = 4096
Prototypes = Literal["plain", "mean"] | Any


@dataclass(frozen=True)
class Margins:
    """Margins of all concepts, in the order of the rows.

    Attributes
    ----------
    values : ndarray of shape (n,), float64
        Cosine with the own class minus the largest with another. NaN where a
        class has one concept only and its prototype is the mean of the others.
    rivals : ndarray of shape (n,), int64
        Index of that other class.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.vocabulary import ClassConcepts
    >>> found = ClassConcepts({"red star": ["red"], "blue heart": ["blue", "something red"]})
    >>> margins = concept_margins(found, load_encoder("embedded"), template="{concept}")
    >>> (margins.values > 0).tolist(), margins.rivals.shape
    ([True, True, False], (3,))
    """

    values: np.ndarray
    rivals: np.ndarray


def concept_margins(
    concepts: ClassConcepts,
    encoder: Encoder | None = None,
    *,
    template: str | PromptPreset | None = None,
    prototypes: Prototypes = "plain",
) -> Margins:
    """Measure for every concept ``cos(p_kc, t_k) - max_j cos(p_kc, t_j)`` over the other classes j.

    Parameters
    ----------
    concepts : ClassConcepts
        At least two classes; vectors are used where it has them and `template`
        is None.
    encoder : Encoder, optional
        Not needed for embedded concepts with ``prototypes="mean"`` or an array.
    template : str or PromptPreset, optional
        The sentence p that is read; ``"concept"`` for the text alone, without
        the name of the class.
    prototypes : {"plain", "mean"} or array-like of shape (K, d)
        What t stands for: the plain class prompts; the mean of the class's own
        concepts, without the one that is measured; or vectors such as class
        means of image embeddings.

    Returns
    -------
    Margins

    Raises
    ------
    InputError
        One class (``CL-INPUT-FEW``), classes without concepts, no vectors and
        no encoder.
    SpaceMismatchError
        Vectors of another encoder.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.vocabulary import ClassConcepts
    >>> found = ClassConcepts({"red star": ["red"], "blue heart": ["blue", "something red"]})
    >>> margins = concept_margins(found, load_encoder("embedded"), template="{concept}")
    >>> (margins.values > 0).tolist()
    [True, True, False]
    """
    if len(concepts) < 2:
        raise InputError(
            "Margins compare classes, and there is only one. Give at least two.",
            code="CL-INPUT-FEW",
        )
    embedded = embedded_by(concepts, encoder, template)
    vectors = unit_rows(embedded)
    labels = embedded.labels
    if isinstance(prototypes, str) and prototypes not in ("plain", "mean"):
        raise unknown_name("kind of prototypes", prototypes, ["plain", "mean"])
    if isinstance(prototypes, str) and prototypes == "mean":
        sums = np.add.reduceat(vectors, embedded.offsets[:-1], axis=0)
        centres = _units(sums)
        others = sums[labels] - vectors
        lengths = np.linalg.norm(others, axis=1)
        own = np.full(len(vectors), np.nan)
        found = (embedded.counts[labels] > 1) & (lengths > 1e-9)
        own[found] = np.einsum("ij,ij->i", vectors[found], others[found]) / lengths[found]
        return _against(vectors, labels, centres, own)
    if isinstance(prototypes, str):
        if encoder is None:
            raise InputError(
                "Plain class prompts need an encoder: give it, or prototypes='mean'.",
                code="CL-INPUT-OPTION",
            )
        centres = encode_unique(encoder, embedded.plain_prompts(template)).astype(np.float64)
    else:
        centres = as_floats(prototypes, "prototypes")
        if centres.shape != (len(concepts), vectors.shape[1]):
            raise InputError(
                f"prototypes must have the shape (classes, d) = ({len(concepts)}, "
                f"{vectors.shape[1]}), got {centres.shape}.",
                code="CL-INPUT-SHAPE",
            )
        check_finite(centres, "prototypes")
        centres = _units(centres)
    own = np.einsum("ij,ij->i", vectors, centres[labels])
    return _against(vectors, labels, centres, own)


def filter_margins(
    concepts: ClassConcepts,
    encoder: Encoder | None = None,
    *,
    threshold: float = 0.0,
    min_concepts: int = 1,
    template: str | PromptPreset | None = None,
    prototypes: Prototypes = "plain",
) -> ClassConcepts:
    """Drop the concepts that speak for another class rather than for their own.

    Parameters
    ----------
    concepts : ClassConcepts
        At least two classes.
    encoder, template, prototypes
        See :func:`concept_margins`.
    threshold : float
        Least margin of a concept that stays; a little below 0 keeps what
        several classes share.
    min_concepts : int
        A class keeps its best so many in any case.

    Returns
    -------
    ClassConcepts
        In the order they had, with vectors where `concepts` has them.
        ``meta["margin_filter"]`` has the number dropped and the classes that
        were kept up by `min_concepts`.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.vocabulary import ClassConcepts
    >>> found = ClassConcepts({"red star": ["red"], "blue heart": ["blue", "something red"]})
    >>> filter_margins(found, load_encoder("embedded"), template="{concept}")["blue heart"]
    ['blue']
    """
    Whole(1).check("min_concepts", min_concepts)
    margins = concept_margins(concepts, encoder, template=template, prototypes=prototypes).values
    kept, short = {}, []
    for k, label in enumerate(concepts.classes):
        row = margins[concepts.offsets[k] : concepts.offsets[k + 1]]
        held = ~(row < threshold)  # a margin that cannot be measured (NaN) is no reason to drop
        if held.sum() < min(min_concepts, len(row)):
            held = np.zeros(len(row), dtype=bool)
            held[np.argsort(-row, kind="stable")[:min_concepts]] = True
            short.append(label)
        kept[label] = np.flatnonzero(held).tolist()
    filtered = concepts.take(kept)
    dropped = concepts.n_concepts - filtered.n_concepts
    filtered.meta["margin_filter"] = {"threshold": threshold, "dropped": dropped, "kept_up": short}
    return filtered


def embedded_by(
    concepts: ClassConcepts, encoder: Encoder | None, template: str | PromptPreset | None
) -> ClassConcepts:
    """Give concepts with the vectors asked for: their own, or read by `encoder`."""
    if concepts.bank is not None and template is None:
        if encoder is not None:
            concepts.check_space(encoder)
        concepts.check_filled()
        return concepts
    if encoder is None:
        raise InputError(
            "The concepts have no vectors for this: give an encoder, or concepts.embed(encoder).",
            code="CL-INPUT-OPTION",
        )
    return concepts.embed(encoder, template)


def unit_rows(concepts: ClassConcepts) -> np.ndarray:
    """Give the vectors as float64 rows of length one."""
    if concepts.bank is None:
        raise InputError("The concepts have no vectors: use concepts.embed(encoder).")
    return _units(np.asarray(concepts.bank.vectors, dtype=np.float64))


def _units(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def _against(
    vectors: np.ndarray, labels: np.ndarray, centres: np.ndarray, own: np.ndarray
) -> Margins:
    values = np.empty(len(vectors))
    rivals = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(vectors)))
        similarity = vectors[part] @ centres.T
        rows = np.arange(len(similarity))
        similarity[rows, labels[part]] = -np.inf
        rivals[part] = similarity.argmax(axis=1)
        values[part] = own[part] - similarity[rows, rivals[part]]
    return Margins(values, rivals)
