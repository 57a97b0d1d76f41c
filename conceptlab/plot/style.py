"""Colours and small tools that all plots share."""

from __future__ import annotations

__all__ = ["concept_color", "new_axes", "new_figure", "shorten", "to_picture"]

from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours (safe for colour-blind readers), then darker companions.
_PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#8A6FBF",
    "#B5A400",
    "#7F3B08",
    "#1B4F72",
    "#5B8C5A",
    "#A6325A",
)


def concept_color(index: int) -> str:
    """Give concept number `index` its colour, the same one in every plot."""
    return _PALETTE[index % len(_PALETTE)]


def new_figure(width: float, height: float) -> Figure:
    """Make a figure outside pyplot's global list, so that nothing leaks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from conceptlab.plot.figures import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """Give `ax` back, or the one Axes of a new figure."""
    from conceptlab.plot.figures import ShownAxes

    if ax is not None:
        return ax
    return new_figure(width, height).add_subplot(axes_class=ShownAxes)


def bare(ax: Axes) -> None:
    """Take ticks and frame away, for pictures."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def open_frame(ax: Axes) -> None:
    """Leave the left and lower axis only."""
    ax.spines[["top", "right"]].set_visible(False)


def shorten(text: Any, length: int = 28) -> str:
    """Cut a name so that it fits beside a bar; dollar signs are no formulas.

    Halves of characters, as in names of files that are no UTF-8, become question marks.
    """
    text = " ".join(str(text).encode("utf-8", "replace").decode().split())
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.replace("$", r"\$")


def to_picture(image: ArrayLike) -> np.ndarray:
    """Turn a channels-first image into a picture for ``imshow``.

    Parameters
    ----------
    image : array-like of shape (C, H, W)
        Values in [0, 1] are shown as they are; others (a normalised input) are
        stretched to that range. Other channels than one or three are shown as their mean.

    Returns
    -------
    numpy.ndarray of shape (H, W, 3), float32 in [0, 1]
    """
    from conceptlab.arrays import as_numpy

    picture = np.moveaxis(as_numpy(image).astype(np.float32), 0, -1)
    if picture.shape[-1] not in (1, 3):
        picture = picture.mean(axis=-1, keepdims=True)
    low, high = float(picture.min()), float(picture.max())
    if low < -1e-3 or high > 1 + 1e-3:
        picture = (picture - low) / max(high - low, 1e-12)
    if picture.shape[-1] == 1:
        picture = np.repeat(picture, 3, axis=-1)
    return picture.clip(0, 1)
