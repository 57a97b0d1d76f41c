"""Filters of concept lists that compose, and tell what they dropped and why."""

from __future__ import annotations

__all__ = [
    "ConceptFilterStep",
    "FilterReport",
    "activated",
    "distinct",
    "filter_concepts",
    "learnable",
    "readable",
    "scored",
    "unlike_classes",
]

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bottlenecks.measures import as_matrix
from conceptlab import ConceptBank
from conceptlab.arrays import ArrayLike, as_floats
from conceptlab.errors import InputError
from conceptlab.io.html import table
from conceptlab.parameters import Whole
from conceptlab.vocabulary.concepts import encode_unique
from conceptlab.vocabulary.filters import ConceptFilter, fold

if TYPE_CHECKING:
    import pandas as pd

ConceptFilterStep = Callable[[Sequence[str]], Mapping[str, str]]
"""Takes the names that are left; gives the reason for each one that it drops."""


@dataclass(frozen=True, eq=False)
class FilterReport:
    """What filters kept, and what each one dropped.

    Attributes
    ----------
    kept : tuple of str
        In the order in which they came.
    dropped : tuple of (name, filter, reason)
        In the order in which they were dropped.
    bank : ConceptBank or None
        The kept concepts, where a bank was filtered.

    Examples
    --------
    >>> from bottlenecks import filter_concepts
    >>> report = filter_concepts(["red skin", "an apple"], readable(["apple"]))
    >>> report.kept, report.dropped[0][0]
    (('red skin',), 'an apple')
    """

    kept: tuple[str, ...]
    dropped: tuple[tuple[str, str, str], ...]
    bank: ConceptBank | None = None

    def reason(self, name: str) -> str | None:
        """Say why `name` was dropped; None if it was kept or never there."""
        return next((why for other, _, why in self.dropped if other == name), None)

    def to_frame(self) -> pd.DataFrame:
        """Tabulate concept, filter and reason of all that were dropped."""
        import pandas as pd

        return pd.DataFrame(list(self.dropped), columns=["concept", "filter", "reason"])

    def to_dict(self) -> dict[str, Any]:
        """Give kept and dropped concepts as JSON values."""
        return {"kept": list(self.kept), "dropped": [list(row) for row in self.dropped]}

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for _, step, _ in self.dropped:
            counts[step] = counts.get(step, 0) + 1
        shown = ", ".join(f"{step} {count}" for step, count in counts.items()) or "nothing"
        return f"FilterReport({len(self.kept)} kept; dropped: {shown})"

    def _repr_html_(self) -> str:
        return (
            f"<div><p>{len(self.kept)} concepts kept, {len(self.dropped)} dropped</p>"
            + table(["concept", "filter", "reason"], self.dropped)
            + "</div>"
        )


def filter_concepts(
    concepts: Sequence[str] | ConceptBank, *steps: ConceptFilterStep
) -> FilterReport:
    """Pass concepts through filters, one after another.

    Parameters
    ----------
    concepts : sequence of str, or ConceptBank
        Names that come twice count once.
    *steps : callable
        Each takes the names that are left and gives a mapping from those that
        it drops to the reason; :func:`readable` and the others here make such
        callables, and any function will do. Its name (or ``label``) is noted.

    Returns
    -------
    FilterReport

    Raises
    ------
    InputError
        Nothing is left (``CL-INPUT-EMPTY``); the message tells which filter
        dropped how many.

    References
    ----------
    Oikarinen et al., Label-free Concept Bottleneck Models, ICLR 2023, section
    3.1, for the filters by length, class name, similarity and activation.

    Examples
    --------
    >>> def not_red(names):
    ...     return {name: "red again" for name in names if "red" in name}
    >>> concepts = ["red skin", "an apple", "smooth surface"]
    >>> report = filter_concepts(concepts, readable(["apple"]), not_red)
    >>> report.kept
    ('smooth surface',)
    >>> report.dropped
    (('an apple', 'readable', 'class name'), ('red skin', 'not_red', 'red again'))
    """
    bank = concepts if isinstance(concepts, ConceptBank) else None
    names = list(dict.fromkeys(bank.names if bank is not None else _texts(concepts)))
    dropped: list[tuple[str, str, str]] = []
    for step in steps:
        label = str(getattr(step, "label", getattr(step, "__name__", type(step).__name__)))
        if not callable(step):
            raise InputError(
                f"A filter must be a function from names to reasons, got {step!r:.60}. Make one "
                "with readable(...), distinct(...) and the like.",
                code="CL-INPUT-TYPE",
            )
        reasons = step(list(names))
        strange = [name for name in reasons if name not in set(names)]
        if strange:
            raise InputError(
                f"The filter {label!r} dropped {strange[0]!r}, which it was not given.",
                code="CL-INPUT-NAMES",
            )
        dropped += [(name, label, str(reasons[name])) for name in names if name in reasons]
        names = [name for name in names if name not in reasons]
        if not names:
            report = FilterReport((), tuple(dropped))
            raise InputError(
                f"No concept is left after the filter {label!r}: {report!r}. The last reason: "
                f"{dropped[-1][2] if dropped else 'there was none to begin with'}. Loosen a "
                "threshold, or give more concepts.",
                code="CL-INPUT-EMPTY",
            )
    return FilterReport(tuple(names), tuple(dropped), None if bank is None else bank.select(names))


