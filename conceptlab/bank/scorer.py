"""Concept scores as a step of a pipeline."""

from __future__ import annotations

__all__ = ["BankScorer"]

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, check_features, like_input
from conceptlab.bank.core import SIMILARITIES, ConceptBank, Similarity
from conceptlab.errors import InputError, unknown_name


class BankScorer(TransformerMixin, BaseEstimator):
    """Turn an encoder's vectors into concept scores, as a step of a pipeline.

    Parameters
    ----------
    bank : ConceptBank, optional
        None passes features through.
    similarity : {"affine", "dot", "cosine"}
        See :meth:`ConceptBank.score`.

    Attributes
    ----------
    n_features_in_ : int

    Examples
    --------
    >>> from conceptlab import ConceptBank
    >>> bank = ConceptBank(np.eye(3)[:2], ["round", "red"], space=None)
    >>> scorer = BankScorer(bank).fit(np.ones((4, 3)))
    >>> scorer.transform(np.ones((1, 3))), scorer.get_feature_names_out().tolist()
    (array([[1., 1.]]), ['round', 'red'])
    """

    def __init__(
        self, bank: ConceptBank | None = None, *, similarity: Similarity = "affine"
    ) -> None:
        self.bank = bank
        self.similarity = similarity

    def fit(self, X: ArrayLike, y: Any = None) -> BankScorer:
        """Check that features fit the bank.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : object
            Not used.

        Returns
        -------
        BankScorer
        """
        if self.similarity not in SIMILARITIES:
            raise unknown_name("similarity", self.similarity, SIMILARITIES)
        if self.bank is not None and not isinstance(self.bank, ConceptBank):
            raise InputError(
                f"bank must be a ConceptBank or None, got {type(self.bank).__name__}.",
                code="CL-INPUT-TYPE",
            )
        matrix = check_features(self, X, reset=True)
        if self.bank is not None and matrix.shape[1] != self.bank.n_features:
            raise InputError(
                f"X has {matrix.shape[1]} features, but the vectors of the bank have length "
                f"{self.bank.n_features}. Encode with the encoder that the bank was made with.",
                code="CL-INPUT-FEATURES",
            )
        return self

    @like_input
    def transform(self, X: ArrayLike) -> Any:
        """Score each row on each concept.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, k)
            Like in, like out; a copy of X without a bank.
        """
        check_is_fitted(self)
        matrix = check_features(self, X, reset=False)
        if self.bank is None:
            return matrix.clone() if isinstance(matrix, torch.Tensor) else matrix.copy()
        return self.bank.score(matrix, similarity=self.similarity)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the concepts, or of the features without a bank."""
        check_is_fitted(self)
        if self.bank is not None:
            return np.array(self.bank.names, dtype=object)
        known = getattr(self, "feature_names_in_", None)
        if input_features is None:
            input_features = (
                known if known is not None else [f"x{i}" for i in range(self.n_features_in_)]
            )
        names = np.asarray(input_features, dtype=object)
        if len(names) != self.n_features_in_ or (
            known is not None and not np.array_equal(names, known)
        ):
            raise ValueError("input_features is not equal to feature_names_in_, or of other length")
        return names

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")
