"""One progress bar for all long jobs, and one switch to silence it."""

from __future__ import annotations

__all__ = ["Progress", "in_notebook", "track"]

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
Progress = bool | Callable[[int, int | None], None] | None
"""None: shown in terminals and notebooks when a job takes over two seconds;
True or False: always or never; a callable gets (done, total) after each step."""


def track(
    iterable: Iterable[T],
    *,
    description: str,
    total: int | None = None,
    progress: Progress = None,
    unit: str = "it",
) -> Iterator[T]:
    """Iterate over `iterable` and show how far it is.

    Parameters
    ----------
    iterable : iterable
        What to go through.
    description : str
        A few words on the job, in the imperative ("encode images").
    total : int, optional
        Number of items, where `iterable` does not know it.
    progress : bool, callable or None
        See :data:`Progress`. ``CONCEPTLAB_PROGRESS=0`` in the environment
        silences the automatic bar.
    unit : str
        What one item is.

    Yields
    ------
    object
        The items of `iterable`.

    Examples
    --------
    >>> seen = []
    >>> for item in track("ab", description="count", progress=lambda n, total: seen.append(n)):
    ...     pass
    >>> seen
    [1, 2]
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if callable(progress):
        for done, item in enumerate(iterable, start=1):
            yield item
            progress(done, total)
        return
    yield from tqdm(
        iterable,
        desc=description,
        total=total,
        unit=unit,
        disable=not (_wanted() if progress is None else progress),
        delay=2.0 if progress is None else 0.0,
        leave=False,
    )


def in_notebook(progress: Progress = None) -> bool:
    """Tell whether pictures may be shown beside the bar.

    Parameters
    ----------
    progress : bool, callable or None
        See :data:`Progress`; a callable shows for itself.

    Returns
    -------
    bool
        True in a notebook whose progress is not silenced.

    Examples
    --------
    >>> in_notebook(False)
    False
    """
    if callable(progress) or progress is False or "ipykernel" not in sys.modules:
        return False
    return progress is True or _wanted()


def _wanted() -> bool:
    if os.environ.get("CONCEPTLAB_PROGRESS", "") in {"0", "false", "off"}:
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()
