"""Interventions, curves and plots of a decision that is linear in named concepts."""

from __future__ import annotations

__all__ = ["LinearReasons"]

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from bottlenecks.explaining import Contributions
from bottlenecks.intervention import Intervention, InterventionCurve
from bottlenecks.seen import share_seen
from bottlenecks.subject import Moves, Subject
from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import OneOf
from conceptlab.seeds import RandomState
from conceptlab.zeroshot.labels import checked_labels, label_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SEEN = 0.1  # share of rows of the fit above which a curve warns
_KINDS = ("weights", "waterfall", "intervention")


class LinearReasons:
    """What every classifier through concepts says beside its predictions.

    A subclass writes :meth:`explain` and :meth:`_subject`, and :meth:`_shown_weights` where its
    weights are not ``coef_``.
    """

    classes_: np.ndarray
    coef_: np.ndarray
    if TYPE_CHECKING:

        @property
        def outputs_(self) -> np.ndarray:
            """Names of the outputs."""

        @property
        def concept_names_(self) -> Sequence[str]:
            """Names of the concepts, in the order of the weights' columns."""

    def explain(self, X: ArrayLike) -> Contributions:
        """Take the logits apart by concept.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        Contributions
        """
        raise NotImplementedError

    def _subject(
        self,
        X: Any,
        values: Any,
        codes: np.ndarray | None,
        *,
        presence: bool = False,
        from_rows: bool = False,
    ) -> Subject:
        raise NotImplementedError

    def _shown_weights(self) -> np.ndarray:
        return self.coef_

    def intervene(
        self,
        X: Any,
        values: Mapping[str, Any] | Any,
        *,
        policy: Any = "uncertainty",
        budget: float | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        costs: Mapping[str, float] | None = None,
        realign: bool | str = False,
        y: Any = None,
        random_state: RandomState = 0,
    ) -> Intervention:
        """Set concepts by hand and see what the classes become.

        Parameters
        ----------
        X : array-like of shape (n, d)
        values : mapping of str to value, or array of shape (n, k)
            By concept a number, or one a row, in units of ``predict_concepts``; True and
            False stand for the levels "present" and "absent" (``activation_levels_``).
        policy : {"uncertainty", "random", "gain"} or callable
            In which order a row's concepts are set; see :mod:`bottlenecks.intervention`.
        budget : int or float, optional
            Concepts (groups) to set in each row, or with `costs` what they may cost together;
            all that are given by default.
        groups : mapping of str to list of str, optional
            Concepts that are set together, such as the values of one attribute.
        costs : mapping of str to float, optional
            Of a group or concept, above 0, else 1. Priorities are then divided by them.
        realign : bool or "auto"
            Whether the other concepts move by their conditional mean under the errors that
            activations share (``activation_covariance_``); "auto" where the fit kept those.
        y : array-like of shape (n,), optional
            True classes, for ``policy="gain"`` with hindsight.
        random_state : optional
            Of ``policy="random"``.

        Returns
        -------
        Intervention
            Activations and logits before and after, the order, and which values lie outside
            of what was seen in the fit (``outside``); those are allowed, with a warning.

        Raises
        ------
        InputError
            A concept that is not there, values of another shape, NaN, a budget out of range.
        """
        codes = None if y is None else self._codes(y, X)
        subject = self._subject(X, values, codes)
        subject = replace(subject, moves=Moves(groups, costs, realign))
        return subject.intervene(policy, budget, random_state)

    def intervention_curve(
        self,
        X: ArrayLike,
        C: Any,
        y: ArrayLike,
        *,
        policy: Any = "uncertainty",
        budget: float | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        costs: Mapping[str, float] | None = None,
        hindsight: bool = False,
        levels: Literal["auto", "fit", "rows"] = "auto",
        realign: bool | str = "auto",
        random_state: RandomState = 0,
    ) -> InterventionCurve:
        """Measure accuracy and log-loss while concepts are set to the truth one by one.

        Parameters
        ----------
        X : array-like of shape (n, d)
        C : array of shape (n, k), or mapping of str to array of shape (n,)
            True concepts. Booleans, or integers 0 and 1, tell absent from present; floats are
            activations.
        y : array-like of shape (n,)
            True classes.
        policy : {"uncertainty", "random", "gain"} or callable
            See :meth:`intervene`.
        budget : int or float, optional
            The last point; all concepts by default. With `costs`, what a row may cost.
        groups, costs : optional
            See :meth:`intervene`; ``InterventionCurve.costs`` tells what was spent.
        hindsight : bool
            Let ``policy="gain"`` see `y` and `C`, for comparison.
        levels : {"auto", "fit", "rows"}
            What presence becomes: "fit" are ``activation_levels_``, the 5 % and 95 % quantiles
            of the fit, more decided than most rows are; "rows" the mean activation of the
            given rows that have the concept, or not. "auto" moves the latter from their middle
            by the factor that serves the other half of the rows best (log-loss over the curve;
            0.75 to 3), since a concept that is known says more than one that is read. It is
            "fit" for a head of true concepts (``ConceptBottleneck(mode="independent")``).
        realign : bool or "auto"
            See :meth:`intervene`. A head that reads more from its activations than the
            concepts loses that with each that is set; it comes back with the others, whose
            errors tell of it.
        random_state : optional
            Of ``policy="random"``.

        Returns
        -------
        InterventionCurve

        Warns
        -----
        UserWarning
            Where rows of `X` are those of the fit: concepts are read too well there.
        """
        codes = self._codes(y, X)
        OneOf("auto", "fit", "rows").check("levels", levels)
        share = share_seen(getattr(self, "fit_rows_", None), X)
        if share > _SEEN:
            warnings.warn(
                f"{share:.0%} of the rows, or more, were in the fit, where concepts and classes "
                "are read too well: the curve says little about new rows. Give rows held out "
                "(split_rows).",
                UserWarning,
                stacklevel=2,
            )
        mean = levels == "rows" or (levels == "auto" and not self._knows_truth())
        subject = self._subject(X, C, codes if hindsight else None, presence=True, from_rows=mean)
        subject = replace(subject, moves=Moves(groups, costs, realign))
        if levels == "auto" and mean:
            subject = subject.stretched(codes, policy, budget, random_state)
        return subject.curve(codes, policy, budget, random_state)

    def _knows_truth(self) -> bool:
        """Tell whether the head was fitted on true concepts, so that levels are exact."""
        return False

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
            Class by concept; contributions of one row of `X`; accuracy while concepts `C` are
            set, for which X, C and y are needed.
        X : array-like of shape (n, d), optional
        C : array or mapping, optional
            See :meth:`intervention_curve`.
        y : array-like of shape (n,), optional
        sample : int
            Row of `X` of the waterfall.
        top : int
            Concepts to show.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
        """
        if kind not in _KINDS:
            raise unknown_name("kind of plot", kind, _KINDS)
        check_is_fitted(self)
        if kind == "weights":
            from conceptlab.plot.bottlenecks import weight_map

            weights = self._shown_weights()
            return weight_map(weights, self.concept_names_, self.outputs_, top=top, ax=ax)
        needed = {"X": X} if kind == "waterfall" else {"X": X, "C": C, "y": y}
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise InputError(
                f"plot({kind!r}) needs {' and '.join(missing)}.", code="CL-INPUT-EMPTY"
            )
        if kind == "waterfall":
            return self.explain(X).plot(sample, top=top, ax=ax)
        return self.intervention_curve(X, C, y).plot(ax=ax)

    def _codes(self, y: ArrayLike, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        if X is None:
            raise InputError("X is None; give the features of the rows.", code="CL-INPUT-TYPE")
        if not hasattr(self, "classes_") or getattr(self, "target", "classes") != "classes":
            raise InputError(
                "Curves and hindsight count right classes, but this model was fitted with "
                f"target={getattr(self, 'target', None)!r}. intervene() works for every target.",
                code="CL-INPUT-OPTION",
            )
        return label_columns(checked_labels(y, X), self.classes_)
