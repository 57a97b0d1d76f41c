"""The classes that a text encoder finds most like a class: its hard negatives."""

from __future__ import annotations

__all__ = ["hard_negatives"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from conceptlab.vocabulary.concepts import encode_unique
from conceptlab.vocabulary.prompts import PromptPreset, plain_prompt

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder

_ROWS = 1024


def hard_negatives(
    classes: Sequence[str],
    encoder: Encoder,
    n_neighbours: int = 10,
    *,
    template: str | PromptPreset = "cgbc",
) -> dict[str, list[str]]:
    """Find for every class the other classes whose names are nearest in the encoder's space.

    The encoder is the one that will classify, so that the classes are those it
    is likely to confuse (the published code asks another model).

    Parameters
    ----------
    classes : sequence of str
        Labels, all different.
    encoder : Encoder
        Its text tower reads "a photo of a {class}.".
    n_neighbours : int
        H; fewer when there are not so many other classes.
    template : str or PromptPreset
        Whose plain sentence is used; see
        :data:`conceptlab.vocabulary.PROMPTS`.

    Returns
    -------
    dict of str to list of str
        The nearest first; equal ones in the order of `classes`.

    Raises
    ------
    InputError
        No, repeated or blank classes.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> hard_negatives(["red star", "red heart", "blue circle"], load_encoder("embedded"), 1)
    {'red star': ['red heart'], 'red heart': ['red star'], 'blue circle': ['red heart']}
    """
    labels = check_classes(classes)
    Whole(0).check("n_neighbours", n_neighbours)
    count = min(n_neighbours, len(labels) - 1)
    if count == 0:
        return {label: [] for label in labels}
    vectors = encode_unique(encoder, [plain_prompt(template, label) for label in labels])
    found = {}
    for start in range(0, len(labels), _ROWS):
        similarity = vectors[start : start + _ROWS] @ vectors.T
        for row, values in enumerate(similarity, start=start):
            values[row] = -np.inf
            nearest = np.argsort(-values, kind="stable")[:count]
            found[labels[row]] = [labels[int(j)] for j in nearest]
    return found


def check_classes(classes: Sequence[str]) -> list[str]:
    """Give the labels as a list, or say what is wrong with them."""
    if isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise InputError(
            f"classes must be a list of names, got {classes!r:.80}.", code="CL-INPUT-TYPE"
        )
    labels = list(classes)
    if not labels:
        raise InputError("There are no classes. Give at least one.", code="CL-INPUT-EMPTY")
    bad = [label for label in labels if not isinstance(label, str) or not label.strip()]
    if bad:
        raise InputError(
            f"Class names must be texts that are not blank, got {bad[0]!r}.", code="CL-INPUT-NAMES"
        )
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise InputError(
            f"Class names must differ; {twice[:5]} come more than once. Give each once: "
            "ClassConcepts.index(labels) maps repeated labels to one row.",
            code="CL-INPUT-NAMES",
        )
    return labels
