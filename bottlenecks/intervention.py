"""Setting concepts by hand: which ones first, what becomes of the classes, and the curve.

A policy orders the concepts of each row. The head is linear, so that setting concept j adds
``coef[:, j] (new - old)`` to the logits: every step is a rank-one update, and all single
interventions of all rows are known at once.

- ``"uncertainty"``: the least decided concept first (nearest to the middle of its levels).
- ``"random"``: any order, another one a row.
- ``"gain"``: the concept that is expected to make the classes surest: the entropy of the class
  posterior less its mean over the two levels of the concept, each as probable as the activation
  is near it. With true classes: the largest fall of the log-loss, which reads the answer and
  serves for comparison only. Chosen anew after each step.
- a callable from :class:`PolicyState` to priorities (n, k), the largest first; called at each
  step.

The first two leave concepts that no class uses to the end, since setting them changes nothing.

References
----------
Koh et al., Concept Bottleneck Models, ICML 2020, section 4.3.
Shin et al., A Closer Look at the Intervention Procedure of Concept Bottleneck Models, ICML 2023,
section 3.1 (uncertainty of concepts, expected change of the target).
"""

from __future__ import annotations

__all__ = ["POLICIES", "Intervention", "InterventionCurve", "PolicyState"]

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax, softmax

from bottlenecks.intervals import mean_interval, wilson_interval
from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Whole
from conceptlab.seeds import RandomState, numpy_generator

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_CELLS = 1 << 22  # numbers at a time while all single interventions are weighed: 32 MB


@dataclass(frozen=True, eq=False)
class PolicyState:
    """What a policy may read before it chooses the next concept of every row.

    Attributes
    ----------
    step : int
        How many concepts were set.
    activations : ndarray of shape (n, k)
        As they are now.
    values : ndarray of shape (n, k)
        What concepts would be set to; NaN where no value is given.
    remaining : ndarray of shape (n, k), bool
        Concepts that may still be set.
    logits : ndarray of shape (n, K)
        As they are now.
    uncertainty : ndarray of shape (n, k)
        How undecided the model was on each concept; larger for less sure.
    coef : ndarray of shape (K, k)
    levels : ndarray of shape (k, 2)
        Activations that stand for absent and present.
    y : ndarray of shape (n,), int64, or None
        Columns of the true classes, where they may be read.
    rng : numpy.random.Generator

    Examples
    --------
    >>> from bottlenecks import PostHocCBM
    >>> rng = np.random.default_rng(0)
    >>> shown = rng.random((200, 4)) < 0.5
    >>> X, y = shown + 0.1 * rng.normal(size=(200, 4)), shown[:, 0]
    >>> def least_sure(state):
    ...     return state.uncertainty
    >>> curve = PostHocCBM(nec=2).fit(X, y).intervention_curve(X, shown, y, policy=least_sure)
    >>> curve.policy
    'least_sure'
    """

    step: int
    activations: np.ndarray
    values: np.ndarray
    remaining: np.ndarray
    logits: np.ndarray
    uncertainty: np.ndarray
    coef: np.ndarray
    levels: np.ndarray
    y: np.ndarray | None
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Intervention:
    """Logits and activations before and after concepts were set.

    Attributes
    ----------
    activations, activations_before : ndarray of shape (n, k), float64
    logits, logits_before : ndarray of shape (n, K), float64
    order : ndarray of shape (n, m), int64
        Columns of the concepts in the order in which they were set; -1 for none.
    outside : ndarray of shape (n, k), bool
        Set to a value beyond those of the fit.
    concept_names : list of k str
    classes : ndarray of shape (K,)

    Examples
    --------
    >>> from bottlenecks import PostHocCBM
    >>> rng = np.random.default_rng(0)
    >>> X = (rng.random((200, 4)) < 0.5) + 0.1 * rng.normal(size=(200, 4))
    >>> model = PostHocCBM(nec=2).fit(X, X[:, 0] > 0.5)
    >>> done = model.intervene(X[:2], {"concept0": [1.0, 0.0]})
    >>> done.logits.argmax(axis=1).tolist()
    [1, 0]
    """

    activations: np.ndarray
    activations_before: np.ndarray
    logits: np.ndarray
    logits_before: np.ndarray
    order: np.ndarray
    outside: np.ndarray
    concept_names: list[str]
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.logits)

    def __repr__(self) -> str:
        changed = int(self.changed.sum())
        return (
            f"Intervention({len(self)} rows, {self.order.shape[1]} concepts set in each, "
            f"{changed} classes changed)"
        )

    @property
    def predicted(self) -> np.ndarray:
        """Classes after, (n,)."""
        return np.asarray(self.classes[self.logits.argmax(axis=1)])

    @property
    def predicted_before(self) -> np.ndarray:
        """Classes before, (n,)."""
        return np.asarray(self.classes[self.logits_before.argmax(axis=1)])

    @property
    def changed(self) -> np.ndarray:
        """Whether the class is another one now, (n,) bool."""
        different: np.ndarray = self.logits.argmax(axis=1) != self.logits_before.argmax(axis=1)
        return different

    @property
    def proba(self) -> np.ndarray:
        """Probabilities of the classes after, (n, K)."""
        return np.asarray(softmax(self.logits, axis=1))

    def to_frame(self) -> pandas.DataFrame:
        """Give a row for every concept that was set, in order.

        Returns
        -------
        pandas.DataFrame
            Columns sample, step, concept, before, after, outside, class before, class after.
        """
        import pandas

        rows, steps = np.nonzero(self.order >= 0)
        j = self.order[rows, steps]
        return pandas.DataFrame(
            {
                "sample": rows,
                "step": steps + 1,
                "concept": np.array(self.concept_names, dtype=object)[j],
                "before": self.activations_before[rows, j],
                "after": self.activations[rows, j],
                "outside": self.outside[rows, j],
                "class before": self.predicted_before[rows],
                "class after": self.predicted[rows],
            }
        )

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, table

        frame = self.to_frame()
        more = f"<p>and {len(frame) - 20} more</p>" if len(frame) > 20 else ""
        rows = frame.head(20).itertuples(index=False, name=None)
        return f"<div><p>{escape(repr(self))}</p>{table(list(frame.columns), rows)}{more}</div>"