@dataclass(frozen=True)
class _Step:
    """A filter with a name for reports."""

    label: str
    function: ConceptFilterStep

    def __call__(self, names: Sequence[str]) -> Mapping[str, str]:
        return self.function(names)


def readable(
    classes: Iterable[str] = (),
    *,
    max_characters: int = 30,
    max_words: int = 8,
    visual: bool = True,
) -> ConceptFilterStep:
    """Drop texts that are too long, name a class, are not visual, or repeat another.

    Parameters
    ----------
    classes : iterable of str
        No concept may name one of them as a whole word.
    max_characters, max_words : int
        Of a concept.
    visual : bool
        Whether to drop concepts with words for smell, sound, taste and the like.

    Returns
    -------
    callable
        A filter for :func:`filter_concepts`.

    Examples
    --------
    >>> from bottlenecks import filter_concepts
    >>> filter_concepts(["red skin", "an apple", "x" * 40], readable(["apple"])).kept
    ('red skin',)
    """
    rules = ConceptFilter(
        list(classes), max_characters=max_characters, max_words=max_words, visual=visual
    )

    def step(names: Sequence[str]) -> dict[str, str]:
        reasons: dict[str, str] = {}
        first: dict[str, str] = {}
        for name in names:
            reason = rules.reason(name)
            if reason is None and fold(name) in first:
                reason = f"same as {first[fold(name)]!r}"
            if reason is None:
                first[fold(name)] = name
            else:
                reasons[name] = reason
        return reasons

    return _Step("readable", step)


def unlike_classes(
    classes: Sequence[str], encoder: Any, *, max_similarity: float = 0.85
) -> ConceptFilterStep:
    """Drop texts that a text encoder finds too similar to the name of a class.

    Parameters
    ----------
    classes : sequence of str
        Names as plain texts.
    encoder : Encoder, or sequence of (Encoder, weight)
        Cosines of several encoders are averaged; the published code takes a
        sentence encoder once and CLIP three times.
    max_similarity : float
        Concepts at or above it are dropped.

    Returns
    -------
    callable
        A filter for :func:`filter_concepts`.

    Examples
    --------
    >>> from bottlenecks import filter_concepts
    >>> from conceptlab import load_encoder
    >>> step = unlike_classes(["red star"], load_encoder("embedded"))
    >>> filter_concepts(["a red star", "blue"], step).kept
    ('blue',)
    """
    labels = list(classes)
    if not labels:
        raise InputError("classes is empty. Give the names of the classes.", code="CL-INPUT-EMPTY")

    def step(names: Sequence[str]) -> dict[str, str]:
        similarity = _cosines(encoder, names, labels)
        nearest = similarity.argmax(axis=1)
        return {
            name: f"{similarity[i, k]:.2f} like the class {labels[k]!r}"
            for i, (name, k) in enumerate(zip(names, nearest, strict=True))
            if similarity[i, k] >= max_similarity
        }

    return _Step("unlike_classes", step)


def distinct(encoder: Any, *, max_similarity: float = 0.9) -> ConceptFilterStep:
    """Drop one of two texts that a text encoder finds too similar.

    Of a pair the one that is less similar to all others goes, as in the
    published code; of equal ones the later.

    Parameters
    ----------
    encoder : Encoder, or sequence of (Encoder, weight)
        See :func:`unlike_classes`.
    max_similarity : float
        Pairs at or above it are one too many.

    Returns
    -------
    callable
        A filter for :func:`filter_concepts`.

    Examples
    --------
    >>> from bottlenecks import filter_concepts
    >>> from conceptlab import load_encoder
    >>> encoder = load_encoder("embedded")
    >>> filter_concepts(["red star", "red star ", "blue heart"], distinct(encoder)).kept
    ('red star', 'blue heart')
    """

    def step(names: Sequence[str]) -> dict[str, str]:
        similarity = _cosines(encoder, names, names)
        total = similarity.sum(axis=1)
        reasons: dict[str, str] = {}
        for i, j in np.argwhere(np.triu(similarity >= max_similarity, k=1)):
            if names[i] in reasons or names[j] in reasons:
                continue
            lost, kept = (i, j) if total[i] < total[j] - 1e-9 else (j, i)
            reasons[names[lost]] = f"{similarity[i, j]:.2f} like {names[kept]!r}"
        return reasons

    return _Step("distinct", step)


