"""What CRAFT does after its factorisation: importance, and the recursion to a tree."""

from __future__ import annotations

__all__ = ["grow_tree"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.explanation.mixing import MixingTest
from conceptlab.explanation.tree import ConceptNode, ConceptTree
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.craft.recursion import Recursion, earlier_layers, strongest
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.progress import Progress

if TYPE_CHECKING:
    from conceptlab.extractors.craft.estimator import CRAFT, Target

_CHILD_IMAGES = 32  # of which a child's importance is told: the rest of the model is most of it


def grow_tree(
    craft: CRAFT, views: ImageViews, target: Target, progress: Progress, *, rows: Any
) -> None:
    """Rank the concepts of a factorisation that was just made, and divide those that mix.

    Parameters
    ----------
    craft : CRAFT
        Gets ``tree_`` and, with a target, ``importance_`` and ``importances_``.
    views : ImageViews
        The images of the fit.
    target : optional
        What is ranked for; None ranks and divides nothing.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.
    rows : numpy.ndarray or ActivationStore
        The rows of the fit.
    """
    roots = []
    for i, name in enumerate(craft.concept_names_):
        best = strongest(craft.patch_coefficients_[:, i], 0.9, craft.max_patches)
        roots.append(
            ConceptNode(
                name,
                craft.split.layer,
                craft.components_[i],
                patches=best,
                coefficients=craft.patch_coefficients_[best, i],
            )
        )
    craft.tree_ = ConceptTree(craft.split.layer, roots)
    if target is None:
        return
    if views.positions is not None and isinstance(rows, np.ndarray):
        # The rows are the whole images' activations: neither g nor coding runs twice.
        sizes = (len(views), *views.positions)
        U, logits = craft.patch_coefficients_.reshape(*sizes, -1), views.answers_to(rows)
    else:
        U, logits = views.coefficients(craft.extractor_, progress=progress)
    target = views.check_target(target, logits)
    craft.importance_ = craft._importance(
        views, craft.split, craft.extractor_, target, progress, known=(U, logits)
    )
    craft.importances_ = np.asarray(craft.importance_.mean)
    for root, value, interval in zip(
        roots, craft.importances_, np.asarray(craft.importance_.interval), strict=True
    ):
        root.importance = float(value)
        root.interval = (float(interval[0]), float(interval[1]))
    if craft.depth > 0:
        _recurse(craft, views, roots, target)


def _recurse(craft: CRAFT, views: ImageViews, roots: list[ConceptNode], target: np.ndarray) -> None:
    layers = (
        list(craft.layers)
        if craft.layers is not None
        else earlier_layers(craft.split, views.model_input(1))
    )
    splits = {layer: craft.split.at_layer(layer) for layer in layers[: craft.depth]}

    def importance_at(
        layer: str, extractor: ConceptExtractor, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        # The head of an earlier layer is most of the model: some images must do.
        _, first = np.unique(craft.patches_[rows, 0], return_index=True)
        images = craft.patches_[rows, 0][np.sort(first)][:_CHILD_IMAGES]
        part = views.subset(images)
        found = craft._importance(
            part, splits[layer], extractor, target[part.places], progress=False
        )
        return np.asarray(found.mean), np.asarray(found.interval)

    Recursion(
        layers=layers,
        rows_at=lambda layer, rows: views.rows_of(splits[layer], craft.patches_[rows]),
        importance_at=importance_at,
        extractor=craft._factoriser(craft.seed_),
        n_children=craft.n_children,
        decide=_decide(craft, len(roots)),
        quantile=0.9,
        limit=craft.max_patches,
        seed=craft.seed_,
    ).refine(roots, craft.depth)


def _decide(craft: CRAFT, n_roots: int) -> Callable[[ConceptNode, MixingTest], bool]:
    if callable(craft.split_when):
        return craft.split_when
    if craft.split_when == "auto":
        return lambda node, test: test.mixes(craft.alpha / max(n_roots, 1))
    named = {f"concept {int(i)}" for i in craft.split_when}
    return lambda node, test: node.name in named