@dataclass(frozen=True, eq=False)
class InterventionCurve:
    """Accuracy and log-loss after 0, 1, 2, ... concepts were set to the truth.

    Attributes
    ----------
    steps : ndarray of shape (m + 1,), int64
        Concepts set in each row.
    accuracy, log_loss : ndarray of shape (m + 1,), float64
    policy : str
    n_samples : int
    interval : ndarray of shape (m + 1, 2), float64, or None
        95 % of the accuracy (Wilson).
    change : ndarray of shape (m + 1, 2), float64, or None
        95 % of the accuracy less that without any concept set, on the same rows.

    Examples
    --------
    >>> from bottlenecks import PostHocCBM
    >>> rng = np.random.default_rng(0)
    >>> shown = rng.random((200, 4)) < 0.5
    >>> X = shown + 0.1 * rng.normal(size=(200, 4))
    >>> y = shown[:, 0] | shown[:, 1]
    >>> curve = PostHocCBM(nec=2).fit(X, y).intervention_curve(X, shown, y)
    >>> curve.steps.tolist(), curve.n_samples
    ([0, 1, 2, 3, 4], 200)
    """

    steps: np.ndarray
    accuracy: np.ndarray
    log_loss: np.ndarray
    policy: str
    n_samples: int
    interval: np.ndarray | None = None
    change: np.ndarray | None = None

    def __repr__(self) -> str:
        first, last = self.accuracy[0], self.accuracy[-1]
        harm = self.harmful
        told = (
            ""
            if not len(harm)
            else f"; true concepts lower it at {len(harm)} of {len(self.steps) - 1} steps, first "
            f"at {harm[0]}: the head reads more from the activations than the concepts"
        )
        return (
            f"InterventionCurve(policy={self.policy!r}, {self.n_samples} rows, accuracy "
            f"{first:.3f} to {last:.3f} with {self.steps[-1]} concepts{told})"
        )

    @property
    def harmful(self) -> np.ndarray:
        """Steps at which accuracy lies below that of the start by more than its interval."""
        if self.change is None:
            return np.empty(0, dtype=np.int64)
        return np.asarray(self.steps[self.change[:, 1] < 0])

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the curve: one number to compare policies by."""
        return float(self.accuracy.mean())

    def to_frame(self) -> pandas.DataFrame:
        """Give columns concepts set, accuracy, low, high, log-loss."""
        import pandas

        nan = np.full((len(self.steps), 2), np.nan)
        low, high = (nan if self.interval is None else self.interval).T
        return pandas.DataFrame(
            {
                "concepts set": self.steps,
                "accuracy": self.accuracy,
                "low": low,
                "high": high,
                "log-loss": self.log_loss,
            }
        )

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the accuracy; see ``conceptlab.plot.bottlenecks.intervention_plot``."""
        from conceptlab.plot.bottlenecks import intervention_plot

        curves = {self.policy: (self.steps, self.accuracy)}
        return intervention_plot(curves, n_samples=self.n_samples, ax=ax)

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, picture

        drawn = picture(self.plot(), "accuracy against concepts set to the truth", dpi=80)
        return f"<div><p>{escape(repr(self))}</p>{drawn}</div>"


