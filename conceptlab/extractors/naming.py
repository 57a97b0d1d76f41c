"""Names for found concepts: the words whose image–text similarity follows a concept."""

from __future__ import annotations

__all__ = ["ConceptNames", "check_texts", "name_coefficients", "name_concepts"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError
from conceptlab.explanation.names import ConceptNames
from conceptlab.parameters import Rules, Whole
from conceptlab.seeds import RandomState, numpy_generator

if TYPE_CHECKING:
    from conceptlab.extractors.craft.estimator import CRAFT

_LEVEL = 0.05
_RULES = Rules(n_permutations=Whole(19))


def name_concepts(
    craft: CRAFT,
    images: Any,
    encoder: Any,
    texts: Sequence[str],
    *,
    n_permutations: int = 199,
    templates: Any = None,
    random_state: RandomState = None,
) -> ConceptNames:
    """Find the word that goes with each concept of a fitted CRAFT.

    Parameters
    ----------
    craft : CRAFT
        Fitted.
    images : as for :meth:`CRAFT.fit`
        The images that it was fitted on, or others.
    encoder, texts, n_permutations, templates, random_state
        As for :func:`name_coefficients`.

    Returns
    -------
    ConceptNames
        Use ``craft.rename(found.names)`` to take the names over.

    Raises
    ------
    InputError
        As :func:`name_coefficients`; for text models, whose inputs an encoder cannot see.

    Examples
    --------
    >>> from conceptlab import CRAFT, SplitModel, load_encoder
    >>> from conceptlab.datasets import load_embedded_classifier, load_scenes
    >>> scenes = load_scenes("test", 48, seed=0)
    >>> craft = CRAFT(SplitModel(load_embedded_classifier(), at="layer4"), 2, patches="none",
    ...               n_refits=0, random_state=0).fit(scenes.images, target=None)
    >>> found = name_concepts(craft, scenes.images, load_encoder(), ["red", "blue", "striped"])
    >>> found.scores.shape
    (2, 3)
    """
    check_texts(texts)
    U = as_numpy(craft.transform(images))
    return name_coefficients(
        U,
        images,
        encoder,
        texts,
        names=craft.concept_names_,
        n_permutations=n_permutations,
        templates=templates,
        random_state=random_state,
    )


def name_coefficients(
    U: Any,
    images: Any,
    encoder: Any,
    texts: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    n_permutations: int = 199,
    templates: Any = None,
    random_state: RandomState = None,
) -> ConceptNames:
    """Find the word whose similarity with the images follows each coefficient most closely.

    Parameters
    ----------
    U : array-like of shape (n, k)
        Coefficients of the concepts in n images.
    images : as for :meth:`Encoder.encode_image`
        The n images.
    encoder : Encoder
        An image–text encoder; see :func:`conceptlab.load_encoder`.
    texts : sequence of str
        The vocabulary, such as ``["red", "striped", "a wheel"]``; at least two.
    names : sequence of str, optional
        What the concepts are called where no word fits; ``"concept 0"``, ... by default.
    n_permutations : int
        Shuffles of the images for the null, at least 19.
    templates : optional
        As for :meth:`Encoder.encode_text`.
    random_state : RandomState
        Seed of the shuffles.

    Returns
    -------
    ConceptNames

    Raises
    ------
    InputError
        For fewer than two different texts (``CL-INPUT-FEW``); images and coefficients of
        different number, or vectors of images and texts of different length
        (``CL-INPUT-SHAPE``).

    Notes
    -----
    The score is the correlation, over whole images, of coefficient and cosine similarity. Crops
    beside the images make it worse on scenes (docs/results/naming.md). A concept is named where
    its best score is above those of all but 1 in 20 shuffles of the images, the best word being
    taken anew in each: a coefficient without relation to what the images show gets a name in
    1 case of 20, whatever the number of words.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.datasets import load_scenes
    >>> scenes = load_scenes("test", 60, seed=0, n_objects=1)
    >>> names = list(scenes.attribute_names)
    >>> U = scenes.attributes[:, [names.index("red")]].astype(float)
    >>> name_coefficients(U, scenes.images, load_encoder(), ["blue", "red"], random_state=0).names
    ['red']
    """
    texts = check_texts(texts)
    _RULES.check({"n_permutations": n_permutations})
    U = np.asarray(as_numpy(U), dtype=np.float64)
    seen = as_numpy(encoder.encode_image(images)).astype(np.float64)
    read = as_numpy(encoder.encode_text(texts, templates=templates)).astype(np.float64)
    if seen.shape[1:] != read.shape[1:]:
        raise InputError(
            f"The encoder gives vectors of {seen.shape[1]} numbers for images and {read.shape[1]} "
            "for texts. Give one that puts both into one space.",
            code="CL-INPUT-SHAPE",
        )
    if U.ndim != 2 or len(U) != len(seen):
        raise InputError(
            f"U must have shape ({len(seen)}, k), one row for each image, got {U.shape}.",
            code="CL-INPUT-SHAPE",
        )
    left, right = _standard(U), _standard(seen @ read.T)
    scores = left.T @ right / len(U)
    best = scores.max(axis=1)
    rng = numpy_generator(random_state)
    beaten = np.zeros(len(best))
    for _ in range(n_permutations):
        shuffled = left[rng.permutation(len(left))].T @ right / len(U)
        beaten += shuffled.max(axis=1) >= best
    p_values = (1 + beaten) / (1 + n_permutations)
    named = (p_values <= _LEVEL) & (best > 0)
    default = [f"concept {i}" for i in range(len(best))] if names is None else list(names)
    return ConceptNames(
        _spelled(scores, named, texts, default),
        scores,
        p_values,
        texts,
        named,
        str(getattr(encoder, "name", type(encoder).__name__)),
    )


def check_texts(texts: Any) -> list[str]:
    """Give a vocabulary as different words, of which there must be two."""
    given = [texts] if isinstance(texts, str) else [str(text).strip() for text in texts]
    found = list(dict.fromkeys(text for text in given if text))
    if len(found) < 2:
        raise InputError(
            f"Naming needs at least two different words to choose from, got {found}. Give them as "
            "a list, or leave them out to take the vocabulary that ships.",
            code="CL-INPUT-FEW",
        )
    return found


def _standard(values: np.ndarray) -> np.ndarray:
    """Take mean and deviation out of columns; a constant one becomes zero."""
    values = values - values.mean(axis=0)
    spread = values.std(axis=0)
    return values / np.where(spread > 1e-12, spread, np.inf)


def _spelled(
    scores: np.ndarray, named: np.ndarray, texts: list[str], default: list[str]
) -> list[str]:
    """Write a name for each concept; where a word serves twice, its second word beside it."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    first = [texts[row[0]] for row in order]
    given = [word for word, sure in zip(first, named, strict=True) if sure]
    shared = {word for word in given if given.count(word) > 1}
    names: list[str] = []
    for i, row in enumerate(order):
        word = first[i] if named[i] else default[i]
        if named[i] and word in shared:
            word = f"{word}, {texts[row[1]]}"
        name, again = word, 2
        while name in names:
            name, again = f"{word} ({again})", again + 1
        names.append(name)
    return names
