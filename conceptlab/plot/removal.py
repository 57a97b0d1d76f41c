"""Plots of object-removal evaluations, from arrays."""

from __future__ import annotations

__all__ = [
    "agreement_plot",
    "class_bars",
    "concept_bars",
    "dilation_curves",
    "picture_grid",
    "ranking_plot",
]

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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


def ranking_plot(
    names: Sequence[str],
    values: np.ndarray,
    ranks: Sequence[int],
    *,
    title: str,
    floor: float | None = None,
    ceiling: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw values with intervals, the best on top.

    Parameters
    ----------
    names : sequence of str
        The removers, best first.
    values : ndarray of shape (r, 3)
        Value, low and high; intervals may be NaN.
    ranks : sequence of int
        Equal ranks share a colour.
    title : str
        Name of the score.
    floor, ceiling : float, optional
        Drawn as lines.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 7.2, 1.2 + 0.28 * len(names))
    at = np.arange(len(names))
    order = {rank: number for number, rank in enumerate(dict.fromkeys(ranks))}
    colours = [concept_color(order[rank]) for rank in ranks]
    for line, label in ((floor, "floor"), (ceiling, "ceiling (originals)")):
        if line is not None:
            style = ":" if label == "floor" else "--"
            ax.axvline(
                line, color="#888888", lw=1.1, ls=style, label=f"{label} {line:.3g}", zorder=1
            )
    whole = np.isfinite(values).all(axis=1)
    ax.hlines(at[whole], values[whole, 1], values[whole, 2], color="#555555", lw=1.6, zorder=2)
    ax.scatter(values[:, 0], at, c=colours, s=34, zorder=3, edgecolor="white", linewidth=0.6)
    ax.set_yticks(at, [f"{shorten(n)}  {r}" for n, r in zip(names, ranks, strict=True)])
    ax.invert_yaxis()
    ax.set_xlabel(shorten(title, 80))
    if floor is not None or ceiling is not None:
        ax.legend(
            frameon=False,
            fontsize=8,
            ncols=2,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
        )
    open_frame(ax)
    return ax


def class_bars(
    names: Sequence[str],
    classes: Sequence[str],
    values: np.ndarray,
    *,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw a score of every remover for each class.

    Parameters
    ----------
    names : sequence of str
        The r removers.
    classes : sequence of str
        The c classes.
    values : ndarray of shape (c, r)
        The score.
    title : str
        Its name.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 7.2, 1.2 + 0.3 * len(names))
    order = np.argsort(values.mean(axis=0), kind="stable")
    height = 0.8 / len(classes)
    at = np.arange(len(names))
    for number, (label, row) in enumerate(zip(classes, values, strict=True)):
        offset = (number - (len(classes) - 1) / 2) * height
        ax.barh(at + offset, row[order], height, label=shorten(label), color=concept_color(number))
    if values.min() > 0 and values.max() > 8 * np.median(values):
        ax.set_xscale("log")
    ax.set_yticks(at, [shorten(names[i]) for i in order])
    ax.invert_yaxis()
    ax.set_xlabel(shorten(title, 80))
    ax.legend(frameon=False, fontsize=8, title="class", title_fontsize=8)
    open_frame(ax)
    return ax


def dilation_curves(
    curves: Mapping[str, np.ndarray],
    *,
    title: str,
    floor: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a score over the dilation of the masks: how removers take masks that are not exact.

    Parameters
    ----------
    curves : mapping of str to ndarray of shape (k, 4)
        For each remover dilation, value, low and high; NaN where there is no interval.
    title : str
        Name of the score.
    floor : float, optional
        What a perfect removal scores.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 6.4, 3.6)
    for number, (name, curve) in enumerate(curves.items()):
        colour = concept_color(number)
        ax.plot(curve[:, 0], curve[:, 1], "o-", color=colour, lw=1.6, ms=4, label=shorten(name))
        if np.isfinite(curve[:, 2:]).all():
            ax.fill_between(curve[:, 0], curve[:, 2], curve[:, 3], color=colour, alpha=0.15, lw=0)
    if floor is not None:
        ax.axhline(floor, color="#888888", lw=1.1, ls=":", label=f"floor {floor:.3g}")
    ax.axvline(0, color="#cccccc", lw=0.8, zorder=0)
    ax.set_xlabel("pixels that masks grow by (below 0: rims of the object are left)")
    ax.set_ylabel(shorten(title, 80))
    ax.legend(frameon=False, fontsize=8)
    open_frame(ax)
    return ax


