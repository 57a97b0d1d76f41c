"""Bars of concept importance with their intervals."""

from __future__ import annotations

__all__ = ["importance_bars"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.plot.style import concept_color, new_axes, open_frame, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def importance_bars(
    importance: Any,
    names: Sequence[str] | None = None,
    *,
    top: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw global importances, the largest on top, with confidence whiskers.

    Parameters
    ----------
    importance : Importance
        With ``mean`` (k,), ``interval`` (k, 2) and, where known, ``signed`` (n, k).
    names : sequence of str, optional
        One name a concept.
    top : int, optional
        How many concepts to show; all by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    A hatched bar speaks *against* the target: on average its concept lowers the
    output, which the total index alone cannot tell.

    Examples
    --------
    >>> from conceptlab import SobolImportance
    >>> U = np.random.default_rng(0).random((5, 3))
    >>> found = SobolImportance(random_state=0)(lambda u: u[:, :1] + u[:, 1:2], U, target=0)
    >>> axes = importance_bars(found, ["red", "round", "dotted"])
    """
    mean = np.asarray(importance.mean)
    interval = np.asarray(importance.interval)
    names = list(names) if names is not None else [f"concept {i}" for i in range(len(mean))]
    order = np.argsort(-mean, kind="stable")[: top or len(mean)]
    ax = new_axes(ax, 6.0, 0.8 + 0.34 * len(order))
    signed = getattr(importance, "signed", None)
    against = (
        np.asarray(signed).mean(axis=0) < 0 if signed is not None else np.zeros(len(mean), bool)
    )
    places = np.arange(len(order))[::-1]
    for place, concept in zip(places, order, strict=True):
        ax.barh(
            place,
            mean[concept],
            color=concept_color(int(concept)),
            hatch="///" if against[concept] else None,
            edgecolor="white",
            linewidth=0.5,
            height=0.72,
        )
        low, high = interval[concept]
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [place, place], color="#333333", linewidth=1.4)
    ax.set_yticks(places, [shorten(names[i]) for i in order])
    ax.set_xlim(left=0)
    ax.set_xlabel("importance (total Sobol index)")
    if against[order].any():
        ax.set_title("hatched: lowers the output", fontsize=9, loc="right", color="#555555")
    open_frame(ax)
    return ax
