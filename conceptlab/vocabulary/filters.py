"""What a text must be to count as a concept of a class."""

from __future__ import annotations

__all__ = ["ClassNames", "ConceptFilter", "Rejections", "fold", "words_of"]

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from conceptlab.errors import InputError
from conceptlab.vocabulary.concepts import Texts, encode_unique
from conceptlab.vocabulary.prompts import class_text

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder

_WORD = re.compile(r"[^\W_]+")
_ARTICLES = {"a", "an", "the", "of", "with", "and", "or", "in", "on"}
_NOT_VISUAL = frozenset(
    (
        "smell",
        "smells",
        "smelling",
        "scent",
        "scented",
        "odor",
        "odour",
        "odorous",
        "aroma",
        "aromatic",
        "fragrant",
        "fragrance",
        "taste",
        "tastes",
        "tasting",
        "tasty",
        "flavor",
        "flavour",
        "flavored",
        "flavoured",
        "delicious",
        "savory",
        "savoury",
        "sound",
        "sounds",
        "sounding",
        "noise",
        "noisy",
        "loud",
        "silent",
        "quiet",
        "audible",
        "melodic",
        "chirping",
        "barking",
        "purring",
        "expensive",
        "cheap",
        "popular",
        "famous",
        "known",
        "historically",
        "traditionally",
        "usually",
        "domesticated",
        "endangered",
        "nocturnal",
        "intelligent",
        "friendly",
        "poisonous",
        "venomous",
        "nutritious",
        "healthy",
        "edible",
        "price",
        "cost",
    )
)
Rejections = Counter[str]
"""Reason to number of texts."""


def fold(text: str) -> str:
    """Give the form in which two texts count as the same: case, width and blanks ignored.

    Examples
    --------
    >>> fold("  Green   SKIN. ") == fold("green skin")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!\"'")


def words_of(text: str) -> list[str]:
    """Cut a text to words in lower case; blanks, hyphens and underscores part them."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class ClassNames:
    """Find class names as whole words inside texts.

    Parameters
    ----------
    classes : iterable of str
        Labels. Underscores and hyphens count as blanks; a plural s or es at the
        end of a word of the text does not hide a name.

    Examples
    --------
    >>> ClassNames(["tree_frog", "cat"]).find("two Tree-frogs in a category")
    ['tree_frog']
    """

    def __init__(self, classes: Iterable[str]) -> None:
        self._places: dict[tuple[str, ...], list[str]] = {}
        for label in classes:
            words = tuple(words_of(class_text(label)))
            if words and not (len(words) == 1 and words[0] in _ARTICLES):
                self._places.setdefault(words, []).append(label)
        self._lengths = sorted({len(words) for words in self._places})

    def find(self, text: str) -> list[str]:
        """Give the labels that `text` names, each once, in order of appearance."""
        words = words_of(text)
        found: dict[str, None] = {}
        for start in range(len(words)):
            for length in self._lengths:
                if start + length > len(words):
                    break
                for last in _singulars(words[start + length - 1]):
                    key = (*words[start : start + length - 1], last)
                    found.update(dict.fromkeys(self._places.get(key, ())))
        return list(found)


def _singulars(word: str) -> list[str]:
    forms = [word]
    if word.endswith("s") and len(word) > 3:
        forms.append(word[:-1])
    if word.endswith("es") and len(word) > 4:
        forms.append(word[:-2])
    return forms