def concept_bars(frame: Any, *, title: str, top: int = 12, ax: Axes | None = None) -> Axes:
    """Draw what removed images have too much or too little of.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ``concept``, ``shift`` and ``target``, the largest contribution first.
    title : str
        Heading.
    top : int
        Concepts to show; the target always.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    target = frame[frame.target]
    shown = frame.head(top)
    if len(target) and not shown.target.any():
        shown = type(frame)([*shown.head(top - 1).to_dict("records"), *target.to_dict("records")])
    shown = shown.sort_values("shift", ascending=False)
    ax = new_axes(ax, 6.4, 1.0 + 0.27 * len(shown))
    colours = ["#D55E00" if t else "#0072B2" for t in shown.target]
    at = np.arange(len(shown))
    ax.barh(at, shown["shift"], color=colours, height=0.7)
    ax.axvline(0, color="#444444", lw=0.8)
    most = max(float(np.abs(frame["shift"]).max()), 0.5) * 1.08
    ax.set_xlim(-most, most)
    names = [
        f"{shorten(n)} (class)" if t else shorten(n)
        for n, t in zip(shown.concept, shown.target, strict=True)
    ]
    ax.set_yticks(at, names)
    ax.invert_yaxis()
    ax.set_xlabel("more than in images without the class →  (standard deviations)")
    ax.set_title(shorten(title, 80), fontsize=10, loc="left")
    open_frame(ax)
    return ax


def agreement_plot(
    names: Sequence[str],
    truth: np.ndarray,
    score: np.ndarray,
    *,
    titles: tuple[str, str],
    tau: float,
    ax: Axes | None = None,
) -> Axes:
    """Draw a score against what the truth says, a point for each remover.

    Parameters
    ----------
    names : sequence of str
        The removers.
    truth, score : ndarray of shape (r,)
        The two scores.
    titles : (str, str)
        Their names.
    tau : float
        Kendall's rank correlation.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 6.4, 4.6)
    ax.scatter(truth, score, color="#0072B2", s=28, zorder=3)
    spread = truth.max() > 20 * np.median(truth[truth > 0]) if (truth > 0).any() else False
    if spread:
        ax.set_xscale("symlog", linthresh=float(np.quantile(truth[truth > 0], 0.25)))
    if (score > 0).all() and score.max() > 8 * np.median(score):
        ax.set_yscale("log")
    # Points without room between them share one label, in the order of the truth.
    ax.autoscale_view()  # else positions are those of empty axes
    box = ax.transData.transform(np.stack([truth, score], axis=1))
    groups: list[list[int]] = []
    for i in np.argsort(truth, kind="stable"):
        near = [g for g in groups if (np.abs(box[i] - box[g[-1]]) < (150, 24)).all()]
        if near:
            near[0].append(int(i))
        else:
            groups.append([int(i)])
    middle = ax.get_window_extent().x0 + 0.5 * ax.get_window_extent().width
    for group in groups:
        right = box[group].mean(axis=0)[0] > middle
        end = group[-1] if right else group[0]
        label = ", ".join(shorten(names[i], 18) for i in group)
        ax.annotate(
            textwrap.fill(label, 44),
            (truth[end], score[end]),
            fontsize=7.5,
            va="bottom",
            xytext=(4 if right else -4, 6),
            textcoords="offset points",
            ha="right" if right else "left",
        )
    ax.set_xlabel(shorten(titles[0], 80))
    ax.set_ylabel(shorten(titles[1], 80))
    ax.set_title(f"Kendall's τ = {tau:.2f}", fontsize=10, loc="left")
    open_frame(ax)
    return ax


def picture_grid(images: np.ndarray, labels: Sequence[str], *, title: str) -> Figure:
    """Show originals, removed images and true removals side by side.

    Parameters
    ----------
    images : ndarray of shape (m, k, 3, H, W), uint8
        m pictures, the worst first; k is 2 or 3.
    labels : sequence of str
        What each picture is called.
    title : str
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
    """
    count, kinds = images.shape[:2]
    figure = new_figure(1.25 * count + 0.9, 1.25 * kinds + 0.8)
    grid = figure.subplots(kinds, count, squeeze=False)
    rows = ("original", "removed", "truth")[:kinds]
    for column in range(count):
        for row in range(kinds):
            ax = grid[row][column]
            picture = to_picture(images[column, row] / np.float32(255))
            ax.imshow(picture, interpolation="nearest" if picture.shape[0] < 100 else None)
            bare(ax)
            if column == 0:
                ax.set_ylabel(rows[row], fontsize=9)
        place = "worst" if column < count / 2 else "best"
        grid[0][column].set_title(f"{place}\n{shorten(labels[column], 16)}", fontsize=7.5)
    figure.suptitle(shorten(title, 80), fontsize=10)
    return figure
