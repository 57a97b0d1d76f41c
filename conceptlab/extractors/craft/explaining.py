"""From a fitted CRAFT and images to an explanation."""

from __future__ import annotations

__all__ = ["explain_craft"]

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError
from conceptlab.explanation import Explanation
from conceptlab.extractors.craft.recursion import strongest
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.maps.concept import check_method
from conceptlab.progress import Progress
from conceptlab.provenance import provenance

if TYPE_CHECKING:
    from conceptlab.extractors.craft.estimator import CRAFT


def explain_craft(
    craft: CRAFT,
    images: Any,
    *,
    target: Any,
    maps: str | None,
    n_maps: int,
    n_patches: int,
    patch_images: Any,
    progress: Progress,
) -> Explanation:
    """Explain the model's answers on `images`; see :meth:`CRAFT.explain`."""
    for name, value in (("n_maps", n_maps), ("n_patches", n_patches)):
        if not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"{name} must be an int >= 0, got {value!r}.", code="CL-INPUT-RANGE")
    if maps is not None:
        check_method(maps)

    def seen(given: Any) -> ImageViews:
        return ImageViews.of(
            given,
            craft.split,
            craft.batch_size,
            patches=craft.patches,
            patch_size=craft.patch_size,
            n_crops=craft.n_crops,
            seed=craft.seed_,
        )

    views = seen(images)
    U, logits = views.coefficients(craft.extractor_, progress=progress)
    target = views.check_target(target, logits)
    importance = craft._importance(
        views, craft.split, craft.extractor_, target, progress, known=(U, logits)
    )
    source = views if patch_images is None else seen(patch_images)
    shown = views.pictures(n_maps)
    pictures, located = np.empty((0, 3, 1, 1), np.float32), None
    if len(shown):
        batch = views.inputs[torch.from_numpy(shown)]
        pictures = as_numpy(batch)
        if maps is not None:
            located = as_numpy(craft.maps(batch, method=maps, progress=progress))
    return Explanation(
        names=list(craft.concept_names_),
        importance=importance,
        images=pictures,
        shown=shown,
        coefficients=U.mean(axis=tuple(range(1, U.ndim - 1))) if U.ndim > 2 else U,
        maps=located,
        patches=[source.crops(rows) for rows in _best_patches(craft, source, n_patches, progress)],
        logits=logits,
        target=target,
        class_names=craft.split.class_names,
        tree=craft.tree_,
        settings=provenance(
            layer=craft.split.layer,
            model=type(craft.split.model).__name__,
            fingerprint=craft.split.fingerprint,
            n_concepts=len(craft.components_),
            patches=craft.patches if views.has_pictures else "none",
            patch_size=craft.patch_size,
            extractor=type(craft.extractor_).__name__,
            maps=maps,
            seed=craft.seed_,
        ),
    )


def _best_patches(
    craft: CRAFT, source: ImageViews, n_patches: int, progress: Progress
) -> list[np.ndarray]:
    """List the places (image, y, x, side) of each concept's best patches in `source`."""
    if source.fingerprint() == craft.images_fingerprint_:
        return [craft.patches_[root.patches[:n_patches]] for root in craft.tree_.roots]
    if n_patches == 0 or not source.has_pictures:
        return [np.empty((0, 4), np.int64) for _ in craft.tree_.roots]
    rows = source.rows(craft.split, storage="memory", progress=progress)
    U = source.code(rows, craft.extractor_)
    return [source.index[strongest(column, 0.0, n_patches)] for column in U.T]
