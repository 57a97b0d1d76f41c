"""Reasons and interventions for a head whose concepts are the columns of X."""

from __future__ import annotations

__all__ = ["HeadUse"]

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from bottlenecks.explaining import Contributions
from bottlenecks.intervention import Intervention, InterventionCurve, Subject
from conceptlab.arrays import as_numpy, as_tensor, check_features, like_input, resolve_device
from conceptlab.errors import InputError, unknown_name
from conceptlab.seeds import RandomState
from conceptlab.zeroshot.labels import checked_labels, label_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = ("weights", "waterfall", "intervention")


class HeadUse:
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
    def predict_concepts(self, X: Any) -> Any:
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

    def explain(self, X: Any) -> Contributions:
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
            A, self.coef_, self.intercept_, None, self.concept_names_, self.classes_
        )

    def intervene(
        self,
        X: Any,
        values: Mapping[str, Any] | Any,
        *,
        policy: Any = "uncertainty",
        budget: int | None = None,
        y: Any = None,
        random_state: RandomState = 0,
    ) -> Intervention:
        """Set concepts by hand and see what the classes become.

        Parameters
        ----------
        X : array-like of shape (n, M)
        values : mapping of str to value, or array of shape (n, M)
            In units of the columns; True and False stand for ``activation_levels_``.
        policy, budget, y, random_state
            See :meth:`bottlenecks.ConceptBottleneck.intervene`.

        Returns
        -------
        Intervention

        Raises
        ------
        InputError
            A concept that is not there, values of another shape, NaN, a budget out of range.
        """
        codes = None if y is None else self._codes(y, X)
        return self._subject(X, values, codes).intervene(policy, budget, random_state)

    def intervention_curve(
        self,
        X: Any,
        C: Any,
        y: Any,
        *,
        policy: Any = "uncertainty",
        budget: int | None = None,
        hindsight: bool = False,
        random_state: RandomState = 0,
    ) -> InterventionCurve:
        """Measure accuracy and log-loss while concepts are set to the truth one by one.

        Parameters
        ----------
        X : array-like of shape (n, M)
        C : array of shape (n, M), or mapping of str to array of shape (n,)
            True concepts: booleans, integers 0 and 1, or columns as floats.
        y : array-like of shape (n,)
            True classes.
        policy, budget, hindsight, random_state
            See :meth:`bottlenecks.ConceptBottleneck.intervention_curve`.

        Returns
        -------
        InterventionCurve
        """
        codes = self._codes(y, X)
        subject = self._subject(X, C, codes if hindsight else None, presence=True)
        return subject.curve(codes, policy, budget, random_state)

    def plot(
        self,
        kind: str = "weights",
        X: Any = None,
        C: Any = None,
        y: Any = None,
        *,
        sample: int = 0,
        top: int = 12,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the weights, one row's reasons, or an intervention curve.

        Parameters
        ----------
        kind : {"weights", "waterfall", "intervention"}
        X : array-like of shape (n, M), optional
            For a waterfall and a curve.
        C, y : optional
            For a curve; see :meth:`intervention_curve`.
        sample : int
            Row of the waterfall.
        top : int
            So many concepts.
        ax : matplotlib.axes.Axes, optional

        Returns
        -------
        matplotlib.axes.Axes
        """
        check_is_fitted(self)
        if kind not in _KINDS:
            raise unknown_name("kind of plot", kind, _KINDS)
        if kind == "weights":
            from conceptlab.plot.bottlenecks import weight_map

            return weight_map(self.coef_, self.concept_names_, self.classes_, top=top, ax=ax)
        if X is None or (kind == "intervention" and (C is None or y is None)):
            needs = "X" if kind == "waterfall" else "X, C and y"
            raise InputError(f"plot({kind!r}) needs {needs}.", code="CL-INPUT-EMPTY")
        if kind == "waterfall":
            return self.explain(X).plot(sample, top=top, ax=ax)
        return self.intervention_curve(X, C, y).plot(ax=ax)

    def _subject(
        self, X: Any, values: Any, codes: np.ndarray | None, *, presence: bool = False
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
            limits=self.activation_range_,
            concept_names=self.concept_names_,
            classes=self.classes_,
            y=codes,
            presence=presence,
        )

    def _codes(self, y: Any, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return label_columns(checked_labels(y, X), self.classes_)
