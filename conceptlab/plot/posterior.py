"""The evidence of concepts for an image's class, beside that for the next best."""

from __future__ import annotations

__all__ = ["evidence_bars", "posterior_bars"]

from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.plot.style import concept_color, new_axes, open_frame, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#0072B2", "#E69F00")
_ROLES = ("winner", "runner-up")


def evidence_bars(
    explanation: Any, image: int = 0, *, top: int = 8, ax: Axes | None = None
) -> Axes:
    """Draw what the concepts of winner and runner-up add to their scores.

    Parameters
    ----------
    explanation : ZeroShotExplanation
        From :meth:`conceptlab.zeroshot.BayesianZeroShot.explain`.
    image : int
        Which of its images.
    top : int
        Concepts of each class, by the size of their evidence; the others are
        drawn together as one bar, so that the bars add up.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    Hatched bars are outliers: concepts whose similarity lies far from the
    median of their class.
    """
    groups = [_group(explanation, image, role, top) for role in (0, 1)]
    height = sum(len(values) for _, values, _ in groups) + 3
    ax = new_axes(ax, 6.4, 0.9 + 0.27 * height)
    places: list[float] = []
    labels: list[str] = []
    place = 0.0
    for role, (names, values, flags) in enumerate(groups):
        k = explanation.columns[image, role]
        title = (
            f"{_ROLES[role]}: {shorten(explanation.class_names[k], 34)}   score "
            f"{explanation.score[image, role]:.2f}   "
            f"$\\rho$ {explanation.rho[image, role]:.2f}   "
            f"$\\kappa$ {explanation.kappa[image, role]:.2f}"
        )
        ax.text(
            0.0,
            place,
            title,
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color="#333333",
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        place -= 1
        for name, value, flag in zip(names, values, flags, strict=True):
            ax.barh(
                place,
                value,
                height=0.75,
                color=_COLORS[role],
                edgecolor="white",
                linewidth=0.5,
                hatch="////" if flag else None,
            )
            places.append(place)
            labels.append(shorten(name, 34))
            place -= 1
        place -= 0.4
    ax.axvline(0, color="#999999", linewidth=0.8)
    ax.set_yticks(places, labels, fontsize=9)
    ax.set_ylim(place + 0.6, 0.8)
    ax.margins(x=0.08)
    ax.set_xlabel("evidence in logits (hatched: outlier)")
    ax.set_title(
        f"log-odds of the winner {explanation.log_odds[image]:.2f}",
        fontsize=9,
        loc="right",
        color="#555555",
    )
    open_frame(ax)
    return ax


def _group(
    explanation: Any, image: int, role: int, top: int
) -> tuple[list[str], np.ndarray, list[bool]]:
    names = explanation.names(image, role)
    values = explanation.evidence[image, role, : len(names)]
    flags = explanation.outlier[image, role, : len(names)] != 0
    order = np.argsort(-np.abs(values), kind="stable")
    kept = order[:top] if len(order) > top + 1 else order
    kept = kept[np.argsort(-values[kept], kind="stable")]
    shown = [names[c] for c in kept]
    bars, marked = values[kept], [bool(flags[c]) for c in kept]
    rest = len(order) - len(kept)
    if rest:
        shown.append(f"the other {rest} together")
        bars = np.append(bars, values.sum() - bars.sum())
        marked.append(False)
    return shown, bars, marked


def posterior_bars(
    explanation: Any, image: int = 0, *, role: int = 0, top: int = 10, ax: Axes | None = None
) -> Axes:
    """Draw the posterior of the concepts within one class for one image.

    Parameters
    ----------
    explanation : ZeroShotExplanation
        From :meth:`conceptlab.zeroshot.BayesianZeroShot.explain`.
    image : int
        Which of its images.
    role : {0, 1}
        Winner or runner-up.
    top : int
        The most probable concepts only.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    names = explanation.names(image, role)
    values = explanation.posterior[image, role, : len(names)]
    order = np.argsort(-values, kind="stable")[:top]
    ax = new_axes(ax, 6.0, 0.9 + 0.3 * len(order))
    places = np.arange(len(order))[::-1]
    colors = [concept_color(int(c)) for c in order]
    ax.barh(places, values[order], height=0.72, color=colors, edgecolor="white")
    ax.set_yticks(places, [shorten(names[c], 34) for c in order], fontsize=9)
    ax.set_xlim(0, min(1.0, 1.15 * float(values[order[0]])))
    label = shorten(explanation.class_names[explanation.columns[image, role]])
    ax.set_xlabel(f"posterior of the concept, given {label}")
    open_frame(ax)
    return ax
