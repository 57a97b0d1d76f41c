"""Words for concepts: how well each follows a concept, and whether better than chance."""

from __future__ import annotations

__all__ = ["ConceptNames", "check_names"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ConceptNames:
    """Words for the concepts of a model, with how sure they are.

    Attributes
    ----------
    names : list of str
        The best word of each concept, where one serves twice with its second word; the name
        that the concept had where no word is better than chance.
    scores : numpy.ndarray of shape (k, n_texts)
        Correlation, over the images, of a concept's coefficient with the similarity of image
        and text, in [-1, 1].
    p_values : numpy.ndarray of shape (k,)
        How often a concept whose images are shuffled has a best word as good.
    texts : list of str
        The vocabulary.
    named : numpy.ndarray of shape (k,), bool
        Where a word is better than chance.
    encoder : str
        What compared images with words.

    Examples
    --------
    >>> found = ConceptNames(["red", "concept 1"], np.array([[0.8, 0.1], [0.1, 0.0]]),
    ...                      np.array([0.01, 0.7]), ["red", "round"], np.array([True, False]), "e")
    >>> found.words(0), found.words(1)
    ([('red', 0.8), ('round', 0.1)], [])
    """

    names: list[str]
    scores: np.ndarray
    p_values: np.ndarray
    texts: list[str]
    named: np.ndarray
    encoder: str = ""

    def words(self, concept: int, top: int = 3) -> list[tuple[str, float]]:
        """Give the `top` words of a concept with their scores; none where it has no name."""
        if not self.named[concept]:
            return []
        best = np.argsort(-self.scores[concept], kind="stable")[:top]
        return [(self.texts[i], float(self.scores[concept, i])) for i in best]

    def told(self, concept: int, top: int = 3) -> str:
        """Say the words of a concept in one line, such as ``"red 0.80, round 0.10"``."""
        words = self.words(concept, top)
        return ", ".join(f"{word} {score:.2f}" for word, score in words) or "no name"

    def to_frame(self, top: int = 3) -> pd.DataFrame:
        """Give the `top` texts of each concept with their scores, named or not."""
        import pandas as pd

        best = np.argsort(-self.scores, axis=1, kind="stable")[:, :top]
        return pd.DataFrame(
            {
                "concept": np.repeat(np.arange(len(best)), best.shape[1]),
                "text": [self.texts[i] for row in best for i in row],
                "score": np.take_along_axis(self.scores, best, axis=1).ravel(),
                "p_value": np.repeat(self.p_values, best.shape[1]),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Give names, three words each with their scores, p-values and the encoder, for JSON."""
        return {
            "encoder": self.encoder,
            "n_words": len(self.texts),
            "concepts": [
                {
                    "name": name,
                    "named": bool(self.named[i]),
                    "p_value": float(self.p_values[i]),
                    "words": {word: round(score, 4) for word, score in self.words(i)},
                }
                for i, name in enumerate(self.names)
            ],
        }


def check_names(names: Any, n_concepts: int) -> list[str]:
    """Give names of concepts as a list of strings: one each, different, not empty."""
    found = [] if isinstance(names, str) else [str(name) for name in names]
    if len(found) != n_concepts or len(set(found)) != len(found) or not all(map(str.strip, found)):
        shown = repr(names) if isinstance(names, str) else found[:5]
        raise InputError(
            f"rename needs {n_concepts} different names that are not empty, got {shown}.",
            code="CL-INPUT-NAMES",
        )
    return found