class ConceptFilter:
    """Accept texts as concepts of classes, one after another.

    Parameters
    ----------
    classes : sequence of str
        All classes; a concept may name none of them.
    encoder : Encoder, optional
        For duplicates by cosine and for the context length.
    max_words : int
        Most words of a concept.
    max_characters : int
        Most characters.
    max_cosine : float or None
        A concept whose embedding has at least this cosine with that of one
        already kept for the class is a duplicate; None looks at letters only.
    visual : bool
        Whether to drop concepts with words for smell, sound, taste and the like.

    Attributes
    ----------
    kept : dict of str to list of str
        What was accepted, over all calls.
    rejected : Counter
        Reason to number.

    Examples
    --------
    >>> keep = ConceptFilter(["newt", "frog"])
    >>> keep.reason("a long tail"), keep.reason("like a newt")
    (None, 'class name')
    """

    def __init__(
        self,
        classes: Sequence[str],
        encoder: Encoder | None = None,
        *,
        max_words: int = 8,
        max_characters: int = 100,
        max_cosine: float | None = 0.95,
        visual: bool = True,
    ) -> None:
        if max_cosine is not None and not -1 < max_cosine <= 1:
            raise InputError(
                f"max_cosine must be in (-1, 1] or None, got {max_cosine!r}.", code="CL-INPUT-RANGE"
            )
        if max_words < 1 or max_characters < 1:
            raise InputError(
                f"max_words and max_characters must be at least 1, got {max_words} and "
                f"{max_characters}.",
                code="CL-INPUT-RANGE",
            )
        self.encoder, self.max_cosine = encoder, max_cosine
        self.max_words, self.max_characters, self.visual = max_words, max_characters, visual
        self.kept: Texts = {label: [] for label in classes}
        self.rejected: Rejections = Counter()
        self._names = ClassNames(classes)
        self._folded: dict[str, set[str]] = {label: set() for label in classes}
        self._vectors: dict[str, list[np.ndarray]] = {label: [] for label in classes}

    def seed(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Take texts as kept without asking, such as those of an earlier run."""
        pairs = [(label, text) for label, values in texts.items() for text in values]
        for (label, text), vector in zip(
            pairs, self._encode([text for _, text in pairs]), strict=True
        ):
            self._append(label, text, vector)

    def add(
        self, candidates: Mapping[str, Sequence[str]], limit: int | None = None
    ) -> dict[str, int]:
        """Offer texts; the good ones join `kept`, up to `limit` for a class.

        Parameters
        ----------
        candidates : mapping of str to sequence of str
            Class to texts, in order of preference.
        limit : int, optional
            Most concepts that a class shall have.

        Returns
        -------
        dict of str to int
            How many were accepted for each class that was offered any.
        """
        passed: Texts = {}
        for label, values in candidates.items():
            seen = set(self._folded[label])
            for text in values:
                reason = self.reason(text)
                key = fold(text)
                if reason is None and key in seen:
                    reason = "duplicate"
                if reason is not None:
                    self.rejected[reason] += 1
                    continue
                seen.add(key)
                passed.setdefault(label, []).append(text)
        before = {label: len(self.kept[label]) for label in candidates}
        pairs = [(label, text) for label, values in passed.items() for text in values]
        vectors = self._encode([text for _, text in pairs])
        for (label, text), vector in zip(pairs, vectors, strict=True):
            if vector is not None and not vector.size:
                self.rejected["over the context length"] += 1
            elif self._is_near(label, vector):
                self.rejected["near-duplicate"] += 1
            elif limit is not None and len(self.kept[label]) >= limit:
                self.rejected["more than needed"] += 1
            else:
                self._append(label, text, vector)
        return {label: len(self.kept[label]) - n for label, n in before.items()}

    def reason(self, text: str) -> str | None:
        """Say why a text is no concept, or None; duplicates are not looked for."""
        words = words_of(text)
        if not any(not word.isdigit() for word in words):
            return "no words"
        if len(text) > self.max_characters or len(text.split()) > self.max_words:
            return "too long"
        if self.visual and not _NOT_VISUAL.isdisjoint(words):
            return "not visual"
        return "class name" if self._names.find(text) else None

    def _is_near(self, label: str, vector: np.ndarray | None) -> bool:
        rows = self._vectors[label]
        if vector is None or self.max_cosine is None or not rows:
            return False
        return float((np.stack(rows) @ vector).max()) >= self.max_cosine

    def _append(self, label: str, text: str, vector: np.ndarray | None) -> None:
        self.kept[label].append(text)
        self._folded[label].add(fold(text))
        if vector is not None and vector.size:
            self._vectors[label].append(vector)

    def _encode(self, texts: list[str]) -> list[np.ndarray | None]:
        """Encode texts; an empty vector stands for one over the context length."""
        if self.encoder is None or not texts:
            return [None] * len(texts)
        try:
            return list(encode_unique(self.encoder, texts))
        except InputError as error:
            if error.code != "CL-INPUT-TEXT":
                raise
        if len(texts) == 1:
            return [np.empty(0)]
        half = len(texts) // 2  # halving finds a few long texts in few calls
        return self._encode(texts[:half]) + self._encode(texts[half:])
