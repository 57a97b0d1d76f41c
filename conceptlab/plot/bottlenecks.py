"""Classifiers that decide through concepts: weights, one row's reasons, interventions."""

from __future__ import annotations

__all__ = ["intervention_plot", "waterfall", "weight_map"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_floats, as_numpy
from conceptlab.plot.style import concept_color, new_axes, open_frame, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UP, _DOWN, _REST = "#0072B2", "#D55E00", "#999999"


def waterfall(
    contributions: ArrayLike,
    names: Sequence[str],
    *,
    start: float = 0.0,
    residual: float | None = None,
    title: str = "logit",
    top: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw a logit as steps from the bias, one for each concept, to the sum.

    Parameters
    ----------
    contributions : array-like of shape (k,)
        What each concept adds.
    names : sequence of k str
    start : float
        The bias.
    residual : float, optional
        What goes round the concepts, drawn last.
    title : str
        What the sum is.
    top : int
        Concepts to show, the largest first; the others are drawn as one step, so that the
        steps add up. Concepts that add nothing are not shown.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes = waterfall([1.0, -0.5], ["red", "round"], start=0.2)
    """
    values = as_floats(contributions, "contributions")
    order = [int(j) for j in np.argsort(-np.abs(values), kind="stable") if values[j] != 0]
    shown = order if len(order) <= top else order[: max(top - 1, 1)]
    steps = [("bias", start, _REST)]
    steps += [(shorten(names[j], 34), values[j], "") for j in shown]
    left = order[len(shown) :]
    if left:
        steps.append((f"the other {len(left)} together", float(values[left].sum()), ""))
    if residual is not None:
        steps.append(("residual", residual, "#CC79A7"))
    ax = new_axes(ax, 6.4, 1.1 + 0.34 * (len(steps) + 1))
    height, at = 0.66, 0.0
    ends = np.cumsum([value for _, value, _ in steps])
    low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
    span = max(high - low, 1e-12)
    for row, (_, value, colour) in enumerate(steps):
        ax.barh(
            row,
            value,
            left=at,
            height=height,
            edgecolor="white",
            linewidth=0.5,
            color=colour or (_UP if value > 0 else _DOWN),
        )
        tip = max(at, at + value) + 0.012 * span
        ax.text(tip, row, f"{value:+.2f}", va="center", fontsize=8, color="#444444")
        at += value
        ax.plot([at, at], [row - height / 2, row + 1 + height / 2], color="#bbbbbb", lw=0.8)
    total = len(steps)
    ax.barh(total, at, height=height, color="#333333")
    ax.text(
        max(at, 0) + 0.012 * span, total, f"{at:.2f}", va="center", fontsize=8, fontweight="bold"
    )
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    ax.set_yticks(range(total + 1), [*(name for name, _, _ in steps), shorten(title, 34)])
    ax.tick_params(axis="y", labelsize=9, length=0)
    ax.set_ylim(total + 0.6, -0.6)
    ax.set_xlim(low - 0.04 * span, high + 0.14 * span)
    ax.set_xlabel("contribution to the logit")
    open_frame(ax)
    return ax


def weight_map(
    weights: ArrayLike,
    names: Sequence[str],
    classes: Any,
    *,
    top: int | None = 30,
    ax: Axes | None = None,
) -> Axes:
    """Draw weights by class and concept; weights of zero stay blank.

    Parameters
    ----------
    weights : array-like of shape (K, k)
    names : sequence of k str
    classes : array-like of K names
    top : int, optional
        So many concepts: the strongest of every class, then the second of every class, and so
        on; None shows all that any class uses. They are sorted by the class in which they are
        strongest.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes = weight_map([[1.0, 0.0], [0.5, -1.0]], ["red", "round"], ["apple", "sky"])
    """
    table = as_floats(weights, "weights")
    strength = np.abs(table).max(axis=0)
    used = np.flatnonzero(strength > 0)
    # By place within a class, so that no class is left without a concept for want of room.
    place = np.argsort(np.argsort(-np.abs(table), axis=1, kind="stable"), axis=1)
    first = np.where(table != 0, place, table.shape[1]).min(axis=0, initial=table.shape[1])
    kept = used[np.lexsort((-strength[used], first[used]))][: top or None]
    peak = np.abs(table[:, kept]).argmax(axis=0)
    kept = kept[np.lexsort((-strength[kept], peak))]
    shown = table[:, kept]
    ax = new_axes(ax, 2.2 + 0.36 * max(len(kept), 3), 1.7 + 0.32 * len(table))
    limit = max(float(np.abs(shown).max(initial=0.0)), 1e-12)
    image = ax.imshow(
        np.where(shown == 0, np.nan, shown), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto"
    )
    ax.set_facecolor("#f4f4f4")
    ax.set_xticks(
        range(len(kept)),
        [shorten(names[j], 24) for j in kept],
        rotation=45,
        ha="right",
        rotation_mode="anchor",
        fontsize=9,
    )
    ax.set_yticks(range(len(table)), [shorten(label, 24) for label in classes], fontsize=9)
    ax.set_xticks(np.arange(len(kept) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(table) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.figure.colorbar(image, ax=ax, label="weight", fraction=0.04, pad=0.02)
    hidden = len(used) - len(kept)
    if hidden:
        ax.set_title(f"{hidden} more concepts are not shown", fontsize=9, color="#555555")
    return ax


def intervention_plot(
    curves: Mapping[str, tuple[Any, Any]],
    *,
    n_samples: int | None = None,
    baseline: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against the number of concepts that were set to the truth.

    Parameters
    ----------
    curves : mapping of str to (steps, accuracy)
        One curve for each policy.
    n_samples : int, optional
        Rows behind each point; gives a band of two standard errors.
    baseline : float, optional
        Another accuracy, such as that of a dense probe, as a dashed line.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> steps = np.arange(3)
    >>> axes = intervention_plot({"random": (steps, [0.6, 0.7, 0.8])}, n_samples=100)
    """
    from matplotlib.ticker import MaxNLocator

    ax = new_axes(ax, 6.0, 4.0)
    for number, (name, (steps, accuracy)) in enumerate(curves.items()):
        x, p = as_numpy(steps), as_floats(accuracy, "accuracy")
        colour = concept_color(number)
        if n_samples:
            error = 2 * np.sqrt(p * (1 - p) / n_samples)
            low, high = (p - error).clip(0, 1), (p + error).clip(0, 1)
            ax.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
        ax.plot(x, p, color=colour, lw=2, marker="o", ms=3.5, label=shorten(name))
    if baseline is not None:
        ax.axhline(baseline, color="#777777", lw=1.2, ls="--", label="dense probe")
    ax.set_xlabel("concepts set to the truth in each row")
    ax.set_ylabel("accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = ax.get_ylim()
    ax.set_ylim(low, min(high, 1.02))
    ax.legend(frameon=False, fontsize=9)
    open_frame(ax)
    return ax
