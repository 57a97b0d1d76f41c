"""Plots of unlearning audits, from arrays."""

from __future__ import annotations

__all__ = ["concept_pair", "destination_bars", "figure_bars", "relearn_curves"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.plot.style import new_axes, new_figure, open_frame, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAIN, _OWN, _REST, _FLOOR = "#0072B2", "#D55E00", "#9aa5b1", "#cfd5db"
_LINES = ("#222222", "#888888", "#E69F00", "#009E73")


def figure_bars(
    names: Sequence[str],
    values: Mapping[str, np.ndarray],
    *,
    main: str,
    reference: str = "retrained",
    floor: np.ndarray | None = None,
    groups: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw shares of one model as bars, others as marks, with a reference and its noise.

    Parameters
    ----------
    names : sequence of m str
        The figures.
    values : mapping of str to ndarray of shape (m,)
        By model; NaN where a figure was not measured.
    main : str
        The model of the bars.
    reference : str
        The model drawn as a line, where it is in `values`.
    floor : ndarray of shape (m,), optional
        Half width of the band around the reference.
    groups : sequence of m str
        Figures of one group stand together.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke

    at, place = np.zeros(len(names)), 0.0
    for i in range(len(names)):
        if i and groups and groups[i] != groups[i - 1]:
            place += 0.55
        at[i] = place
        place += 1.0
    ax = new_axes(ax, 7.6, 1.1 + 0.27 * place)
    shown = np.nan_to_num(values[main])
    ax.barh(at, shown, height=0.62, color=_MAIN, label=shorten(main), zorder=2)
    handles: list[Any] = [Patch(color=_MAIN, label=shorten(main))]
    if reference in values:
        middle = values[reference]
        if floor is not None and np.isfinite(floor).any():
            wide = np.nan_to_num(floor)
            low = (np.nan_to_num(middle) - wide).clip(0)
            high = (np.nan_to_num(middle) + wide).clip(0)
            ax.barh(
                at,
                high - low,
                height=0.86,
                left=low,
                color=_FLOOR,
                alpha=0.85,
                zorder=1,
            )
            handles.append(Patch(color=_FLOOR, label="noise floor"))
        whole = np.isfinite(middle)
        line = ax.vlines(
            middle[whole],
            at[whole] - 0.43,
            at[whole] + 0.43,
            color="black",
            lw=2.2,
            zorder=4,
            label=shorten(reference),
        )
        handles.append(line)
    marks = {"D": [k for k in values if k.endswith("mask")], "x": [next(iter(values))]}
    for mark, labels in marks.items():
        for label in labels:
            if label in (main, reference):
                continue
            style: dict[str, Any] = {"color": "#555555"}
            if mark == "D":
                style = {"facecolors": "none", "edgecolors": _OWN}
            drawn = ax.scatter(values[label], at, marker=mark, s=26, lw=1.3, zorder=5, **style)
            drawn.set_label(shorten(label))
            drawn.set_path_effects([withStroke(linewidth=3, foreground="white")])
            handles.append(drawn)
    ax.set_yticks(at, [shorten(n) for n in names])
    ax.set_ylim(place - 0.35, -0.65)
    ax.set_xlim(-0.02, 1.03)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#e6e9ec", lw=0.7, zorder=0)
    ax.set_axisbelow(True)
    ax.legend(
        handles=handles,
        frameon=False,
        fontsize=8,
        ncols=len(handles),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )
    open_frame(ax)
    return ax


def concept_pair(
    names: Sequence[str],
    attributions: Mapping[str, np.ndarray],
    *,
    left: str,
    right: str,
    own: Sequence[int] = (),
    exclusive: Sequence[int] = (),
    title: str = "logit",
    top: int = 10,
) -> Figure:
    """Draw what concepts add to a logit, before and after, side by side.

    Parameters
    ----------
    names : sequence of k str
        The concepts.
    attributions : mapping of str to ndarray of shape (k,)
        By model. Those that are neither `left` nor `right` are drawn on the right as marks
        if their name starts with "retrained".
    left, right : str
        The models of the two panels.
    own : sequence of int
        Concepts of the class, drawn first and in another colour.
    exclusive : sequence of int
        Those that no other class has, marked by a star.
    title : str
        What the attributions are of.
    top : int
        Concepts to show.

    Returns
    -------
    matplotlib.figure.Figure
    """
    first, second = attributions[left], attributions[right]
    size = np.maximum(np.abs(first), np.abs(second))
    rest = [k for k in np.argsort(-size, kind="stable") if k not in set(own)]
    mine = sorted(own, key=lambda k: -size[k])[:top]
    order = [*mine, *rest[: max(0, top - len(mine))]]
    at = np.arange(len(order))
    figure = new_figure(8.0, 1.35 + 0.29 * len(order))
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    colours = [_OWN if k in set(own) else _REST for k in order]
    for ax, values, name in zip(panels, (first, second), (left, right), strict=True):
        ax.barh(at, values[order], height=0.68, color=colours, zorder=2)
        ax.axvline(0, color="#444444", lw=0.8, zorder=3)
        ax.set_title(shorten(name, 40), fontsize=10, loc="left")
        ax.grid(axis="x", color="#e6e9ec", lw=0.7, zorder=0)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        open_frame(ax)
    for name, values in attributions.items():
        if name == "retrained":
            panels[1].vlines(
                values[order], at - 0.4, at + 0.4, color="black", lw=2.0, zorder=4, label=name
            )
            panels[1].legend(
                frameon=False,
                fontsize=8,
                loc="lower right",
                bbox_to_anchor=(1, 1),
                borderaxespad=0.1,
            )
    labels = [f"{shorten(names[k])}{' ★' if k in set(exclusive) else ''}" for k in order]
    panels[0].set_yticks(at, labels)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    drawn = [first[order], second[order]]
    drawn += [values[order] for name, values in attributions.items() if name == "retrained"]
    low, high = min(v.min() for v in drawn), max(v.max() for v in drawn)
    span = max(float(high - low), 1e-9)
    panels[0].set_xlim(min(low, 0) - 0.05 * span, max(high, 0) + 0.05 * span)
    star = "; ★ no other class has it" if set(exclusive) & set(order) else ""
    figure.supxlabel(
        f"adds to the {shorten(title, 40)}  (orange: concepts of the class{star})", fontsize=9
    )
    return figure


def relearn_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    target: float,
    emphasis: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw forget accuracy against the steps of relearning.

    Parameters
    ----------
    curves : mapping of str to (steps, accuracy)
        By model.
    target : float
        The accuracy that counts as known again, a dashed line.
    emphasis : str, optional
        The model drawn boldly.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 6.6, 3.6)
    ax.axhline(target, color="#999999", lw=1.0, ls="--", zorder=1)
    others = iter(_LINES)
    colours = {
        "logit mask": _OWN,
        "retrained": "#222222",
        "retrained again": "#888888",
    }
    longest = max(float(steps[-1]) for steps, _ in curves.values())
    for name, (steps, accuracy) in curves.items():
        bold = name == emphasis
        colour = _MAIN if bold else colours.get(name) or next(others)
        ax.plot(
            steps,
            accuracy,
            color=colour,
            lw=2.4 if bold else 1.5,
            zorder=4 if bold else 3,
            ls="-" if name != "retrained again" else "-.",
            label=f"{shorten(name)} ({int(steps[-1])})",
        )
        done = accuracy[-1] >= target
        ax.plot(
            steps[-1:], accuracy[-1:], marker="o" if done else "x", ms=6, color=colour, zorder=5
        )
    ax.text(0, target + 0.015, "known again", va="bottom", fontsize=8, color="#777777")
    ax.set_xlim(-0.01 * longest, 1.02 * longest)
    ax.set_ylim(-0.02, 1.08)
    ax.set_xlabel("mini-batches  (● known again with retained classes intact, × given up)")
    ax.set_ylabel("accuracy on forget samples")
    ax.legend(
        frameon=False,
        fontsize=8,
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )
    open_frame(ax)
    return ax


def destination_bars(
    classes: Sequence[str],
    values: Mapping[str, np.ndarray],
    *,
    forgotten: Sequence[int] = (),
    top: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Draw what models say on samples of a forgotten class.

    Parameters
    ----------
    classes : sequence of C str
        All classes.
    values : mapping of str to ndarray of shape (C,)
        Mean probabilities by model.
    forgotten : sequence of int
        The forgotten classes, drawn first.
    top : int
        Classes to show; the likeliest.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    most = np.max(list(values.values()), axis=0)
    rest = [c for c in np.argsort(-most, kind="stable") if c not in set(forgotten)]
    order = [*forgotten, *rest][: max(top, len(forgotten))]
    colours = {
        "original": "#9aa5b1",
        "unlearned": _MAIN,
        "logit mask": _OWN,
        "retrained": "#222222",
        "retrained again": "#888888",
    }
    width = 0.82 / len(values)
    at = np.arange(len(order))
    ax = new_axes(ax, max(6.8, 1.6 + 0.62 * len(order)), 3.4)
    for number, (name, mean) in enumerate(values.items()):
        offset = (number - (len(values) - 1) / 2) * width
        colour = colours.get(name, _LINES[number % len(_LINES)])
        ax.bar(at + offset, mean[order], width, color=colour, label=shorten(name))
    marked = [f"{shorten(classes[c], 14)}{'*' if c in set(forgotten) else ''}" for c in order]
    turned = max(len(m) for m in marked) > 7
    ax.set_xticks(
        at, marked, rotation=30 if turned else 0, ha="right" if turned else "center", fontsize=9
    )
    ax.set_ylim(0, 1.0)
    ax.set_ylabel("mean probability")
    ax.legend(
        frameon=False,
        fontsize=8,
        ncols=len(values),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )
    open_frame(ax)
    return ax
