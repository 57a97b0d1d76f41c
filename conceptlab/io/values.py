"""Values as a reader gets them: JSON without NaN, numbers with the digits that count."""

from __future__ import annotations

__all__ = ["digits", "plain"]

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Turn nested results into JSON values; what is not finite becomes None.

    Parameters
    ----------
    value : object
        Mappings, sequences, sets, arrays and numbers of NumPy or torch; any other object
        becomes its text.

    Returns
    -------
    object
        None, bool, int, float, str, list and dict with keys of str.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"a": np.float64(0.5), "b": (np.nan, np.arange(2))})
    {'a': 0.5, 'b': [None, [0, 1]]}
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def digits(value: Any, *, sign: bool = False) -> str:
    """Write a number with three digits that count; "–" where it is not finite.

    Parameters
    ----------
    value : float
    sign : bool
        Write a plus too, as for differences.

    Returns
    -------
    str

    Examples
    --------
    >>> [digits(v) for v in (0, 60.0, 0.98765, 12.345, 1234.5, 2e-5, float("nan"))]
    ['0', '60', '0.988', '12.3', '1234', '2.0e-05', '–']
    >>> digits(0.5, sign=True)
    '+0.500'
    """
    number = float(value)
    if not math.isfinite(number):
        return "–"
    size = abs(number)
    if number == int(number):
        form = ".0f"
    elif size < 0.0005:
        form = ".1e"
    else:
        form = ".3f" if size < 1 else ".2f" if size < 10 else ".1f" if size < 100 else ".0f"
    return f"{number:{'+' if sign and number else ''}{form}}"
