"""What ranking, growing and explaining need to know of a fitted CRAFT."""

from __future__ import annotations

__all__ = ["Fitted"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.models import SplitModel
from conceptlab.progress import Progress

if TYPE_CHECKING:
    from conceptlab.importance import Importance, SobolImportance


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model, cut, with concepts of its layer.

    Attributes
    ----------
    split : SplitModel
        The model, cut where `extractor` was fitted.
    extractor : ConceptExtractor
        Fitted.
    importance : SobolImportance or None
        How importance is estimated; None for the defaults. It is cloned.
    seed : int
        Of the estimate.
    """

    split: SplitModel
    extractor: ConceptExtractor
    importance: SobolImportance | None
    seed: int

    def importance_of(
        self,
        views: ImageViews,
        target: Any,
        *,
        known: tuple[np.ndarray, np.ndarray] | None = None,
        progress: Progress = None,
    ) -> Importance:
        """Estimate the importance of the concepts on some images.

        Parameters
        ----------
        views : ImageViews
            The images.
        target : int, "predicted", or sequence of int
            The output whose variance is explained.
        known : tuple of numpy.ndarray, optional
            Coefficients (n, *positions, k) and logits (n, n_outputs) of the images, where
            they were computed already.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        Importance
        """
        from conceptlab.importance import HeadOnCoefficients, SobolImportance

        if known is None:
            known = views.coefficients(self.extractor, split=self.split, progress=progress)
        U, logits = known
        estimator = SobolImportance() if self.importance is None else clone(self.importance)
        estimator.set_params(random_state=self.seed)
        head = HeadOnCoefficients.from_extractor(self.split, self.extractor)
        return estimator(head, U, target=views.check_target(target, logits), progress=progress)
