"""From fitted concepts and images to an explanation."""

from __future__ import annotations

__all__ = ["explain_fitted", "of_many_images"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from conceptlab.explanation import Explanation
from conceptlab.explanation.tree import ConceptTree
from conceptlab.extractors.craft.fitted import Fitted
from conceptlab.extractors.craft.recursion import strongest
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.importance.effects import concept_effects
from conceptlab.maps import concept_maps
from conceptlab.models.joined import Joined
from conceptlab.models.words import layer_words
from conceptlab.progress import Progress
from conceptlab.provenance import provenance


def explain_fitted(
    fitted: Fitted,
    views: ImageViews,
    source: ImageViews,
    *,
    names: Sequence[str],
    tree: ConceptTree,
    stability: np.ndarray | None,
    places: list[np.ndarray] | None,
    target: Any,
    maps: str | None,
    n_maps: int,
    n_patches: int,
    progress: Progress,
    **settings: Any,
) -> Explanation:
    """Explain the model's answers on images; see :meth:`CRAFT.explain`.

    Parameters
    ----------
    fitted : Fitted
        The concepts and the model.
    views, source : ImageViews
        What to explain, and what the patches are cut from.
    names : sequence of str
        One a concept.
    tree : ConceptTree
        The recursion.
    stability : numpy.ndarray of shape (k,), or None
        Of each concept.
    places : list of numpy.ndarray of shape (m, 4), or None
        Image, y, x and side of each concept's rows in `source`, the best first; None where
        they are to be sought.
    target, maps, n_maps, n_patches, progress
        As for :meth:`CRAFT.explain`.
    **settings
        Told in the explanation beside layer, model and seed.

    Returns
    -------
    Explanation
    """
    split, extractor = fitted.split, fitted.extractor
    coded = fitted.code(views, progress=progress)
    U = coded.U
    target = views.check_target(target, coded.logits)
    importance = fitted.importance_of(coded, target, progress=progress)
    coefficients = U.mean(axis=tuple(range(1, U.ndim - 1))) if U.ndim > 2 else U
    # Every concept's best image is among those shown, that of the most important first.
    order = np.argsort(-np.asarray(importance.mean), kind="stable")
    shown = views.pictures(n_maps, coefficients.argmax(axis=0)[order])
    pictures, located, effects = np.empty((0, 3, 1, 1), np.float32), None, None
    if len(shown):
        batch = views.inputs[torch.from_numpy(shown)]
        pictures = as_numpy(batch)
        beside = None if views.beside is None else views.beside.rows(torch.from_numpy(shown))
        if maps is not None:
            found = concept_maps(
                split, extractor, batch, inputs=beside, method=maps, progress=progress
            )
            located = as_numpy(found)
        whole = batch if beside is None else Joined(batch, beside)
        effects = concept_effects(split, extractor, whole, target[shown])
    if places is None:
        places = _best_places(fitted, source, n_patches, progress)
    places = [of_many_images(rows, n_patches) for rows in places]
    held = {int(row[0]) for rows in places for row in rows if source.has_pictures}
    return Explanation(
        names=list(names),
        importance=importance,
        images=pictures,
        shown=shown,
        coefficients=coefficients,
        maps=located,
        patches=[source.crops(rows) for rows in places],
        places=places,
        wholes={i: as_numpy(source.inputs[i]) for i in sorted(held)},
        elsewhere=source is not views,
        effects=effects,
        logits=coded.logits,
        decision=coded.decision,
        stability=stability,
        target=target,
        class_names=split.class_names,
        tree=tree,
        settings=provenance(
            layer=split.layer,
            layer_words=layer_words(split),
            model=type(split.model).__name__,
            fingerprint=split.fingerprint,
            n_concepts=len(extractor.components_),
            **settings,
            extractor=type(extractor).__name__,
            maps=maps,
            seed=fitted.seed,
        ),
    )


def of_many_images(places: np.ndarray, n: int) -> np.ndarray:
    """Take `n` places, the best of each image before the second best of any."""
    turn = np.zeros(len(places), np.int64)
    seen: dict[int, int] = {}
    for i, image in enumerate(places[:, 0]):
        turn[i] = seen.get(int(image), 0)
        seen[int(image)] = turn[i] + 1
    return places[np.argsort(turn, kind="stable")[:n]]


def _best_places(
    fitted: Fitted, source: ImageViews, n_patches: int, progress: Progress
) -> list[np.ndarray]:
    """Seek the places (image, y, x, side) of each concept's best patches in `source`."""
    if n_patches == 0 or not source.has_pictures:
        return [np.empty((0, 4), np.int64) for _ in fitted.extractor.components_]
    rows = source.rows(fitted.split, storage="memory", progress=progress)
    U = source.code(rows, fitted.extractor)
    return [source.index[strongest(column, 0.0, 8 * n_patches)] for column in U.T]
