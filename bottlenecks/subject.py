"""Rows whose concepts are set by hand: the values, the order, and what becomes of the others."""

from __future__ import annotations

__all__ = ["Moves", "Subject"]

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import log_softmax

from bottlenecks.intervals import mean_interval, wilson_interval
from bottlenecks.intervention import (
    POLICIES,
    POLICIES_ANEW,
    Intervention,
    InterventionCurve,
    PolicyState,
)
from bottlenecks.realign import Realigner
from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Real, Whole
from conceptlab.seeds import RandomState, numpy_generator

_CELLS = 1 << 24  # numbers of factors at a time: 128 MB
_FEW, _TRIED = 40, 1000
_STRETCHES = (0.75, 1.0, 1.5, 2.0, 3.0)
_AUTO = 256  # concepts up to which others follow without being asked


@dataclass(frozen=True, eq=False)
class Moves:
    """What is set together, at what cost, and whether the other concepts follow.

    Attributes
    ----------
    groups : mapping of str to list of str, or None
        Concepts that are set in one step; others are groups of their own.
    costs : mapping of str to float, or None
        Of a group or concept, above 0; 1 where not given.
    realign : bool or "auto"
        Whether the other concepts move by their conditional mean; "auto" where the fit kept
        what is needed, for at most 256 concepts.
    """

    groups: Mapping[str, Sequence[str]] | None = None
    costs: Mapping[str, float] | None = None
    realign: bool | str = False


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
    told: np.ndarray
    covariance: np.ndarray | None = None
    moves: Moves = field(default_factory=Moves)

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
        levels, told = levels.copy(), np.zeros(k, dtype=bool)
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
                told[j] = column.dtype.kind == "b"
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
            told[:] = table.dtype.kind == "b"
            for j in range(k) if from_rows else ():
                levels[j] = _means(table[:, j], activations[:, j], levels[j])
            values = _leveled(table, levels)
        if np.isnan(values).all():
            raise InputError("No concept is given a value.", code="CL-INPUT-EMPTY")
        return cls(
            activations=activations,
            values=values,
            levels=levels,
            told=told,
            concept_names=names,
            **facts,
        )

    def _realigner(self) -> Realigner:
        wanted = self.moves.realign
        if wanted is True and self.covariance is None:
            raise InputError(
                "realign=True needs the covariance of the activations, which this model has not "
                "kept (more than 1024 concepts, a file of an older version, or no linear head). "
                "Fit again, or take realign=False.",
                code="CL-INPUT-OPTION",
            )
        follow = wanted is True or (wanted == "auto" and len(self.levels) <= _AUTO)
        return Realigner(self.coef, self.covariance if follow else None)

    def intervene(
        self, policy: Any, budget: float | None, random_state: RandomState
    ) -> Intervention:
        """Set concepts in the order of `policy`."""
        A, L = self.activations.copy(), self.logits.copy()
        order: list[np.ndarray] = []
        for chosen, _ in self._steps(A, L, policy, budget, random_state):
            order.extend(chosen)
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
        self, truth: np.ndarray, policy: Any, budget: float | None, random_state: RandomState
    ) -> InterventionCurve:
        """Measure after every step."""
        hits, losses, spent = self._along(truth, policy, budget, random_state)
        name = policy if isinstance(policy, str) else getattr(policy, "__name__", "callable")
        return InterventionCurve(
            np.arange(len(hits)),
            hits.mean(axis=1),
            losses.mean(axis=1),
            name,
            len(truth),
            np.array([wilson_interval(float(row.sum()), len(row)) for row in hits]),
            np.array([mean_interval(row - hits[0]) for row in hits]),
            spent.mean(axis=1),
        )

    def stretched(
        self, truth: np.ndarray, policy: Any, budget: float | None, random_state: RandomState
    ) -> Subject:
        """Move levels that stand for presence from the middle by what serves other rows best.

        A mean activation is that of a concept that is read with noise; one that is known says
        more. How much more is chosen by the mean log-loss over the curve, of the even rows for
        the odd ones and the other way round. Below 40 rows levels stay.
        """
        if len(truth) < _FEW or not self.told.any():
            return self
        half = np.arange(len(truth)) % 2
        best = np.ones(2)
        for part in (0, 1):
            rows = np.flatnonzero(half == part)[:_TRIED]
            some = self._take(rows)
            losses = [
                some._by(factor)._along(truth[rows], policy, budget, random_state)[1].mean()
                for factor in _STRETCHES
            ]
            best[1 - part] = _STRETCHES[int(np.argmin(losses))]
        return self._by(best[half][:, None])

    def _by(self, factor: Any) -> Subject:
        middle = self.levels.mean(axis=1)
        moved = middle + factor * (self.values - middle)
        return replace(self, values=np.where(self.told, moved, self.values))

    def _take(self, rows: np.ndarray | slice) -> Subject:
        return replace(
            self,
            activations=self.activations[rows],
            values=self.values[rows],
            logits=self.logits[rows],
            uncertainty=self.uncertainty[rows],
            y=None if self.y is None else self.y[rows],
        )

    def _along(
        self, truth: np.ndarray, policy: Any, budget: float | None, random_state: RandomState
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give hits, losses and costs of every step and row, (m + 1, n) each."""
        n, k = self.activations.shape
        step = n
        if self.moves.realign and self.covariance is not None:
            step = max(1, _CELLS // (k * k))
        rng = numpy_generator(random_state)
        parts = []
        for start in range(0, n, step):
            rows = slice(start, start + step)
            part = self._take(rows)
            A, L = part.activations.copy(), part.logits.copy()
            points = [(*_measured(L, truth[rows]), np.zeros(len(A)))]
            for _, cost in part._steps(A, L, policy, budget, rng):
                points.append((*_measured(L, truth[rows]), cost.copy()))
            parts.append([np.array(column) for column in zip(*points, strict=True)])
        most = max(len(part[0]) for part in parts)
        joined = [
            np.concatenate(
                [np.pad(v, ((0, most - len(v)), (0, 0)), mode="edge") for v in column], axis=1
            )
            for column in zip(*parts, strict=True)
        ]
        return joined[0], joined[1], joined[2]

    def _steps(
        self,
        A: np.ndarray,
        L: np.ndarray,
        policy: Any,
        budget: float | None,
        random_state: RandomState,
    ) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
        """Set one group of each row at a time, in place.

        Give the columns that were set, arrays (n,) with -1 for none, and the cost so far, (n,).
        """
        rule = _resolved(policy)
        remaining = ~np.isnan(self.values)
        members, costs = _groups(self.moves, self.concept_names)
        limit = int(_by_group(remaining, members).sum(axis=1).max())
        allowed = np.inf
        if budget is not None and self.moves.costs is None:
            limit = min(limit, Whole(0).check("budget", budget))
        elif budget is not None:
            allowed = Real(least=0).check("budget", budget)
        rng = numpy_generator(random_state)
        anew = callable(policy) or policy in POLICIES_ANEW
        rows = np.arange(len(A))
        spent = np.zeros(len(A))
        follow = self._realigner()
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
            worth = np.full((len(A), len(members)), -np.inf)
            for g, columns in enumerate(members):
                inside = np.where(remaining[:, columns], finite[:, columns], -np.inf)
                worth[:, g] = inside.max(axis=1)
            if self.moves.costs is not None:
                worth = _per_cost(worth, costs)
            worth[(spent[:, None] + costs) > allowed + 1e-9] = -np.inf
            chosen = worth.argmax(axis=1)
            there = worth[rows, chosen] > -np.inf
            if not there.any():
                break
            done = []
            for place in range(max(map(len, members))):
                column = np.array([m[place] if place < len(m) else -1 for m in members])[chosen]
                on = there & (column >= 0)
                on[on] = remaining[rows[on], column[on]]
                at, j = rows[on], column[on]
                follow.set(A, L, at, j, self.values[at, j])
                remaining[at, j] = False
                done.append(np.where(on, column, -1))
            spent[there] += costs[chosen[there]]
            yield done, spent


def _groups(moves: Moves, names: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
    """Give the columns of every group, and what each costs."""
    place = {name: j for j, name in enumerate(names)}
    members: dict[str, list[int]] = {}
    for group, inside in (moves.groups or {}).items():
        unknown = [name for name in inside if name not in place]
        if unknown:
            raise unknown_name("concept", unknown[0], names)
        members[str(group)] = [place[name] for name in inside]
    held = [j for columns in members.values() for j in columns]
    if len(held) != len(set(held)) or any(not columns for columns in members.values()):
        raise InputError(
            "groups must hold each concept at most once, and none be empty.",
            code="CL-INPUT-OPTION",
        )
    members |= {name: [j] for name, j in place.items() if j not in set(held)}
    costs = dict.fromkeys(members, 1.0)
    for name, cost in (moves.costs or {}).items():
        if name not in costs:
            raise unknown_name("group or concept", str(name), costs)
        costs[name] = Real(above=0).check(f"costs[{name!r}]", cost)
    return list(members.values()), np.array(list(costs.values()))


def _by_group(table: np.ndarray, members: list[list[int]]) -> np.ndarray:
    return np.stack([table[:, columns].any(axis=1) for columns in members], axis=1)


def _per_cost(worth: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Divide what a priority is above the least of its row by the cost."""
    open_ = np.isfinite(worth)
    least = np.where(open_, worth, np.inf).min(axis=1, keepdims=True)
    most = np.where(open_, worth, -np.inf).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        above = worth - least + 1e-3 * np.maximum(most - least, 1e-12)
    return np.where(open_, above / costs, -np.inf)


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


def _measured(logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give hits and log-losses of rows, (n,) each."""
    hit = (logits.argmax(axis=1) == truth).astype(np.float64)
    return hit, -log_softmax(logits, axis=1)[np.arange(len(truth)), truth]
