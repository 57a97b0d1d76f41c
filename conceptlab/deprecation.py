"""Old names and parameters that still work, and say until when.

The policy: what is deprecated in version 0.N works, with a warning, in 0.N and 0.N+1, and is
gone in 0.N+2. The warning is a :class:`FutureWarning`, which Python shows to everyone. A test
fails when the version has come in which something should be gone.
"""

from __future__ import annotations

__all__ = ["KEPT", "deprecated", "renamed_parameters", "warn_deprecated"]

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from conceptlab.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

KEPT = 2
"""Minor versions for which what is deprecated still works."""


def warn_deprecated(what: str, *, since: str, instead: str, stacklevel: int = 2) -> None:
    """Warn that something still works, and say what to use and until when.

    Parameters
    ----------
    what : str
        What is deprecated, as a user writes it: ``"audit(kinds=...)"``.
    since : str
        The version that deprecated it: ``"0.2"``.
    instead : str
        What to write from now on, or that nothing takes its place.
    stacklevel : int, default 2
        As in :func:`warnings.warn`: 2 names the line that called this function's caller.

    Warns
    -----
    FutureWarning
        Always.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     warn_deprecated("craft.names", since="0.2", instead="craft.names_")
    >>> print(told[0].message)
    craft.names is deprecated since 0.2 and will be gone in 0.4: use craft.names_.
    """
    warnings.warn(
        f"{what} is deprecated since {since} and will be gone in {_gone(since)}: use {instead}.",
        FutureWarning,
        stacklevel=stacklevel + 1,
    )


def deprecated(*, since: str, instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function or method, which warns at each call and works as before.

    Parameters
    ----------
    since, instead : str
        As in :func:`warn_deprecated`.

    Returns
    -------
    callable
        The decorator.

    Examples
    --------
    >>> @deprecated(since="0.2", instead="sum")
    ... def total(values):
    ...     return sum(values)
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     total([1, 2])
    3
    >>> print(told[0].message)
    total is deprecated since 0.2 and will be gone in 0.4: use sum.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            warn_deprecated(function.__qualname__, since=since, instead=instead)
            return function(*args, **kwargs)

        return called

    return decorate


def renamed_parameters(
    *, since: str, **new_names: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Take keyword arguments also by their old names, with a warning.

    On ``__init__`` of an estimator it leaves ``get_params`` as it is: scikit-learn reads the
    signature of what is decorated, which has the new names only.

    Parameters
    ----------
    since : str
        As in :func:`warn_deprecated`.
    **new_names : str
        ``old="new"`` for every parameter that was renamed.

    Returns
    -------
    callable
        The decorator. What it decorates raises InputError when a parameter is given by both
        names.

    Examples
    --------
    >>> @renamed_parameters(since="0.2", n_shards="n_parts")
    ... def cut(rows, *, n_parts=2):
    ...     return [rows[i::n_parts] for i in range(n_parts)]
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     cut("abcd", n_shards=4)
    ['a', 'b', 'c', 'd']
    >>> print(told[0].message)
    cut(n_shards=...) is deprecated since 0.2 and will be gone in 0.4: use n_parts=....
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in new_names.items():
                if old not in kwargs:
                    continue
                what = f"{function.__qualname__}({old}=...)"
                if new in kwargs:
                    raise InputError(
                        f"{what} is the old name of {new}=..., and both are given. "
                        f"Give {new}=... only.",
                        code="CL-INPUT-OPTION",
                    )
                warn_deprecated(what, since=since, instead=f"{new}=...")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return called

    return decorate


def _gone(since: str) -> str:
    """Name the version in which what was deprecated `since` is gone."""
    major, minor = (int(part) for part in since.split(".")[:2])
    return f"{major}.{minor + KEPT}"
