"""Learning rates over a run: from a step and the number of steps to a factor of the rate."""

from __future__ import annotations

__all__ = ["Schedule", "constant", "cosine", "cosine_warm", "line", "one_cycle"]

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]
"""From the step's number (from 0) and the number of steps to what the rate is multiplied by."""


def constant(step: int, steps: int) -> float:
    """Give 1 at every step.

    Parameters
    ----------
    step, steps : int

    Returns
    -------
    float

    Examples
    --------
    >>> constant(3, 10)
    1.0
    """
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Go down along half a cosine, from 1 at the first step to 0 after the last.

    Parameters
    ----------
    step, steps : int

    Returns
    -------
    float

    Examples
    --------
    >>> [round(cosine(step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(steps, 1))))


def cosine_warm(step: int, steps: int, warm: float = 0.1) -> float:
    """Go down along half a cosine whose first part is damped by a line from 0.

    Parameters
    ----------
    step, steps : int
    warm : float
        The share of the steps that is damped.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(cosine_warm(step, 10), 3) for step in (0, 1, 5, 9)]
    [0.497, 0.946, 0.422, 0.006]
    """
    at = (step + 0.5) / max(steps, 1)
    return min(1.0, at / warm) * 0.5 * (1 + math.cos(math.pi * at))


def one_cycle(step: int, steps: int, warm: float = 0.1) -> float:
    """Go up in a line, then down along half a cosine (Smith & Topin, 2019, arXiv 1708.07120).

    Parameters
    ----------
    step, steps : int
    warm : float
        The share of the steps that goes up.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(one_cycle(step, 20), 3) for step in (0, 1, 10, 19)]
    [0.5, 1.0, 0.5, 0.0]
    """
    at = (step + 1) / max(steps, 1)
    if at < warm:
        return at / warm
    return 0.5 * (1 + math.cos(math.pi * (at - warm) / (1 - warm)))


def line(step: int, steps: int, slope: float = 2.5, last: float = 0.02) -> float:
    """Stay at 1, then go down in a line to a small rest.

    Parameters
    ----------
    step, steps : int
    slope : float
        The line falls by so much over the whole run, so that it is met after
        ``1 - 1 / slope`` of the steps.
    last : float
        What is left at the end.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(line(step, 10), 3) for step in (0, 5, 8, 9)]
    [1.0, 1.0, 0.52, 0.27]
    """
    return min(1.0, slope * (1 - step / max(steps, 1)) + last)
