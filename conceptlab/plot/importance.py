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
    decision: Any = None,
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
    decision : Decision, optional
        Whether the concepts carry the model's decision: both figures stand above the bars, and
        where one is below its bar these are pale.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    A hatched bar speaks *against* the target: on average its concept lowers the
    output, which the total index alone cannot tell. A grey bar is what the concepts do not
    code, where that was a player.

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
    rest = getattr(importance, "rest", None)
    n_bars = len(order) + (rest is not None)
    ax = new_axes(ax, 6.0, 0.8 + 0.34 * n_bars)
    alpha = 0.35 if decision is not None and not decision.carries else 1.0
    signed = getattr(importance, "signed", None)
    against = (
        np.asarray(signed).mean(axis=0) < 0 if signed is not None else np.zeros(len(mean), bool)
    )
    places = np.arange(n_bars)[::-1]
    for place, concept in zip(places, order, strict=False):
        ax.barh(
            place,
            mean[concept],
            color=concept_color(int(concept)),
            hatch="///" if against[concept] else None,
            edgecolor="white",
            linewidth=0.5,
            height=0.72,
            alpha=alpha,
        )
        low, high = interval[concept]
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [place, place], color="#333333", linewidth=1.4)
    labels = [shorten(names[i]) for i in order]
    if rest is not None:
        ax.barh(0, rest.mean(), color="#999999", height=0.72, alpha=alpha)
        ax.plot(importance.rest_interval, [0, 0], color="#333333", linewidth=1.4)
        labels.append("the rest")
    ax.set_yticks(places, labels)
    ax.set_xlim(left=0)
    ax.set_xlabel("importance (total Sobol index)")
    notes = [decision.short()] if decision is not None else []
    if alpha < 1:
        notes.append("pale: these concepts do not carry the decision")
    if against[order].any():
        notes.append("hatched: lowers the output")
    if notes:
        ax.set_title("\n".join(notes), fontsize=9, loc="right", color="#555555")
    open_frame(ax)
    return ax
