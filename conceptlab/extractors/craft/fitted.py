"""What ranking, growing and explaining need to know of a fitted CRAFT."""

from __future__ import annotations

__all__ = ["Fitted"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import clone

from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.craft.coded import Coded, code_images
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

    def code(
        self,
        views: ImageViews,
        *,
        known: tuple[np.ndarray, np.ndarray] | None = None,
        progress: Progress = None,
    ) -> Coded:
        """Code whole images; see :func:`code_images`. Activations stay where a rest is kept."""
        keep = self.importance is not None and self.importance.remainder != "drop"
        return code_images(
            views, self.split, self.extractor, known=known, keep=keep, progress=progress
        )

    def importance_of(
        self, coded: Coded, target: np.ndarray, *, progress: Progress = None
    ) -> Importance:
        """Estimate the importance of the concepts on images that were coded.

        Parameters
        ----------
        coded : Coded
            From :meth:`code`.
        target : numpy.ndarray of shape (n,)
            The output whose variance is explained, image by image.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        Importance
        """
        from conceptlab.importance import HeadOnCoefficients, SobolImportance

        estimator = SobolImportance() if self.importance is None else clone(self.importance)
        estimator.set_params(random_state=self.seed)
        head = HeadOnCoefficients.from_extractor(self.split, self.extractor)
        return estimator(
            head,
            coded.U,
            target=target,
            activations=coded.activations,
            inputs=coded.inputs,
            progress=progress,
        )
