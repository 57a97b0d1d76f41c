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

__all__ = ["POLICIES", "POLICIES_ANEW", "Intervention", "InterventionCurve", "PolicyState"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, softmax

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
        Concepts, or groups of them, set in each row.
    accuracy, log_loss : ndarray of shape (m + 1,), float64
    policy : str
    n_samples : int
    interval : ndarray of shape (m + 1, 2), float64, or None
        95 % of the accuracy (Wilson).
    change : ndarray of shape (m + 1, 2), float64, or None
        95 % of the accuracy less that without any concept set, on the same rows.
    costs : ndarray of shape (m + 1,), float64, or None
        Mean cost of what was set.

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
    costs: np.ndarray | None = None

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
POLICIES_ANEW = {"gain"}
"""Policies that are asked again after each step."""
