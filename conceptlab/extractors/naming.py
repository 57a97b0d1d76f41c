"""Names for found concepts: the texts that an image–text encoder sees in their patches."""

from __future__ import annotations

__all__ = ["ConceptNames", "name_concepts"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import as_numpy
from conceptlab.datasets.images import as_image_batch
from conceptlab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from conceptlab.extractors.craft.estimator import CRAFT


@dataclass(frozen=True, eq=False)
class ConceptNames:
    """Texts for the concepts of a CRAFT, with how sure they are.

    Attributes
    ----------
    names : list of str
        One text a concept; a number is added where a text serves twice.
    scores : numpy.ndarray of shape (k, n_texts)
        Cosine of a concept's patches with a text, less what the text gets from
        the patches of all concepts, over the standard deviation of that row.
    texts : list of str
        The vocabulary.
    """

    names: list[str]
    scores: np.ndarray
    texts: list[str]

    @property
    def margin(self) -> np.ndarray:
        """Lead of the best text over the second, (k,), in standard deviations."""
        ordered = np.sort(self.scores, axis=1)
        return np.asarray(ordered[:, -1] - ordered[:, -2])

    def to_frame(self, top: int = 3) -> pd.DataFrame:
        """Give the `top` texts of each concept with their scores."""
        import pandas as pd

        best = np.argsort(-self.scores, axis=1)[:, :top]
        return pd.DataFrame(
            {
                "concept": np.repeat(np.arange(len(best)), best.shape[1]),
                "text": [self.texts[i] for row in best for i in row],
                "score": np.take_along_axis(self.scores, best, axis=1).ravel(),
            }
        )


def name_concepts(
    craft: CRAFT,
    images: Any,
    encoder: Any,
    texts: Sequence[str],
    *,
    n_patches: int = 24,
    templates: Any = None,
) -> ConceptNames:
    """Find the text that fits each concept's best patches better than the others' patches.

    Parameters
    ----------
    craft : CRAFT
        Fitted.
    images : as for :meth:`CRAFT.fit`
        The images that it was fitted on.
    encoder : Encoder
        An image–text encoder; see :func:`conceptlab.load_encoder`.
    texts : sequence of str
        The vocabulary, such as ``["red", "striped", "a wheel"]``; at least two.
    n_patches : int
        Best patches of each concept that are looked at.
    templates : optional
        As for :meth:`Encoder.encode_text`.

    Returns
    -------
    ConceptNames
        Use ``craft.rename(found.names)`` to take the names over.

    Raises
    ------
    InputError
        For fewer than two texts, or without patches (text models).

    Notes
    -----
    Every text is scored against the mean over all concepts first, so that a text
    that fits all patches (the class itself) names none of them.
    """
    from conceptlab.extractors.craft.views import ImageViews

    texts = [str(text) for text in texts]
    if len(set(texts)) < 2:
        raise InputError(
            f"name_concepts needs at least two different texts, got {texts[:3]}.",
            code="CL-INPUT-FEW",
        )
    views = ImageViews.of(images, craft.split, patches=craft.patches)
    size = views.inputs.shape[-2:]
    limits = float(views.inputs.min()), float(views.inputs.max())
    means = []
    for root in craft.tree_.roots:
        patches = views.crops(craft.patches_[root.patches[:n_patches]])
        if not patches:
            raise InputError(
                f"{root.name} has no patches to look at; it never rises above zero.",
                code="CL-INPUT-EMPTY",
            )
        batch = as_image_batch(patches, size=tuple(size), value_range="any")
        batch = batch.clamp(*limits)  # scaling up overshoots
        means.append(as_numpy(encoder.encode_image(batch)).mean(axis=0))
    seen = np.stack(means).astype(np.float64)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    similarity = seen @ as_numpy(encoder.encode_text(texts, templates=templates)).T
    contrast = similarity - similarity.mean(axis=0)
    spread = contrast.std(axis=1, keepdims=True)
    scores = contrast / np.where(spread > 0, spread, 1.0)
    names: list[str] = []
    for best in scores.argmax(axis=1):
        taken = sum(name.rsplit(" (", 1)[0] == texts[best] for name in names)
        names.append(texts[best] if taken == 0 else f"{texts[best]} ({taken + 1})")
    return ConceptNames(names, scores, texts)
