"""Images in front of any feature estimator."""

from __future__ import annotations

__all__ = ["EncodeImages"]

import functools
import os
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from conceptlab.arrays import ArrayLike
from conceptlab.batching import AutoInt
from conceptlab.datasets.sources import Images
from conceptlab.encoders.base import Encoder
from conceptlab.encoders.cache import EmbeddingCache, as_cache
from conceptlab.encoders.registry import load_encoder
from conceptlab.progress import Progress


class EncodeImages(TransformerMixin, BaseEstimator):
    """Turn images into an encoder's vectors, as the first step of a pipeline.

    Nothing is fitted. A clone keeps the very encoder, so that a grid search
    holds its weights once.

    Parameters
    ----------
    encoder : Encoder or str
        Or a name for :func:`conceptlab.load_encoder`, loaded when first used.
    normalize : bool
        Whether vectors get length one.
    batch_size : int or "auto"
        Images a pass.
    cache : EmbeddingCache or path-like, optional
        Where vectors are kept; in a grid search every image is then encoded once.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from conceptlab.encoders import CallableEncoder
    >>> encoder = CallableEncoder(lambda x: x.mean(dim=(2, 3)), dim=3)
    >>> images = np.zeros((4, 3, 8, 8), dtype=np.uint8)
    >>> images[2:, 0] = 255
    >>> pipe = make_pipeline(EncodeImages(encoder), LogisticRegression())
    >>> pipe.fit(images, [0, 0, 1, 1]).predict(images).tolist()
    [0, 0, 1, 1]
    """

    def __init__(
        self,
        encoder: Encoder | str = "embedded",
        *,
        normalize: bool = True,
        batch_size: AutoInt = "auto",
        cache: EmbeddingCache | str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.normalize = normalize
        self.batch_size = batch_size
        self.cache = cache
        self.progress = progress

    def fit(self, X: Images, y: ArrayLike | None = None) -> EncodeImages:
        """Do nothing; for pipelines."""
        return self

    def transform(self, X: Images) -> Any:
        """Encode images.

        Parameters
        ----------
        X : array-like of images, channels first
            See :func:`conceptlab.datasets.as_image_batch`.

        Returns
        -------
        array of shape (n, d)
            Like in, like out; see :meth:`Encoder.encode_image`.
        """
        encoder = self._resolved()
        options = {"normalize": self.normalize, "batch_size": self.batch_size}
        if self.cache is None:
            return encoder.encode_image(X, progress=self.progress, **options)
        return as_cache(self.cache).encode_image(encoder, X, progress=self.progress, **options)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the vector's entries ``encodeimages0``, ``encodeimages1``, ..."""
        return np.array([f"encodeimages{i}" for i in range(self._resolved().dim)], dtype=object)

    def _resolved(self) -> Any:
        return (
            _loaded(self.encoder) if isinstance(self.encoder, str) else load_encoder(self.encoder)
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


@functools.lru_cache(maxsize=2)
def _loaded(name: str) -> Any:
    return load_encoder(name)
