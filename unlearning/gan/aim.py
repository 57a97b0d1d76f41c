"""What a generator that forgot must reach, and the words where it does not."""

from __future__ import annotations

__all__ = ["ADVICE", "missed"]

_LEAST = {"removed": 0.9, "unchanged": 0.97}

ADVICE = (
    "Look at the images first. More steps= (detour_steps= without a mapping) and a larger lr= or "
    "surrogate_weight= remove more; a larger preserve_weight= and n_survey= leave more unchanged; "
    "another wording or encoder tells whether the guide sees the concept at all."
)


def missed(removed: float, unchanged: float) -> list[str]:
    """Name the aims that figures miss; NaN, where nothing could be counted, misses none.

    Parameters
    ----------
    removed : float
        Share of latents with the concept whose image no longer shows it.
    unchanged : float
        Share of the others whose attributes are what they were.

    Returns
    -------
    list of str

    Examples
    --------
    >>> missed(0.081, 0.99)
    ['removed 8.1 % (at least 90 %)']
    """
    found = {"removed": removed, "unchanged": unchanged}
    return [
        f"{name} {100 * value:.1f} % (at least {100 * _LEAST[name]:g} %)"
        for name, value in found.items()
        if value < _LEAST[name]
    ]
