"""Plots of generators before and after unlearning, from arrays."""

from __future__ import annotations

__all__ = ["before_after_grid", "score_distributions", "share_bars"]

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import as_numpy
from conceptlab.plot.style import (
    bare,
    concept_color,
    new_axes,
    new_figure,
    open_frame,
    shorten,
    to_picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def before_after_grid(pictures: Mapping[str, np.ndarray], *, columns: int = 12) -> Figure:
    """Draw strips of images under each other, one strip a name.

    Parameters
    ----------
    pictures : mapping of str to ndarray of shape (n, 3, height, width)
        In [0, 1]; the same columns are the same latents.
    columns : int
        Images a strip.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> images = np.zeros((4, 3, 8, 8))
    >>> figure = before_after_grid({"before": images, "after": images + 1})
    """
    figure = new_figure(0.62 * columns + 1.6, 0.75 * len(pictures) + 0.2)
    axes = np.atleast_1d(figure.subplots(len(pictures), 1))
    for ax, (name, images) in zip(axes, pictures.items(), strict=True):
        strip = [to_picture(image) for image in images[:columns]]
        gap = np.ones((strip[0].shape[0], 2, 3), dtype=np.float32) if strip else None
        if strip and gap is not None:
            row = np.concatenate([part for image in strip for part in (image, gap)][:-1], axis=1)
            ax.imshow(row, interpolation="nearest")
        bare(ax)
        ax.set_ylabel(
            shorten(name, 60).replace(", ", "\n"),
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
            labelpad=6,
        )
    return figure


def score_distributions(scores: Mapping[str, Any], target: str, *, ax: Axes | None = None) -> Axes:
    """Draw distributions of image-text scores over each other.

    Parameters
    ----------
    scores : mapping of str to array-like of shape (n,)
    target : str
        For the label of the axis.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> scores = np.random.default_rng(0).normal(size=(2, 50))
    >>> axes = score_distributions({"before": scores[0] + 2, "after": scores[1]}, "red")
    """
    ax = new_axes(ax, 6.4, 2.8)
    flat = {name: as_numpy(values).ravel() for name, values in scores.items()}
    every = np.concatenate(list(flat.values()))
    edges = np.linspace(every.min(), every.max() + 1e-9, 41).tolist()
    for number, (name, values) in enumerate(flat.items()):
        ax.hist(
            values,
            edges,
            density=True,
            histtype="stepfilled",
            alpha=0.45,
            color=concept_color(number),
            label=f"{shorten(name, 40)} ({len(values)})",
        )
    ax.set_xlabel(f"score of {shorten(target)!r} less that of the anchor")
    ax.set_yticks([])
    ax.legend(frameon=False, fontsize=8)
    open_frame(ax)
    return ax


def share_bars(shares: Mapping[str, float], *, ax: Axes | None = None) -> Axes:
    """Draw shares between 0 and 1 as bars.

    Parameters
    ----------
    shares : mapping of str to float
        Names begin with who says so and a colon; each of them gets its colour.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes = share_bars({"judge: removed": 0.9, "guide: removed": 0.8})
    """
    ax = new_axes(ax, 7.0, 0.6 + 0.28 * len(shares))
    who = {
        name: number for number, name in enumerate(dict.fromkeys(k.split(":")[0] for k in shares))
    }
    at = np.arange(len(shares))
    ax.barh(
        at, list(shares.values()), 0.7, color=[concept_color(who[k.split(":")[0]]) for k in shares]
    )
    for y, value in zip(at, shares.values(), strict=True):
        ax.text(value + 0.01, float(y), f"{100 * value:.1f} %", va="center", fontsize=8)
    ax.set_yticks(at, [shorten(name, 44) for name in shares])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    open_frame(ax)
    return ax
