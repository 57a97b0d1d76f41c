"""Names for the concepts of an explanation: which encoder, which words, and when none."""

from __future__ import annotations

__all__ = ["NamingWarning", "knows", "name_explanation", "vocabulary_for", "words_of"]

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conceptlab.arrays import as_numpy
from conceptlab.datasets.images import as_image_batch
from conceptlab.encoders.registry import EMBEDDED_NOTE, load_encoder
from conceptlab.errors import InputError
from conceptlab.explanation import Explanation
from conceptlab.extractors import CRAFT
from conceptlab.extractors.naming import check_texts, name_coefficients
from conceptlab.io.reading import read_plain_file

_FAMILIAR = (
    0.75  # median cosine with the nearest of 64 scenes: other scenes .79-.91, photos .62-.71
)


class NamingWarning(UserWarning):
    """Concepts got no names, or names by an encoder that does not know such images."""


def name_explanation(
    explanation: Explanation,
    craft: CRAFT,
    images: Any,
    *,
    names: Any = None,
    name_with: Any = "auto",
    random_state: int = 0,
) -> None:
    """Name the concepts of an explanation and of its CRAFT, where that can be done.

    Parameters
    ----------
    explanation : Explanation
        Its ``names`` and ``naming`` are set.
    craft : CRAFT
        Renamed too.
    images : as for :func:`attribution.explain`
        The images that `explanation` is of.
    names : sequence of str, str or path, optional
        The words to choose from; see :func:`words_of`.
    name_with : Encoder, str or None
        An image-text encoder, or its name for :func:`conceptlab.load_encoder`; None for no
        names. ``"auto"``: the embedded one where the images look like scenes, else none.
    random_state : int
        Seed of the shuffles.

    Raises
    ------
    InputError
        Fewer than two words (``CL-INPUT-FEW``), a file that cannot be read
        (``CL-INPUT-FILE``), an encoder that does not fit (``CL-INPUT-SHAPE``).
    """
    words = None if names is None else words_of(names)
    if name_with is None or isinstance(images, Mapping):
        return
    if images.shape[1] != 3:
        if words is not None:
            warnings.warn(
                f"Concepts have no names: encoders take images of 3 channels, not "
                f"{images.shape[1]}.",
                NamingWarning,
                stacklevel=3,
            )
        return
    automatic = isinstance(name_with, str) and name_with == "auto"
    encoder = load_encoder("embedded" if automatic else name_with)
    known = knows(encoder, images)
    if automatic and not known:
        if words is not None:
            warnings.warn(
                f"Concepts have no names: {EMBEDDED_NOTE} Name it with name_with=, --name-with.",
                NamingWarning,
                stacklevel=3,
            )
        return
    if not known:
        warnings.warn(
            f"Names of concepts may mean nothing. {EMBEDDED_NOTE}", NamingWarning, stacklevel=3
        )
    found = name_coefficients(
        explanation.coefficients,
        images,
        encoder,
        words or vocabulary_for(encoder),
        names=craft.concept_names_,
        random_state=random_state,
    )
    craft.rename(found.names)
    explanation.naming = found
    explanation.names = list(found.names)


def words_of(names: Sequence[str] | str | os.PathLike[str]) -> list[str]:
    """Read the words that concepts may be named by.

    Parameters
    ----------
    names : sequence of str, str or path
        Words; one text with commas between them; or a file with one a line.

    Returns
    -------
    list of str
        Different, at least two.

    Raises
    ------
    InputError
        Fewer than two words (``CL-INPUT-FEW``); a file that is empty or no text
        (``CL-INPUT-FILE``).

    Examples
    --------
    >>> words_of("red, striped, a wheel")
    ['red', 'striped', 'a wheel']
    """
    if not isinstance(names, str | os.PathLike):
        return check_texts(names)
    path = Path(names)
    if "," not in str(names) and os.path.isfile(path):
        try:
            lines = read_plain_file(path).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is not readable as text in UTF-8: {error}.", code="CL-INPUT-FILE"
            ) from error
        if not any(line.strip() for line in lines):
            raise InputError(
                f"{path} holds no words. Write one a line, at least two.", code="CL-INPUT-FILE"
            )
        return check_texts(lines)
    if isinstance(names, os.PathLike):
        raise InputError(f"{path} is no file with words.", code="CL-INPUT-FILE")
    return check_texts(names.split(","))


def vocabulary_for(encoder: Any) -> list[str]:
    """Give the words of the shipped vocabulary that an encoder may know.

    Parameters
    ----------
    encoder : Encoder
        The embedded one knows the colours, shapes, textures and backgrounds of scenes only.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> words = vocabulary_for(load_encoder())
    >>> len(words), words[:2]
    (25, ['red', 'orange'])
    """
    from conceptlab.datasets.world import ATTRIBUTE_NAMES
    from conceptlab.vocabulary import load_vocabulary

    words = [word for group in load_vocabulary().values() for word in group]
    if getattr(encoder, "name", "") == "embedded":
        return [word for word in words if word in ATTRIBUTE_NAMES]
    return words


def knows(encoder: Any, images: Any) -> bool:
    """Tell whether images are of the kind that an encoder was made for.

    Parameters
    ----------
    encoder : Encoder
        Of others than the embedded one nothing is known, and the answer is yes.
    images : as for :meth:`Encoder.encode_image`
        At most 64 of them, evenly chosen, are looked at.

    Returns
    -------
    bool
        For the embedded encoder: whether they look like scenes, their vectors being as near to
        those of other scenes as scenes are to each other.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.datasets import load_scenes
    >>> noise = np.random.default_rng(0).random((4, 3, 64, 64), dtype=np.float32)
    >>> knows(load_encoder(), load_scenes("test", 8, seed=0).images), knows(load_encoder(), noise)
    (True, False)
    """
    if getattr(encoder, "name", "") != "embedded":
        return True
    from conceptlab.datasets import load_scenes

    batch = as_image_batch(images, value_range="any")
    chosen = np.unique(np.linspace(0, len(batch) - 1, min(len(batch), 64)).round().astype(int))
    if batch.shape[1] != 3 or float(batch.min()) < 0 or float(batch.max()) > 1:
        return False
    seen = as_numpy(encoder.encode_image(batch[chosen]))
    known = as_numpy(encoder.encode_image(load_scenes("train", 64, seed=0).images))
    return bool(np.median((seen @ known.T).max(axis=1)) >= _FAMILIAR)