def _uncertainty(state: PolicyState) -> np.ndarray:
    return _used_first(state, state.uncertainty)


def _random(state: PolicyState) -> np.ndarray:
    return _used_first(state, state.rng.random(state.activations.shape))


def _used_first(state: PolicyState, priority: np.ndarray) -> np.ndarray:
    used = (state.coef != state.coef[:1]).any(axis=0)
    return np.where(used, priority, priority - 2 * (np.ptp(priority) + 1.0))


def _gain(state: PolicyState) -> np.ndarray:
    n, k = state.activations.shape
    gains = np.full((n, k), -np.inf)
    columns = np.flatnonzero(state.remaining.any(axis=0))
    per_row = max(1, len(columns) * len(state.coef))
    for start in range(0, n, max(1, _CELLS // per_row)):
        part = slice(start, start + max(1, _CELLS // per_row))
        A, L = state.activations[part][:, columns], state.logits[part]
        W = state.coef[:, columns].T
        if state.y is not None:
            y = state.y[part]
            new = _moved(L, W, np.nan_to_num(state.values[part][:, columns]) - A)
            losses = -log_softmax(new, axis=-1)[np.arange(len(A)), :, y]
            now = -log_softmax(L, axis=-1)[np.arange(len(A)), y]
            gains[part, columns] = now[:, None] - losses
            continue
        low, high = state.levels[columns].T
        present = np.clip((A - low) / np.where(high > low, high - low, 1.0), 0.02, 0.98)
        expected = (1 - present) * _entropy(_moved(L, W, low - A))
        expected += present * _entropy(_moved(L, W, high - A))
        gains[part, columns] = _entropy(L)[:, None] - expected
    return gains


def _moved(logits: np.ndarray, W: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Give the logits after each single intervention, (n, m, K)."""
    moved: np.ndarray = logits[:, None, :] + step[:, :, None] * W
    return moved


def _entropy(logits: np.ndarray) -> np.ndarray:
    log_p = log_softmax(logits, axis=-1)
    entropy: np.ndarray = -(np.exp(log_p) * log_p).sum(axis=-1)
    return entropy


POLICIES: dict[str, Callable[[PolicyState], np.ndarray]] = {
    "uncertainty": _uncertainty,
    "random": _random,
    "gain": _gain,
}
"""Policies by name; see the module."""
_ANEW = {"gain"}


@dataclass(frozen=True, eq=False)
class Subject:
    """Rows, the values that concepts may be set to, and the head: all in NumPy, float64."""

    activations: np.ndarray
    values: np.ndarray
    logits: np.ndarray
    uncertainty: np.ndarray
    coef: np.ndarray
    levels: np.ndarray
    limits: np.ndarray
    concept_names: list[str]
    classes: np.ndarray
    y: np.ndarray | None

    @classmethod
    def of(
        cls,
        given: Any,
        *,
        activations: np.ndarray,
        levels: np.ndarray,
        concept_names: Sequence[str],
        presence: bool = False,
        from_rows: bool = False,
        **facts: Any,
    ) -> Subject:
        """Check the values that a user gave, and lay them out as (n, k) with NaN for none.

        With `from_rows`, presence stands for the mean activation of the rows that have the
        concept, or not, where there are both; else for the levels.
        """
        names = list(concept_names)
        n, k = activations.shape
        levels = levels.copy()
        if isinstance(given, Mapping):
            values = np.full((n, k), np.nan)
            for name, value in given.items():
                if name not in names:
                    raise unknown_name("concept", name, names)
                j = names.index(name)
                column = _numbers(value, f"values[{name!r}]", presence)
                if column.shape not in ((), (n,)):
                    raise InputError(
                        f"values[{name!r}] must be one number or {n}, one for each row, got shape "
                        f"{column.shape}.",
                        code="CL-INPUT-SHAPE",
                    )
                if from_rows:
                    levels[j] = _means(column, activations[:, j], levels[j])
                values[:, j] = _leveled(column, levels[j])
        else:
            table = _numbers(given, "values", presence)
            if table.shape != (n, k):
                raise InputError(
                    f"values must be a mapping from concept to value, or an array of shape "
                    f"{(n, k)} (rows, concepts), got shape {table.shape}.",
                    code="CL-INPUT-SHAPE",
                )
            for j in range(k) if from_rows else ():
                levels[j] = _means(table[:, j], activations[:, j], levels[j])
            values = _leveled(table, levels)
        if np.isnan(values).all():
            raise InputError("No concept is given a value.", code="CL-INPUT-EMPTY")
        return cls(
            activations=activations, values=values, levels=levels, concept_names=names, **facts
        )

    def intervene(self, policy: Any, budget: int | None, random_state: RandomState) -> Intervention:
        """Set concepts in the order of `policy`."""
        A, L = self.activations.copy(), self.logits.copy()
        order = []
        for chosen in self._steps(A, L, policy, budget, random_state):
            order.append(chosen.copy())
        columns = np.stack(order, axis=1) if order else np.empty((len(A), 0), dtype=np.int64)
        chosen_mask = np.zeros(A.shape, dtype=bool)
        rows = np.arange(len(A))[:, None].repeat(columns.shape[1], axis=1)
        chosen_mask[rows[columns >= 0], columns[columns >= 0]] = True
        outside = chosen_mask & ((self.limits[:, 0] > A) | (self.limits[:, 1] < A))
        if outside.any():
            names = [self.concept_names[j] for j in np.flatnonzero(outside.any(axis=0))]
            warnings.warn(
                f"{int(outside.sum())} value(s) lie outside of the activations seen in the fit, "
                f"for {names[:5]}: the head was never tried there. See activation_range_ and "
                "Intervention.outside.",
                UserWarning,
                stacklevel=4,
            )
        return Intervention(
            A, self.activations, L, self.logits, columns, outside, self.concept_names, self.classes
        )

    def curve(
        self, truth: np.ndarray, policy: Any, budget: int | None, random_state: RandomState
    ) -> InterventionCurve:
        """Measure after every step."""
        A, L = self.activations.copy(), self.logits.copy()
        points = [_measured(L, truth)]
        points += [_measured(L, truth) for _ in self._steps(A, L, policy, budget, random_state)]
        hits = np.stack([hit for hit, _ in points]).astype(np.float64)
        accuracy, loss = hits.mean(axis=1), np.array([loss for _, loss in points])
        name = policy if isinstance(policy, str) else getattr(policy, "__name__", "callable")
        return InterventionCurve(
            np.arange(len(points)),
            accuracy,
            loss,
            name,
            len(truth),
            np.array([wilson_interval(float(row.sum()), len(row)) for row in hits]),
            np.array([mean_interval(row - hits[0]) for row in hits]),
        )

    def _steps(
        self,
        A: np.ndarray,
        L: np.ndarray,
        policy: Any,
        budget: int | None,
        random_state: RandomState,
    ) -> Iterator[np.ndarray]:
        """Set one concept of each row at a time, in place; give its column, -1 for none."""
        rule = _resolved(policy)
        remaining = ~np.isnan(self.values)
        limit = int(remaining.sum(axis=1).max())
        if budget is not None:
            limit = min(limit, Whole(0).check("budget", budget))
        rng = numpy_generator(random_state)
        anew = callable(policy) or policy in _ANEW
        rows = np.arange(len(A))
        for step in range(limit):
            if anew or step == 0:
                state = PolicyState(
                    step,
                    A,
                    self.values,
                    remaining,
                    L,
                    self.uncertainty,
                    self.coef,
                    self.levels,
                    self.y,
                    rng,
                )
                priority = np.asarray(rule(state), dtype=np.float64)
                if priority.shape != A.shape:
                    raise InputError(
                        f"The policy gave priorities of shape {priority.shape}; expected "
                        f"{A.shape}, one for each row and concept.",
                        code="CL-INPUT-SHAPE",
                    )
            finite = np.nan_to_num(priority, nan=-1e308, neginf=-1e308)
            open_ = np.where(remaining, finite, -np.inf)
            chosen = open_.argmax(axis=1)
            there = remaining[rows, chosen]
            at, j = rows[there], chosen[there]
            L[at] += (self.values[at, j] - A[at, j])[:, None] * self.coef.T[j]
            A[at, j] = self.values[at, j]
            remaining[at, j] = False
            yield np.where(there, chosen, -1)


def _resolved(policy: Any) -> Callable[[PolicyState], np.ndarray]:
    if callable(policy):
        found: Callable[[PolicyState], np.ndarray] = policy
        return found
    if not isinstance(policy, str) or policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES, hint="Or give a callable.")
    return POLICIES[policy]


def _numbers(value: Any, name: str, presence: bool) -> np.ndarray:
    array = as_numpy(value)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{name} must be numbers or booleans, got {array.dtype}.", code="CL-INPUT-TYPE"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"{name} contains NaN or infinity. Leave the concept out of the mapping where its "
            "value is not known.",
            code="CL-INPUT-NONFINITE",
        )
    if presence and array.dtype.kind in "iu":
        if not np.isin(array, (0, 1)).all():
            raise InputError(
                f"{name} holds integers other than 0 and 1. Give presence (booleans, 0 and 1), or "
                "activations as floats.",
                code="CL-INPUT-RANGE",
            )
        return np.asarray(array.astype(bool))
    return array if array.dtype.kind == "b" else array.astype(np.float64)


def _means(shown: np.ndarray, a: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Give mean activations without and with a concept, or the levels where there is no both."""
    if shown.dtype.kind != "b" or shown.ndim == 0 or shown.all() or not shown.any():
        return levels
    return np.array([a[~shown].mean(), a[shown].mean()])


def _leveled(column: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replace booleans by the levels (2,) or (k, 2)."""
    if column.dtype.kind != "b":
        return column
    return np.where(column, levels[..., 1], levels[..., 0])


def _measured(logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, float]:
    hit = np.asarray(logits.argmax(axis=1) == truth)
    return hit, float(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())
