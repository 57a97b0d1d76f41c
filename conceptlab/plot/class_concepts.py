"""Concepts of a class as bars, and where they were found in images."""

from __future__ import annotations

__all__ = ["class_concept_bars", "window_grid"]

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import as_numpy
from conceptlab.plot.style import bare, concept_color, new_axes, new_figure, open_frame, shorten
from conceptlab.plot.style import to_picture as _picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def class_concept_bars(
    names: Sequence[str],
    contrast: Any,
    frequency: Any,
    *,
    selected: Collection[int] = (),
    top: int = 10,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw what each concept adds to a class, against the next best class.

    Parameters
    ----------
    names : sequence of str
        One a concept.
    contrast : array-like of shape (k,)
        Attribution for the class less the largest of another class.
    frequency : array-like of shape (k,)
        Share of bootstrap draws that select the concept, written beside it.
    selected : collection of int
        Concepts that stand for the class; the others are pale.
    top : int
        The strongest so many are drawn.
    title : str
        A line above.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
    """
    values, share = as_numpy(contrast), as_numpy(frequency)
    order = np.argsort(-values, kind="stable")[:top]
    ax = new_axes(ax, 6.4, 0.9 + 0.32 * len(order))
    places = np.arange(len(order))[::-1]
    reach = float(np.abs(values[order]).max(initial=0.0)) or 1.0
    for place, concept in zip(places, order, strict=True):
        chosen = int(concept) in selected
        ax.barh(
            place,
            values[concept],
            color=concept_color(int(concept)),
            alpha=1.0 if chosen else 0.3,
            height=0.7,
        )
        ax.text(
            max(values[concept], 0) + 0.02 * reach,
            place,
            f"{share[concept]:.0%}",
            va="center",
            fontsize=8,
            color="#555555",
        )
    ax.set_yticks(places, [shorten(names[i]) for i in order])
    ax.axvline(0, color="#333333", linewidth=0.8)
    low, high = ax.get_xlim()
    ax.set_xlim(low, max(high, 0) + 0.12 * reach)
    ax.set_xlabel("adds to the class, more than to any other (share of draws that select it)")
    if title:
        ax.set_title(shorten(title, 80), fontsize=9, loc="left")
    open_frame(ax)
    return ax


def window_grid(
    images: Any, corners: Any, size: tuple[int, int], *, columns: int = 6, caption: str = ""
) -> Figure:
    """Frame the window of each image where a concept was found.

    Parameters
    ----------
    images : array-like of shape (n, c, h, w)
        One or three channels.
    corners : array-like of shape (n, 2)
        Top row and left column.
    size : (int, int)
        Height and width of the windows.
    columns : int
        Images in a row.
    caption : str
        A line above.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.patches import Rectangle

    pictures, places = as_numpy(images), as_numpy(corners)
    rows = -(-len(pictures) // columns)
    figure = new_figure(1.3 * columns, 1.3 * rows + 0.35)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        bare(ax)
    for ax, image, (top, left) in zip(axes.flat, pictures, places, strict=False):
        ax.imshow(_picture(image), interpolation="nearest")
        ax.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5), size[1], size[0], fill=False, edgecolor="#D55E00", lw=2
            )
        )
    if caption:
        figure.suptitle(shorten(caption, 90), fontsize=9)
    return figure
