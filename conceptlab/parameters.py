"""Checks of parameters that are numbers, for all estimators."""

from __future__ import annotations

__all__ = ["check_count", "checked_number"]

import math
from numbers import Integral, Real
from typing import Any

from conceptlab.errors import InputError


def checked_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    hint: str = "",
) -> float:
    """Check that a parameter is a finite number in its range, and give it as float."""
    bounds = [
        f"at least {least:g}" if least is not None else "",
        f"above {above:g}" if above is not None else "",
        f"at most {most:g}" if most is not None else "",
        f"below {below:g}" if below is not None else "",
    ]
    wanted = " and ".join(bound for bound in bounds if bound)
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    fits = (
        math.isfinite(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
        and (not whole or number == int(number))
    )
    if not fits:
        more = f" ({hint})" if hint else ""
        kind = "a whole number" if whole else "a number"
        raise InputError(
            f"{name} must be {kind} {wanted}{more}, got {value!r}.", code="CL-INPUT-RANGE"
        )
    return number


def check_count(name: str, value: Any, least: int = 1, *, code: str = "CL-INPUT-RANGE") -> None:
    """Raise where a parameter is no integer, or too small; 2.0 and True are none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(
            f"{name} must be a whole number of at least {least}, got {value!r}.", code=code
        )
