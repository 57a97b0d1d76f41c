"""Reasons and interventions for a head whose concepts are the columns of X."""

from __future__ import annotations

__all__ = ["HeadUse"]

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from bottlenecks.explaining import Contributions
from bottlenecks.reasons import LinearReasons
from bottlenecks.subject import Subject
from bottlenecks.targets import Predicting
from conceptlab.arrays import (
    ArrayLike,
    as_numpy,
    as_tensor,
    check_features,
    like_input,
    resolve_device,
)


class HeadUse(Predicting, LinearReasons):
    """What :class:`bottlenecks.SparseLinearHead` says beside its predictions."""

    device: str | torch.device
    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    activation_levels_: np.ndarray
    activation_range_: np.ndarray
    n_features_in_: int

    @property
    def concept_names_(self) -> list[str]:
        """Names of the columns where X has them, else concept0, concept1, ..."""
        check_is_fitted(self)
        known = getattr(self, "feature_names_in_", None)
        if known is not None:
            return [str(name) for name in known]
        return [f"concept{i}" for i in range(self.n_features_in_)]

    @like_input
    def predict_concepts(self, X: ArrayLike) -> Any:
        """Give what ``coef_`` acts on: the columns as they are.

        Parameters
        ----------
        X : array-like of shape (n, M)

        Returns
        -------
        array of shape (n, M)
            Like in, like out.
        """
        check_is_fitted(self)
        given = check_features(self, X, reset=False)
        return as_tensor(given, device=resolve_device(self.device, like=given)).clone()

    def explain(self, X: ArrayLike) -> Contributions:
        """Take the logits apart by concept.

        Parameters
        ----------
        X : array-like of shape (n, M)

        Returns
        -------
        Contributions
            Weight times column; with the bias they add up to the logit.
        """
        A = as_numpy(self.predict_concepts(X)).astype(np.float64)
        return Contributions(
            A, self.coef_, self.intercept_, None, self.concept_names_, self.outputs_
        )

    def _subject(
        self,
        X: Any,
        values: Any,
        codes: np.ndarray | None,
        *,
        presence: bool = False,
        from_rows: bool = False,
    ) -> Subject:
        A = as_numpy(self.predict_concepts(X)).astype(np.float64)
        low, high = self.activation_levels_.T
        width = np.where(high > low, high - low, 1.0)
        return Subject.of(
            values,
            activations=A,
            logits=A @ self.coef_.T + self.intercept_,
            uncertainty=-np.abs(A - (low + high) / 2) / width,
            coef=self.coef_,
            levels=self.activation_levels_,
            covariance=getattr(self, "activation_covariance_", None),
            limits=self.activation_range_,
            concept_names=self.concept_names_,
            classes=self.outputs_,
            y=codes,
            presence=presence,
            from_rows=from_rows,
        )
