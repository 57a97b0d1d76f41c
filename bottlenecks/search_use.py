"""Reasons and interventions for Concept Matrix Search, whose decision is linear in the scores.

The length of a row of V is the same for all classes, so the class of the largest cosine is
that of the largest ``V_i · T_c / |T_c|``: a linear head with the unit rows of T as weights.
"""

from __future__ import annotations

__all__ = ["SearchUse"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from bottlenecks.explaining import Contributions
from bottlenecks.intervention import Intervention
from bottlenecks.reasons import LinearReasons
from bottlenecks.subject import Subject
from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState

if TYPE_CHECKING:
    from conceptlab import ConceptBank


class SearchUse(LinearReasons):
    """What :class:`bottlenecks.ConceptMatrixSearch` says beside its predictions."""

    rule: str
    bank: ConceptBank | None
    classes_: np.ndarray
    class_scores_: np.ndarray
    concept_names_: tuple[str, ...]

    @property
    def outputs_(self) -> np.ndarray:
        """Names of the outputs: the classes."""
        check_is_fitted(self)
        return self.classes_

    def predict_concepts(self, X: ArrayLike) -> Any:
        """Give V; see the subclass."""
        raise NotImplementedError

    def explain(self, X: ArrayLike) -> Contributions:
        """Take the score of every class apart by concept.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        Contributions
            They add up to the cosine, or for ``rule="max"`` to the class's score on the one
            concept that decides. Activations are unit rows of V (of its cubes, for
            ``rule="cubed"``); for ``"max"`` 1 at the strongest concept.
        """
        check_is_fitted(self)
        V = as_numpy(self.predict_concepts(X)).astype(np.float64)
        if self.rule == "max":
            top = V.max(axis=1, keepdims=True)
            ties = top - 1e-12 * np.abs(V).max(axis=1, keepdims=True) <= V
            activations = np.zeros_like(V)
            activations[np.arange(len(V)), ties.argmax(axis=1)] = 1.0
            weights = self.class_scores_
        else:
            activations, weights = self._unit(V), self._unit(self.class_scores_)
        return Contributions(
            activations=activations,
            coef=weights,
            bias=np.zeros(len(weights)),
            residual=None,
            concept_names=list(self.concept_names_),
            classes=self.classes_,
        )

    def intervene(
        self,
        X: ArrayLike,
        values: Mapping[str, Any] | Any,
        *,
        policy: Any = "uncertainty",
        budget: float | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        costs: Mapping[str, float] | None = None,
        realign: bool | str = False,
        y: ArrayLike | None = None,
        random_state: RandomState = 0,
    ) -> Intervention:
        """Set concept scores by hand and see what the classes become.

        Parameters
        ----------
        X : array-like of shape (n, d)
        values : mapping of str to value, or array of shape (n, k)
            In units of :meth:`predict_concepts`; True and False stand for the largest and the
            smallest score that a class has on the concept.
        policy, budget, groups, costs, y, random_state
            See :meth:`bottlenecks.Bottleneck.intervene`.
        realign : bool
            False; there is no fit that could say how scores err together.

        Returns
        -------
        Intervention
            Its logits are cosines times the length of the row of V, which rank classes alike.
            ``outside`` marks values beyond those of all classes.

        Raises
        ------
        InputError
            ``rule="max"``, where one concept decides and the rest cannot be set apart from it;
            a concept that is not there, values of another shape, NaN, a budget out of range.
        """
        found = super().intervene(
            X,
            values,
            policy=policy,
            budget=budget,
            groups=groups,
            costs=costs,
            realign=realign,
            y=y,
            random_state=random_state,
        )
        if self.rule != "cubed":
            return found
        return replace(
            found,
            activations=np.cbrt(found.activations),
            activations_before=np.cbrt(found.activations_before),
        )

    def explain_weights(self) -> np.ndarray:
        """Give what a class's score weighs concepts with, (K, M): T, in unit rows but for "max"."""
        check_is_fitted(self)
        return self.class_scores_.copy() if self.rule == "max" else self._unit(self.class_scores_)

    def _shown_weights(self) -> np.ndarray:
        return self.explain_weights()

    def _subject(
        self,
        X: Any,
        values: Any,
        codes: np.ndarray | None,
        *,
        presence: bool = False,
        from_rows: bool = False,
    ) -> Subject:
        check_is_fitted(self)
        if self.rule == "max":
            raise InputError(
                "With rule='max' the strongest concept alone decides, so single concepts cannot "
                "be set. Take rule='similarity' or 'cubed'.",
                code="CL-INPUT-OPTION",
            )
        V = as_numpy(self.predict_concepts(X)).astype(np.float64)
        T = self.class_scores_
        levels = np.stack([T.min(axis=0), T.max(axis=0)], axis=1)
        low, high = levels.T
        width = np.where(high > low, high - low, 1.0)
        subject = Subject.of(
            values,
            activations=V,
            logits=self._powers(V) @ self._unit(T).T,
            uncertainty=-np.abs(V - (low + high) / 2) / width,
            coef=self._unit(T),
            levels=levels,
            limits=levels,
            concept_names=self.concept_names_,
            classes=self.classes_,
            y=codes,
            presence=presence,
            from_rows=from_rows,
        )
        # The head is linear in the cubes, which keep the order of values.
        return replace(
            subject,
            activations=self._powers(V),
            values=self._powers(subject.values),
            levels=self._powers(levels),
            limits=self._powers(levels),
        )

    def _powers(self, scores: np.ndarray) -> np.ndarray:
        return scores**3 if self.rule == "cubed" else scores

    def _unit(self, scores: np.ndarray) -> np.ndarray:
        """Scale rows (or their cubes) to unit length; rows of zeros stay."""
        largest = np.abs(scores).max(axis=1, keepdims=True)
        rows = self._powers(scores / np.where(largest > 0, largest, 1.0))
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: np.ndarray = rows / np.where(lengths > 0, lengths, 1.0)
        return unit
