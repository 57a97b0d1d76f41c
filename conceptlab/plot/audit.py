"""Margins and faults of concepts, class by class."""

from __future__ import annotations

__all__ = ["audit_plot"]

from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.plot.style import concept_color, new_figure, open_frame, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FAULT_COLOURS = {
    "duplicate": "#E69F00",
    "near-duplicate": "#B5A400",
    "own name": "#CC79A7",
    "other name": "#8A6FBF",
    "negative margin": "#D55E00",
    "too long": "#7F3B08",
}


def audit_plot(audit: Any, *, max_classes: int = 20) -> Figure:
    """Draw what an audit found: left the margins of the concepts, right their faults.

    Parameters
    ----------
    audit : BankAudit
        From :func:`conceptlab.vocabulary.audit`.
    max_classes : int
        Classes shown: those with the fewest concepts without fault.

    Returns
    -------
    matplotlib.figure.Figure
        One Axes where margins were not measured, else two.

    Examples
    --------
    >>> from conceptlab.vocabulary import ClassConcepts, audit
    >>> found = audit(ClassConcepts({"newt": ["a newt", "a tail"], "frog": ["a tail", "no tail"]}))
    >>> figure = audit_plot(found)
    """
    table = audit.by_class()
    order = np.lexsort((table["concepts"].to_numpy(), table["clean"].to_numpy()))[:max_classes]
    height = 1.4 + 0.3 * len(order)
    has_margins = audit.margins is not None
    figure = new_figure(10.5 if has_margins else 6.5, height)
    axes = figure.subplots(1, 2 if has_margins else 1, squeeze=False, sharey=True)[0]
    places = np.arange(len(order))[::-1]
    if has_margins:
        _draw_margins(axes[0], audit, order, places)
    _draw_faults(axes[-1], audit, order, places)
    names = [shorten(audit.concepts.classes[k]) for k in order]
    axes[0].set_yticks(places, names)
    axes[0].set_ylim(-0.7, len(order) - 0.3)
    left = len(audit.concepts) - len(order)
    if left > 0:
        axes[0].set_title(
            f"the {len(order)} classes with the fewest sound concepts; {left} more",
            fontsize=9,
            loc="left",
            color="#555555",
        )
    return figure


def _draw_margins(ax: Axes, audit: Any, order: np.ndarray, places: np.ndarray) -> None:
    rng = np.random.default_rng(0)  # a fixed jitter, so that the picture is always the same
    for place, k in zip(places, order, strict=True):
        start, stop = audit.concepts.ranges[k]
        row = audit.margins[start:stop]
        row = row[np.isfinite(row)]
        heights = place + rng.uniform(-0.22, 0.22, size=len(row))
        for mask, colour in (
            (row >= 0, concept_color(0)),
            (row < 0, _FAULT_COLOURS["negative margin"]),
        ):
            ax.scatter(row[mask], heights[mask], s=14, color=colour, alpha=0.65, linewidths=0)
        if len(row):
            ax.plot(
                [np.median(row)] * 2, [place - 0.33, place + 0.33], color="#222222", linewidth=1.6
            )
    ax.axvline(0, color="#888888", linewidth=0.9)
    ax.set_xlabel("margin: cosine with own class − with nearest other\n(line: median)")
    open_frame(ax)


def _draw_faults(ax: Axes, audit: Any, order: np.ndarray, places: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    # A concept with several faults is counted under the first, so that bars add up.
    first = np.full(audit.concepts.n_concepts, -1)
    names = list(audit.faults)
    for number in reversed(range(len(names))):
        first[audit.faults[names[number]]] = number
    labels, size = audit.concepts.labels, len(audit.concepts)
    left = np.zeros(len(order))
    parts = [("without fault", "#C9D3DC", first == -1)]
    parts += [(name, _FAULT_COLOURS[name], first == i) for i, name in enumerate(names)]
    for name, colour, mask in parts:
        width = np.bincount(labels[mask], minlength=size)[order]
        if width.any():
            ax.barh(places, width, left=left, color=colour, height=0.72, label=name, linewidth=0)
        left += width
    ax.axvline(audit.min_concepts, color="#888888", linewidth=0.9, linestyle=":")
    ax.set_xlabel(f"concepts (dotted: {audit.min_concepts}, fewer is near-empty)")
    ax.set_xlim(0, max(float(left.max(initial=0)), audit.min_concepts) * 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if left.any():
        ax.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=4,
            fontsize=8,
            frameon=False,
            handlelength=1.1,
            columnspacing=1.2,
        )
    open_frame(ax)
