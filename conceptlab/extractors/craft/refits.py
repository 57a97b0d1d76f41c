"""The fit again on resamples of the images: how stable is each concept, and its importance?"""

from __future__ import annotations

__all__ = ["Refit", "over_refits", "refit"]

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.craft.fitted import Fitted
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.extractors.matching import match_concepts
from conceptlab.progress import Progress, track

if TYPE_CHECKING:
    from conceptlab.importance import Importance

_ROWS = 8192  # of a resample that a refit sees


@dataclass(frozen=True, eq=False)
class Refit:
    """One fit on a resample.

    Attributes
    ----------
    extractor : ConceptExtractor
        Fitted.
    order : numpy.ndarray of shape (k,)
        Its concept that is matched to each of the first fit's.
    cosine : numpy.ndarray of shape (k,)
        How alike the two are.
    counts : numpy.ndarray of shape (n_images,)
        How often each image is in the resample.
    """

    extractor: ConceptExtractor
    order: np.ndarray
    cosine: np.ndarray
    counts: np.ndarray


def refit(
    fitted: Fitted, rows: Any, image: np.ndarray, n_refits: int, progress: Progress = None
) -> list[Refit]:
    """Draw images with replacement, factorise their rows anew, and match the concepts.

    Parameters
    ----------
    fitted : Fitted
        The first fit; its extractor is cloned, with another seed each time.
    rows : numpy.ndarray of shape (n_rows, p), or ActivationStore
        The rows of the first fit. A refit sees at most 8192 of a resample.
    image : numpy.ndarray of shape (n_rows,)
        The image of each row: rows of one image are no independent samples.
    n_refits : int
        How often.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    list of Refit
    """
    found, seed = fitted.extractor, fitted.seed
    _, place = np.unique(image, return_inverse=True)
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    made = []
    for number in track(range(n_refits), description="fit again", progress=progress, unit="fit"):
        generator = np.random.default_rng([seed, 3, number])
        drawn = generator.integers(len(members), size=len(members))
        chosen = np.concatenate([members[i] for i in drawn])
        if len(chosen) > _ROWS:
            chosen = generator.choice(chosen, _ROWS, replace=False)
        again = clone(found).set_params(n_concepts=len(found.components_))
        if "random_state" in again.get_params():
            again.set_params(random_state=seed + 1 + number)
        again.fit(np.asarray(rows[np.sort(chosen)]))
        order, cosine = match_concepts(
            found.components_, again.components_, signed=not _free_signs(found)
        )
        counts = np.bincount(drawn, minlength=len(members))
        made.append(Refit(again, order, cosine, counts))
    return made


def over_refits(
    found: Importance, refits: list[Refit], fitted: Fitted, views: ImageViews, rows: Any
) -> Importance:
    """Give intervals of global importances that cover the choice of the concepts too.

    Parameters
    ----------
    found : Importance
        Of the first fit.
    refits : list of Refit
        From :func:`refit`.
    fitted : Fitted
        The first fit.
    views : ImageViews
        The images of the fit.
    rows : numpy.ndarray or ActivationStore
        The rows of the fit.

    Returns
    -------
    Importance
        `found` with quantiles, over the refits, of the mean importance of matched concepts.
    """
    A = views.activations() if views.positions is None else np.asarray(rows[:])
    if views.positions is not None:
        A = A.reshape(len(views), *views.positions, A.shape[-1])
    means = []
    for again in refits:
        U = np.asarray(again.extractor.transform(A.reshape(-1, A.shape[-1])))
        other = replace(fitted, extractor=again.extractor)
        coded = other.code(views, known=(U.reshape(*A.shape[:-1], -1), A), progress=False)
        values = other.importance_of(coded, found.target, progress=False).values
        means.append((again.counts / again.counts.sum()) @ values[:, again.order])
    tail = (1 - found.confidence) / 2
    interval = np.quantile(means, [tail, 1 - tail], axis=0, method="weibull").T
    return replace(found, interval=np.ascontiguousarray(interval))


def _free_signs(extractor: ConceptExtractor) -> bool:
    from conceptlab.extractors.linear import ICAConcepts, PCAConcepts

    return isinstance(extractor, PCAConcepts | ICAConcepts)
