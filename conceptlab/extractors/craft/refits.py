"""The fit again on resamples of the images: how stable is each concept, and its importance?"""

from __future__ import annotations

__all__ = ["Refit", "refit", "refit_interval"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.matching import match_concepts
from conceptlab.progress import Progress, track

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
    found: ConceptExtractor,
    rows: Any,
    image: np.ndarray,
    *,
    n_refits: int,
    seed: int,
    progress: Progress = None,
) -> list[Refit]:
    """Draw images with replacement, factorise their rows anew, and match the concepts.

    Parameters
    ----------
    found : ConceptExtractor
        The first fit; cloned, with another seed each time.
    rows : numpy.ndarray of shape (n_rows, p), or ActivationStore
        The rows of the first fit. A refit sees at most 8192 of a resample.
    image : numpy.ndarray of shape (n_rows,)
        The image of each row: rows of one image are no independent samples.
    n_refits : int
        How often.
    seed : int
        Of the resamples and the fits.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    list of Refit
    """
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


def refit_interval(
    refits: list[Refit], values_of: Callable[[ConceptExtractor], np.ndarray], confidence: float
) -> np.ndarray:
    """Give intervals of global importances that cover the choice of the concepts too.

    Parameters
    ----------
    refits : list of Refit
        From :func:`refit`.
    values_of : callable
        Maps a fitted extractor to local importances (n_images, k).
    confidence : float
        Level.

    Returns
    -------
    numpy.ndarray of shape (k, 2)
        Quantiles over the refits of the mean importance of the matched concepts.
    """
    means = [
        (again.counts / again.counts.sum()) @ values_of(again.extractor)[:, again.order]
        for again in refits
    ]
    tail = (1 - confidence) / 2
    return np.ascontiguousarray(np.quantile(means, [tail, 1 - tail], axis=0, method="weibull").T)


def _free_signs(extractor: ConceptExtractor) -> bool:
    from conceptlab.extractors.linear import ICAConcepts, PCAConcepts

    return isinstance(extractor, PCAConcepts | ICAConcepts)
