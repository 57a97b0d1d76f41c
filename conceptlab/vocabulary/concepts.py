"""Concepts by class: the texts, and their vectors once an encoder has read them."""

from __future__ import annotations

__all__ = ["ClassConcepts", "Texts"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from conceptlab.errors import InputError, SpaceMismatchError, unknown_name
from conceptlab.io.objects import Parts, Saved
from conceptlab.vocabulary.prompts import (
    PromptPreset,
    fill_prompt,
    plain_prompt,
    resolve_prompt,
)

if TYPE_CHECKING:
    from conceptlab.bank import ConceptBank
    from conceptlab.encoders.base import Encoder

Texts = dict[str, list[str]]
"""Class to its concepts; the order of the keys is the order of the classes."""


class ClassConcepts(Saved):
    """Texts of concepts for every class, with their vectors where they are known.

    Classes may have different numbers of concepts, and none. The same text may
    stand in several classes, and twice in one: :func:`conceptlab.vocabulary.audit`
    tells.

    Parameters
    ----------
    texts : mapping of str to sequence of str
        Class to concepts, in the order of the classes.
    bank : ConceptBank, optional
        One vector for each concept, class after class; made by :meth:`embed`.
    meta : mapping, optional
        JSON values on how the concepts came about.

    Attributes
    ----------
    classes : tuple of str
        The labels, K of them, as in the data (underscores kept).
    texts : dict of str to list of str
        A copy; changing it does not change the object.
    counts : ndarray of shape (K,), int64
        Concepts of each class.
    offsets : ndarray of shape (K + 1,), int64
        Rows ``offsets[k]:offsets[k + 1]`` of the bank are those of class k.
    ranges : ndarray of shape (K, 2), int64
        The same as pairs (start, stop).
    labels : ndarray of shape (n,), int64
        Class index of each row.
    bank : ConceptBank or None
        Vectors (n, d), whose names are ``"class: concept"``.
    meta : dict

    Raises
    ------
    InputError
        No class (``CL-INPUT-EMPTY``); labels or concepts that are blank or no
        strings (``CL-INPUT-NAMES``); a bank with another number of rows
        (``CL-INPUT-SHAPE``).

    Examples
    --------
    >>> concepts = ClassConcepts({"tree_frog": ["sticky toes", "green skin"], "newt": ["a tail"]})
    >>> concepts.classes, concepts.counts.tolist(), concepts.ranges.tolist()
    (('tree_frog', 'newt'), [2, 1], [[0, 2], [2, 3]])
    >>> concepts.prompts()[0]
    'a photo of a tree frog with sticky toes.'
    """

    def __init__(
        self,
        texts: Mapping[str, Sequence[str]],
        *,
        bank: ConceptBank | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self._texts = check_texts_by_class(texts)
        self.classes: tuple[str, ...] = tuple(self._texts)
        self.counts = np.array([len(v) for v in self._texts.values()], dtype=np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self.bank = bank
        self.meta: dict[str, Any] = dict(meta or {})
        for array in (self.counts, self.offsets):
            array.setflags(write=False)
        if bank is not None and len(bank) != self.offsets[-1]:
            raise InputError(
                f"The bank has {len(bank)} vectors for {self.offsets[-1]} concepts; expected one "
                "for each, class after class. Make it with embed(encoder).",
                code="CL-INPUT-SHAPE",
            )

    # -- what it holds ----------------------------------------------------------
    @property
    def texts(self) -> Texts:
        """Class to its concepts; a copy."""
        return {label: list(values) for label, values in self._texts.items()}

    @property
    def ranges(self) -> np.ndarray:
        """First row and the row after the last of each class, (K, 2)."""
        return np.stack([self.offsets[:-1], self.offsets[1:]], axis=1)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each row, (n,)."""
        return np.repeat(np.arange(len(self.classes)), self.counts)

    @property
    def n_concepts(self) -> int:
        """Number of concepts over all classes, n."""
        return int(self.offsets[-1])

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __contains__(self, label: object) -> bool:
        return label in self._texts

    def __getitem__(self, label: str) -> list[str]:
        if label not in self._texts:
            raise unknown_name("class", label, self.classes, code="CL-INPUT-LABELS")
        return list(self._texts[label])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassConcepts):
            return NotImplemented
        same = list(self._texts.items()) == list(other._texts.items())
        return same and self.bank == other.bank

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        low, high = int(self.counts.min()), int(self.counts.max())
        each = f"{low}" if low == high else f"{low} to {high}"
        vectors = "" if self.bank is None else f", vectors {tuple(self.bank.vectors.shape)}"
        return f"ClassConcepts({len(self)} classes, {each} concepts each{vectors})"

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, table

        rows = [
            (label, len(texts), ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else ""))
            for label, texts in list(self._texts.items())[:20]
        ]
        more = f"<p>and {len(self) - 20} more classes</p>" if len(self) > 20 else ""
        listed = table(("class", "concepts", "the first"), rows)
        return f"<div><p>{escape(repr(self))}</p>{listed}{more}</div>"

    def __sklearn_clone__(self) -> ClassConcepts:
        # Nothing here changes, and a copy of a large bank would cost its memory again.
        return self

    def items(self) -> Iterator[tuple[str, str]]:
        """Go through all pairs (class, concept) in the order of the rows."""
        for label, values in self._texts.items():
            for text in values:
                yield label, text

    def index(self, labels: Sequence[str]) -> np.ndarray:
        """Give the class index of each label, (len(labels),) int64; labels may repeat.

        Data sets may name a class twice (two pairs in ImageNet's usual list);
        both then share one row.

        Raises
        ------
        InputError
            For a label that has no concepts here (``CL-INPUT-LABELS``).
        """
        places = {label: k for k, label in enumerate(self.classes)}
        for label in labels:
            if label not in places:
                raise unknown_name("class", label, self.classes, code="CL-INPUT-LABELS")
        return np.array([places[label] for label in labels], dtype=np.int64)

    def rows(self, label: str) -> slice:
        """Give the rows of a class in the bank."""
        k = int(self.index([label])[0])
        return slice(int(self.offsets[k]), int(self.offsets[k + 1]))

    def prompts(
        self, template: str | PromptPreset | None = None, *, underscores: bool = False
    ) -> list[str]:
        """Give the sentence of every concept, in the order of the rows.

        Parameters
        ----------
        template : str, PromptPreset or None
            ``"cgbc"``, ``"cgbc-satellite"``, ``"dclip"``, ``"cupl"``,
            ``"concept"``, ``"phrase"``, or a sentence with ``{class}`` and
            ``{concept}``. None takes ``meta["prompt"]``, else ``"cgbc"``.
        underscores : bool
            Whether underscores in labels stay, as in the published code.
        """
        preset = self.preset(template)
        return [fill_prompt(preset, c, t, underscores=underscores) for c, t in self.items()]

    def plain_prompts(
        self, template: str | PromptPreset | None = None, *, underscores: bool = False
    ) -> list[str]:
        """Give the sentence of every class without a concept, K of them.

        Parameters
        ----------
        template, underscores
            See :meth:`prompts`.
        """
        preset = self.preset(template)
        return [plain_prompt(preset, label, underscores=underscores) for label in self.classes]

    def preset(self, template: str | PromptPreset | None = None) -> PromptPreset:
        """Give the preset for `template`; for None that of ``meta["prompt"]``, else "cgbc"."""
        return resolve_prompt(self.meta.get("prompt", "cgbc") if template is None else template)

    # -- vectors ----------------------------------------------------------------
    def embed(
        self,
        encoder: Encoder,
        template: str | PromptPreset | None = None,
        *,
        underscores: bool = False,
        dtype: Any = np.float32,
        **options: Any,
    ) -> ClassConcepts:
        """Let an encoder read the prompts; equal prompts are read once.

        Parameters
        ----------
        encoder : Encoder
            Its text tower is used.
        template, underscores
            See :meth:`prompts`.
        dtype : dtype
            Of the vectors; float16 halves the memory of large banks.
        **options
            For ``encode_text``, such as ``batch_size`` or ``progress``.

        Returns
        -------
        ClassConcepts
            With a bank of unit vectors; the space is ``encoder.fingerprint``.

        Raises
        ------
        InputError
            Classes without concepts (``CL-INPUT-EMPTY``); prompts over the
            encoder's context length (``CL-INPUT-TEXT``).
        """
        from conceptlab.bank import ConceptBank

        self.check_filled()
        preset = self.preset(template)
        vectors = encode_unique(encoder, self.prompts(preset, underscores=underscores), **options)
        labels, texts = zip(*self.items(), strict=True)
        bank = ConceptBank(
            vectors.astype(dtype),
            unique_names(labels, texts),
            space=encoder.fingerprint,
            meta={
                "encoder": encoder.name,
                "prompt": preset.name,
                "underscores": underscores,
                "concepts": {"class": list(labels), "text": list(texts)},
            },
        )
        return ClassConcepts(self._texts, bank=bank, meta=self.meta)

    def check_filled(self, at_least: int = 1) -> None:
        """Raise an error that names the classes with fewer concepts than `at_least`."""
        few = [c for c, n in zip(self.classes, self.counts, strict=True) if n < at_least]
        if few:
            shown = ", ".join(map(repr, few[:5])) + (", ..." if len(few) > 5 else "")
            wanted = "no concepts" if at_least == 1 else f"fewer than {at_least} concepts"
            raise InputError(
                f"{len(few)} of {len(self)} classes have {wanted}: {shown}. Add concepts, for "
                "example with from_vocabulary or synthesize, or leave the classes out with "
                "select_classes.",
                code="CL-INPUT-EMPTY",
            )

    def check_space(self, encoder: Encoder) -> None:
        """Raise an error if the vectors come from another encoder than this."""
        space = None if self.bank is None else self.bank.space
        if space is not None and space != encoder.fingerprint:
            raise SpaceMismatchError(
                f"The concept vectors were made by another encoder ({space[:12]}...) than "
                f"{encoder.name!r} ({encoder.fingerprint[:12]}...). Embed the texts again: "
                "concepts.embed(encoder)."
            )

    # -- parts ------------------------------------------------------------------
    def select_classes(self, labels: Sequence[str]) -> ClassConcepts:
        """Keep these classes, in this order, with their vectors."""
        return self._take([self.classes[k] for k in self.index(labels)], None)

    def take(self, kept: Mapping[str, Sequence[int]]) -> ClassConcepts:
        """Keep concepts by their places within each class; other classes stay whole.

        Parameters
        ----------
        kept : mapping of str to sequence of int
            Class to places, in the order that the concepts shall have.

        Returns
        -------
        ClassConcepts
        """
        self.index(list(kept))
        return self._take(self.classes, kept)

    def map(self, fn: Callable[[str, list[str]], Sequence[str]]) -> ClassConcepts:
        """Replace the texts of each class by ``fn(class, texts)``; vectors are dropped."""
        return ClassConcepts(
            {c: list(fn(c, list(t))) for c, t in self._texts.items()}, meta=self.meta
        )

    def merge(self, other: ClassConcepts) -> ClassConcepts:
        """Add the concepts and classes of `other` behind those here; vectors are dropped."""
        texts = self.texts
        for label, text in other.items():
            if text not in texts.setdefault(label, []):
                texts[label].append(text)
        for label in other.classes:
            texts.setdefault(label, [])
        return ClassConcepts(texts, meta=self.meta)

    def _take(
        self, labels: Sequence[str], kept: Mapping[str, Sequence[int]] | None
    ) -> ClassConcepts:
        texts: Texts = {}
        rows: list[int] = []
        for label in labels:
            places = (
                range(len(self._texts[label])) if kept is None or label not in kept else kept[label]
            )
            start, size = self.rows(label).start, len(self._texts[label])
            for place in places:
                if not 0 <= place < size:
                    raise InputError(
                        f"Class {label!r} has {size} concepts, so there is no place {place}.",
                        code="CL-INPUT-RANGE",
                    )
            texts[label] = [self._texts[label][int(i)] for i in places]
            rows += [start + int(i) for i in places]
        bank = None if self.bank is None or not rows else rebuilt(self.bank, texts, np.array(rows))
        return ClassConcepts(texts, bank=bank, meta=self.meta)

    # -- other forms ------------------------------------------------------------
    def to_frame(self) -> Any:
        """Give a pandas DataFrame with the columns ``class`` and ``concept``."""
        import pandas

        return pandas.DataFrame(list(self.items()), columns=["class", "concept"])

    def _parts(self) -> Parts:
        data: dict[str, Any] = {
            "classes": list(self.classes),
            "texts": list(self._texts.values()),
            "meta": self.meta,
            "bank": None,
        }
        tensors = {}
        if self.bank is not None:
            data["bank"] = {"space": self.bank.space, "meta": self.bank.meta}
            tensors["vectors"] = np.asarray(self.bank.vectors)
        return data, tensors

    @classmethod
    def _from_parts(cls, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        from conceptlab.bank import ConceptBank

        texts = check_texts_by_class(dict(zip(data["classes"], data["texts"], strict=True)))
        bank = None
        if data["bank"] is not None:
            labels = [label for label, values in texts.items() for _ in values]
            flat = [text for values in texts.values() for text in values]
            bank = ConceptBank(tensors["vectors"], unique_names(labels, flat), **data["bank"])
        return cls(texts, bank=bank, meta=data["meta"])


def check_texts_by_class(texts: Mapping[str, Sequence[str]]) -> Texts:
    """Copy class → concepts after checking that it is what it should be."""
    if isinstance(texts, ClassConcepts):
        return texts.texts
    if not isinstance(texts, Mapping):
        raise InputError(
            f"Concepts must be a mapping from class to texts, got {type(texts).__name__}. "
            "Read a file with read_concepts(path).",
            code="CL-INPUT-TYPE",
        )
    if not texts:
        raise InputError("There are no classes. Give at least one.", code="CL-INPUT-EMPTY")
    checked: Texts = {}
    for label, values in texts.items():
        if not isinstance(label, str) or not label.strip():
            raise InputError(
                f"A class name must be a string with letters in it, got {label!r}.",
                code="CL-INPUT-NAMES",
            )
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InputError(
                f"The concepts of class {label!r} must be a list of texts, got {values!r:.80}. "
                'Write, for example, {"frog": ["sticky toes"]}.',
                code="CL-INPUT-TYPE",
            )
        for place, text in enumerate(values):
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"Concept {place} of class {label!r} must be a text that is not blank, got "
                    f"{text!r:.80}. Remove it.",
                    code="CL-INPUT-NAMES",
                )
        checked[label] = list(values)
    return checked


def unique_names(labels: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Name every row ``"class: concept"``; a repeated one gets a number."""
    taken = {f"{label}: {text}" for label, text in zip(labels, texts, strict=True)}
    used: set[str] = set()
    names = []
    for label, text in zip(labels, texts, strict=True):
        base = name = f"{label}: {text}"
        number = 2
        while name in used or (number > 2 and name in taken):
            name = f"{base} ({number})"
            number += 1
        used.add(name)
        names.append(name)
    return names


def rebuilt(bank: ConceptBank, texts: Texts, rows: np.ndarray) -> ConceptBank:
    """Take rows of a bank and name them afresh."""
    from conceptlab.bank import ConceptBank

    labels = [label for label, values in texts.items() for _ in values]
    flat = [text for values in texts.values() for text in values]
    meta = {**bank.meta, "concepts": {"class": labels, "text": flat}}
    return ConceptBank(
        np.asarray(bank.vectors)[rows], unique_names(labels, flat), space=bank.space, meta=meta
    )


def encode_unique(encoder: Encoder, texts: Sequence[str], **options: Any) -> np.ndarray:
    """Encode each different text once and give unit rows (n, d), float32."""
    from conceptlab.arrays import as_numpy

    places: dict[str, int] = {}
    for text in texts:
        places.setdefault(text, len(places))
    vectors = as_numpy(encoder.encode_text(list(places), normalize=True, **options))
    return vectors[[places[text] for text in texts]]
