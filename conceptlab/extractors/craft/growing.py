"""What CRAFT does after its factorisation: a tree of concepts, ranked, and divided where mixed."""

from __future__ import annotations

__all__ = ["carrying", "code_fit", "divide", "factorise", "plant"]

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError
from conceptlab.explanation.mixing import MixingTest
from conceptlab.explanation.tree import ConceptNode, ConceptTree
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.craft.coded import Coded, code_images
from conceptlab.extractors.craft.fitted import Fitted
from conceptlab.extractors.craft.recursion import Recursion, earlier_layers, strongest
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.models import SplitModel
from conceptlab.progress import Progress

if TYPE_CHECKING:
    from conceptlab.importance import Decision

_CHILD_IMAGES = 32  # of which a child's importance is told: the rest of the model is most of it


def factorise(extractor: Any, rows: Any) -> None:
    """Fit an extractor on the rows of a fit, which may be a store on disk."""
    if isinstance(rows, np.ndarray):
        extractor.fit(rows)
    elif hasattr(extractor, "fit_batches"):
        extractor.fit_batches(rows, progress=False)
    else:
        raise InputError(
            f"storage='disk' needs an extractor that can stream (fit_batches), and "
            f"{type(extractor).__name__} cannot. Use NMFConcepts, or storage='memory'.",
            code="CL-INPUT-OPTION",
        )


def plant(
    fitted: Fitted, names: Sequence[str], coefficients: np.ndarray, limit: int
) -> ConceptTree:
    """Make the roots of a tree, not ranked yet.

    Parameters
    ----------
    fitted : Fitted
        The factorisation.
    names : sequence of str
        One a concept.
    coefficients : numpy.ndarray of shape (n_rows, k)
        U of the factorised rows.
    limit : int
        The most rows that stand for a concept.

    Returns
    -------
    ConceptTree
    """
    layer, vectors = fitted.split.layer, np.asarray(fitted.extractor.components_)
    roots = []
    for name, vector, column in zip(names, vectors, coefficients.T, strict=True):
        best = strongest(column, 0.9, limit)
        roots.append(ConceptNode(name, layer, vector, patches=best, coefficients=column[best]))
    return ConceptTree(layer, roots)


def code_fit(
    fitted: Fitted,
    views: ImageViews,
    *,
    rows: ArrayLike,
    coefficients: np.ndarray,
    progress: Progress,
) -> Coded:
    """Code the images of a fit that was just made, without passes that were made for it.

    Parameters
    ----------
    fitted : Fitted
        The factorisation.
    views : ImageViews
        The images of the fit.
    rows : numpy.ndarray or ActivationStore
        The rows of the fit.
    coefficients : numpy.ndarray of shape (n_rows, k)
        U of those rows.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    Coded
    """
    known = None
    if views.positions is not None and isinstance(rows, np.ndarray):
        # The rows are the whole images' activations: neither g nor coding runs twice.
        sizes = (len(views), *views.positions)
        known = coefficients.reshape(*sizes, -1), rows.reshape(*sizes, -1)
    return fitted.code(views, known=known, progress=progress)


def carrying(
    split: SplitModel, factoriser: ConceptExtractor, rows: Any, views: ImageViews, least: int
) -> int:
    """Ask for more concepts, up to four times as many, until they carry the model's decision.

    Parameters
    ----------
    split : SplitModel
        The model, cut.
    factoriser : ConceptExtractor
        Cloned for each try.
    rows : numpy.ndarray or ActivationStore
        The rows of the fit, of which a sample is factorised.
    views : ImageViews
        The images of the fit, of which at most 64 are asked.
    least : int
        The number to begin with.

    Returns
    -------
    int
        `least` where more does not help.
    """
    sample = views.sample(rows, 0)
    places = np.unique(np.linspace(0, len(views) - 1, min(64, len(views))).round().astype(int))
    some = views.subset(views.chosen[places])
    for k in (least, 2 * least, 4 * least):
        if k > min(sample.shape):
            break
        tried = clone(factoriser).set_params(n_concepts=k).fit(sample)
        if code_images(some, split, tried).decision.carries:
            return k
    return least


def divide(
    fitted: Fitted,
    tree: ConceptTree,
    views: ImageViews,
    target: np.ndarray,
    *,
    patches: np.ndarray,
    layers: Sequence[str] | None,
    depth: int,
    factoriser: ConceptExtractor,
    n_children: int,
    split_when: Any,
    alpha: float,
    limit: int,
) -> None:
    """Refactorise the concepts that mix two things at earlier layers; they get children.

    Parameters
    ----------
    fitted : Fitted
        The factorisation.
    tree : ConceptTree
        With its roots ranked; its nodes get tests and children, or it gets the power of tests
        that found nothing.
    views : ImageViews
        The images of the fit.
    target : numpy.ndarray of shape (n,)
        What is ranked for, image by image.
    patches : numpy.ndarray of shape (n_rows, 4)
        Image, y, x and side of the rows that nodes name.
    layers : sequence of str or None
        Earlier layers, the latest first; None finds them.
    depth : int
        The most levels.
    factoriser : ConceptExtractor
        Cloned for each refinement.
    n_children : int
        Concepts of a refinement.
    split_when, alpha
        As for :class:`CRAFT`.
    limit : int
        The most rows that stand for a concept.
    """
    if layers is None:
        layers = earlier_layers(fitted.split, views.model_input(1))

    @cache
    def split_at(layer: str) -> SplitModel:
        return fitted.split if layer == fitted.split.layer else fitted.split.at_layer(layer)

    for layer in layers[:depth]:  # a wrong one is told before anything is tested
        split_at(layer)

    def importance_at(
        layer: str, extractor: ConceptExtractor, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Decision]:
        # The head of an earlier layer is most of the model: some images must do.
        _, first = np.unique(patches[rows, 0], return_index=True)
        part = views.subset(patches[rows, 0][np.sort(first)][:_CHILD_IMAGES])
        below = replace(fitted, split=split_at(layer), extractor=extractor)
        coded = below.code(part, progress=False)
        found = below.importance_of(coded, target[part.places], progress=False)
        return np.asarray(found.mean), np.asarray(found.interval), coded.decision

    recursion = Recursion(
        layers=list(layers),
        rows_at=lambda layer, rows: views.rows_of(split_at(layer), patches[rows]),
        importance_at=importance_at,
        extractor=factoriser,
        n_children=n_children,
        decide=_rule_of(split_when, alpha, len(tree.roots)),
        quantile=0.9,
        limit=limit,
        seed=fitted.seed,
    )
    # Where the user decides, the first of the layers is looked at, whatever it shows.
    power = None
    if isinstance(split_when, str):
        power = recursion.begin(tree.roots, fitted.split.layer)
    recursion.refine(tree.roots, depth)
    if tree.depth == 0:
        tree.power = power
        tree.looked_at = recursion.layers[0] if recursion.layers else None


def _rule_of(
    split_when: Any, alpha: float, n_roots: int
) -> Callable[[ConceptNode, MixingTest], bool]:
    """Turn the parameter `split_when` of CRAFT into ``decide(node, test) -> bool``."""
    if callable(split_when):
        rule: Callable[[ConceptNode, MixingTest], bool] = split_when
        return rule
    if isinstance(split_when, str):
        return lambda node, test: test.mixes(alpha / max(n_roots, 1))
    named = {f"concept {int(i)}" for i in split_when}
    return lambda node, test: node.name in named