def activated(
    scores: ArrayLike, names: Sequence[str], *, min_score: float = 0.25, top: int = 5
) -> ConceptFilterStep:
    """Drop concepts that no image shows: their best scores are low.

    Parameters
    ----------
    scores : array-like of shape (n_images, n_concepts)
        Such as cosines of CLIP, for which 0.25 to 0.28 was published.
    names : sequence of str
        Of the columns.
    min_score : float
        Concepts whose mean over the `top` best images is not above it are
        dropped.
    top : int
        How many images; all where there are fewer.

    Returns
    -------
    callable
        A filter for :func:`filter_concepts`.

    Examples
    --------
    >>> from bottlenecks import filter_concepts
    >>> scores = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> step = activated(scores, ["red", "dotted"], min_score=0.5)
    >>> filter_concepts(["red", "dotted"], step).kept
    ('red',)
    """
    S = as_matrix(scores, "scores")
    Whole(1).check("top", top)
    best = -np.sort(-S, axis=0)[:top].mean(axis=0)
    return scored("activated", names, best, min_score, what="mean of the best scores")


def learnable(bank: ConceptBank, *, min_auc: float = 0.7) -> ConceptFilterStep:
    """Drop concepts whose direction does not rank examples that it has not seen.

    Parameters
    ----------
    bank : ConceptBank
        From :meth:`conceptlab.ConceptBank.from_examples`, with its
        cross-validated quality.
    min_auc : float
        Concepts whose area under the ROC curve is not above it are dropped,
        and those without one.

    Returns
    -------
    callable
        A filter for :func:`filter_concepts`.

    Examples
    --------
    >>> from bottlenecks import filter_concepts
    >>> from conceptlab import ConceptBank
    >>> rng = np.random.default_rng(0)
    >>> def samples(shift):
    ...     return rng.normal(size=(12, 5)) + shift
    >>> bank = ConceptBank.from_examples(
    ...     None, {"red": (samples(3), samples(0)), "dull": (samples(0), samples(0))}
    ... )
    >>> filter_concepts(bank.names, learnable(bank)).kept
    ('red',)
    """
    values = bank.meta.get("concepts", {}).get("auc") if isinstance(bank, ConceptBank) else None
    if values is None:
        raise InputError(
            "learnable needs a bank with quality: ConceptBank.from_examples(..., n_folds=5).",
            code="CL-INPUT-TYPE",
        )
    quality = [float("nan") if value is None else float(value) for value in values]
    return scored("learnable", bank.names, quality, min_auc, what="cross-validated AUC")


def scored(
    label: str, names: Sequence[str], values: ArrayLike, threshold: float, *, what: str = "value"
) -> ConceptFilterStep:
    """Drop concepts whose number is not above a threshold.

    Parameters
    ----------
    label : str
        Of the filter, for reports.
    names : sequence of str
        Concepts that have a number; others pass.
    values : array-like of shape (n,)
        NaN is dropped.
    threshold : float
    what : str
        What the number is, for reports.

    Returns
    -------
    callable
        A filter for :func:`filter_concepts`.

    Examples
    --------
    >>> filter_concepts(["a", "b"], scored("seen", ["a", "b"], [0.2, 0.7], 0.5)).dropped
    (('a', 'seen', 'value 0.200, not above 0.500'),)
    """
    numbers = as_floats(values, "values")
    if numbers.shape != (len(names),):
        raise InputError(
            f"There are {len(names)} names for numbers of shape {numbers.shape}. Give one each.",
            code="CL-INPUT-SHAPE",
        )
    table_ = dict(zip(names, numbers, strict=True))

    def step(left: Sequence[str]) -> dict[str, str]:
        return {
            name: f"{what} {table_[name]:.3f}, not above {threshold:.3f}"
            for name in left
            if name in table_ and not table_[name] > threshold
        }

    return _Step(label, step)


def _texts(concepts: Any) -> list[str]:
    if isinstance(concepts, str) or not all(isinstance(name, str) for name in concepts):
        raise InputError(
            f"concepts must be a sequence of strings or a ConceptBank, got {concepts!r:.60}.",
            code="CL-INPUT-NAMES",
        )
    return list(concepts)


def _cosines(encoder: Any, a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """Average the text cosines of one or several encoders, (len(a), len(b))."""
    pairs = [(encoder, 1.0)] if hasattr(encoder, "encode_text") else list(encoder)
    weights = sum(float(weight) for _, weight in pairs)
    if not pairs or not weights > 0:
        raise InputError(
            "encoder must be an Encoder, or pairs of encoder and weight with a positive sum.",
            code="CL-INPUT-TYPE",
        )
    total = np.zeros((len(a), len(b)))
    for one, weight in pairs:
        rows = []
        for texts in (a, b):
            vectors = np.stack(list(encode_unique(one, list(texts)))).astype(np.float64)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            rows.append(vectors / np.where(lengths > 0, lengths, 1.0))
        total += float(weight) / weights * (rows[0] @ rows[1].T)
    return total
