"""What a parameter may be, said as a value: one table of rules for each estimator or function.

A rule checks one value; a table checks all parameters of an estimator, one line each::

    _RULES = Rules(max_iter=Whole(1), tol=Real(least=0), lam=Real(least=0) | None)
    _RULES.check(estimator)
"""

from __future__ import annotations

__all__ = ["Flag", "OneOf", "Real", "Rule", "Rules", "Whole"]

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conceptlab.errors import InputError, unknown_name


class Rule(ABC):
    """What one parameter may be; ``rule | other`` and ``rule | None`` take either."""

    @abstractmethod
    def takes(self, value: Any) -> bool:
        """Tell whether `value` is of the kind that this rule judges."""

    @abstractmethod
    def wanted(self) -> str:
        """Say in words what fits."""

    @abstractmethod
    def check(self, name: str, value: Any) -> Any:
        """Give `value` as a plain Python value, or raise an InputError that names `name`."""

    def __or__(self, other: Rule | None) -> Rule:
        """Take what either takes; None stands for the value None."""
        return _Either((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number from `least` to `most`; 2.0 and True are none.

    Examples
    --------
    >>> Whole(1).check("epochs", 3)
    3
    >>> Whole(1).check("epochs", 2.0)
    Traceback (most recent call last):
    ...
    conceptlab.errors.InputError: epochs must be a whole number of at least 1, got 2.0. [...]
    """

    least: int | None = None
    most: int | None = None
    hint: str = ""
    code: str = "CL-INPUT-RANGE"

    def takes(self, value: Any) -> bool:
        """Tell whether `value` is an integer."""
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)

    def wanted(self) -> str:
        """Say what fits."""
        return _span("a whole number", least=self.least, most=self.most)

    def check(self, name: str, value: Any) -> int:
        """Give `value` as int."""
        fits = (
            self.takes(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )
        if not fits:
            raise _misfit(self, name, value, self.hint, self.code)
        return int(value)


@dataclass(frozen=True)
class Real(Rule):
    """A finite number within bounds; `above` and `below` are not part of the range.

    Examples
    --------
    >>> Real(above=0, most=1).check("share", 0.5)
    0.5
    >>> Real(above=0, most=1).check("share", 0)
    Traceback (most recent call last):
    ...
    conceptlab.errors.InputError: share must be a number above 0 and at most 1, got 0. [...]
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    hint: str = ""
    code: str = "CL-INPUT-RANGE"

    def takes(self, value: Any) -> bool:
        """Tell whether `value` is a number."""
        return isinstance(value, numbers.Real) and not isinstance(value, bool)

    def wanted(self) -> str:
        """Say what fits."""
        return _span(
            "a number", least=self.least, above=self.above, most=self.most, below=self.below
        )

    def check(self, name: str, value: Any) -> float:
        """Give `value` as float."""
        number = float(value) if self.takes(value) else math.nan
        fits = (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )
        if not fits:
            raise _misfit(self, name, value, self.hint, self.code)
        return number


class OneOf(Rule):
    """One of some names; the error names the nearest.

    Examples
    --------
    >>> OneOf("adam", "sgd").check("optimizer", "adma")
    Traceback (most recent call last):
    ...
    conceptlab.errors.InputError: Unknown optimizer 'adma'. Did you mean 'adam'? Known: ...
    """

    def __init__(self, *options: str) -> None:
        self.options = options

    def takes(self, value: Any) -> bool:
        """Tell whether `value` is text."""
        return isinstance(value, str)

    def wanted(self) -> str:
        """Say what fits."""
        return " or ".join(map(repr, self.options))

    def check(self, name: str, value: Any, hint: str = "") -> str:
        """Give `value` as it is."""
        if not isinstance(value, str) or value not in self.options:
            raise unknown_name(name, value, self.options, hint=hint)
        return value


class Flag(Rule):
    """True or False."""

    def takes(self, value: Any) -> bool:
        """Tell whether `value` is a truth value."""
        return isinstance(value, bool | np.bool_)

    def wanted(self) -> str:
        """Say what fits."""
        return "True or False"

    def check(self, name: str, value: Any) -> bool:
        """Give `value` as bool."""
        if not self.takes(value):
            raise _misfit(self, name, value, "", "CL-INPUT-TYPE")
        return bool(value)


class Rules:
    """A table of rules, checked in the order it is written.

    Parameters
    ----------
    **rules : Rule
        What each parameter may be.

    Examples
    --------
    >>> rules = Rules(steps=Whole(0), decay=OneOf("auto") | Real(least=0, most=1))
    >>> rules.check({"steps": 3, "decay": "auto"})
    >>> rules.check({"steps": 3, "decay": 2})
    Traceback (most recent call last):
    ...
    conceptlab.errors.InputError: decay must be a number of at least 0 and at most 1, got 2. [...]
    """

    def __init__(self, **rules: Rule) -> None:
        self.rules = rules

    def check(self, given: Any, *, absent: bool = False) -> None:
        """Raise an InputError for the first parameter that does not fit.

        Parameters
        ----------
        given : object or mapping of str to object
            An estimator, or the arguments of a function by name.
        absent : bool, default=False
            Whether `given` may lack some of the parameters.
        """
        values = given if isinstance(given, Mapping) else vars(given)
        for name, rule in self.rules.items():
            if not absent or name in values:
                rule.check(name, values[name])


@dataclass(frozen=True)
class _Either(Rule):
    rules: tuple[Rule | None, ...]

    def takes(self, value: Any) -> bool:
        return any(value is None if rule is None else rule.takes(value) for rule in self.rules)

    def wanted(self) -> str:
        return ", or ".join("None" if rule is None else rule.wanted() for rule in self.rules)

    def check(self, name: str, value: Any) -> Any:
        if value is None and None in self.rules:
            return None
        for rule in self.rules:
            if rule is None or not rule.takes(value):
                continue
            if isinstance(rule, OneOf):
                others = [r for r in self.rules if r is not None and r is not rule]
                return rule.check(name, value, f"Or {_Either((*others,)).wanted()}." * bool(others))
            return rule.check(name, value)
        raise _misfit(self, name, value, "", "CL-INPUT-TYPE")


def _parts(rule: Rule | None) -> tuple[Rule | None, ...]:
    return rule.rules if isinstance(rule, _Either) else (rule,)


def _span(
    kind: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> str:
    low = f" of at least {least:g}" if least is not None else ""
    low += f" above {above:g}" if above is not None else ""
    high = f"at most {most:g}" if most is not None else ""
    high += f"below {below:g}" if below is not None else ""
    if not high:
        return kind + low
    return f"{kind}{low} and {high}" if low else f"{kind} of {high}".replace("of below", "below")


def _misfit(rule: Rule, name: str, value: Any, hint: str, code: str) -> InputError:
    more = f" ({hint})" if hint else ""
    return InputError(
        f"{name} must be {rule.wanted()}{more}, got {value!r}.",
        code=code if rule.takes(value) else "CL-INPUT-TYPE",
    )
