"""Figures of a bottleneck beside their controls."""

from __future__ import annotations

__all__ = ["accuracy_bars", "fidelity_bars", "leakage_bars"]

from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.plot.style import new_axes, open_frame, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OWN, _RANDOM, _PROBE, _WORSE = "#0072B2", "#999999", "#E69F00", "#D55E00"


def accuracy_bars(report: Any, *, ax: Axes | None = None) -> Axes:
    """Draw accuracy beside random concepts at the same NEC and a dense probe.

    Parameters
    ----------
    report : BottleneckReport
        With ``accuracy``, ``refitted_accuracy``, ``random_accuracy``,
        ``controls``, ``intervals``, ``probe_accuracy``, ``chance`` and ``control_nec``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 6.4, 2.6)
    controls = report.controls or {report.control: np.asarray(report.random_accuracy)}
    at = f"NEC {report.control_nec:.3g}"
    found = report.intervals
    rows: list[tuple[str, float, str, Any]] = [
        ("the model", report.accuracy, _OWN, found.get("accuracy")),
        (
            f"its concepts, refitted, {at}",
            report.refitted_accuracy,
            "#56B4E9",
            found.get("accuracy, concepts refitted"),
        ),
        *(
            (f"random concepts ({kind}), {at}", float(draws.mean()), _RANDOM, draws)
            for kind, draws in controls.items()
        ),
        (
            "dense probe on the features",
            report.probe_accuracy,
            _PROBE,
            found.get("accuracy, dense probe"),
        ),
    ]
    places = np.arange(len(rows))[::-1]
    for place, (_, value, colour, spread) in zip(places, rows, strict=True):
        ax.barh(place, value, height=0.68, color=colour)
        end = value if spread is None else max(value, *spread)
        ax.text(end + 0.012, place, f"{value:.3f}", va="center", fontsize=9)
        if colour == _RANDOM:
            ax.plot(spread, np.full(len(spread), place), "|", color="#333333", ms=9)
        elif spread is not None:
            ax.plot(spread, [place, place], color="#333333", lw=1.2)
    ax.axvline(report.chance, color="#555555", lw=1, ls=":")
    ax.text(report.chance, len(rows) - 0.4, "chance", ha="center", fontsize=8, color="#555555")
    ax.set_yticks(places, [row[0] for row in rows], fontsize=9)
    ax.set_xlim(0, 1.1)
    ax.set_xticks(np.arange(0, 1.01, 0.2))
    ax.set_xlabel("accuracy")
    open_frame(ax)
    return ax


def fidelity_bars(frame: Any, *, top: int = 20, ax: Axes | None = None) -> Axes:
    """Draw for every concept how well its output ranks rows by it, the worst first.

    Parameters
    ----------
    frame : pandas.DataFrame
        Index of names; columns ``auc`` and ``raw_auc``, sorted.
    top : int
        Rows to draw.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    shown = frame.head(top)
    ax = new_axes(ax, 6.4, 1.2 + 0.26 * len(shown))
    places = np.arange(len(shown))[::-1]
    areas = shown["auc"].to_numpy()
    colours = [_OWN if area >= 0.7 else _WORSE for area in areas]
    ax.barh(places, areas - 0.5, left=0.5, height=0.7, color=colours)
    if shown["raw_auc"].notna().any():
        ax.plot(
            shown["raw_auc"],
            places,
            "o",
            ms=5,
            mfc="white",
            mec="#333333",
            ls="none",
            label="scores that the model started from",
        )
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
    ax.axvline(0.5, color="#555555", lw=1, ls=":")
    ax.set_yticks(places, [shorten(name, 34) for name in shown.index], fontsize=9)
    ax.set_xlim(min(0.4, float(areas.min()) - 0.05), 1.02)
    left = len(frame) - len(shown)
    are = "one is" if left == 1 else f"{left} are"
    more = f" (the other {are} better)" if left else ""
    ax.set_xlabel(f"area under the ROC curve for its own concept{more}")
    open_frame(ax)
    return ax


def leakage_bars(scores: Any, *, ax: Axes | None = None) -> Axes:
    """Draw measures of leakage beside those of shuffled outputs.

    Parameters
    ----------
    scores : mapping of str to Leakage
        With ``value``, ``null`` and ``p_value``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax, 6.4, 3.2)
    rows = list(scores.values())
    for place, score in enumerate(rows):
        ax.bar(place - 0.2, score.value, width=0.36, color=_OWN)
        note = ""
        if len(score.null):
            ax.bar(place + 0.2, score.baseline, width=0.36, color="#BBBBBB")
            ax.plot(np.full(len(score.null), place + 0.2), score.null, "_", color="#333333", ms=8)
            note = f"p {score.p_value:.2g}"
        top = max(score.value, float(score.null.max()) if len(score.null) else 0.0)
        ax.text(place, top, note, ha="center", va="bottom", fontsize=8, color="#555555")
    titles = {
        "CTL": "CTL\non the class",
        "ICL": "ICL\nbetween concepts",
        "OIS": "OIS\noracle impurity",
        "NIS": "NIS\nniche impurity",
    }
    ax.set_xticks(range(len(rows)), [titles.get(s.name, s.name) for s in rows], fontsize=9)
    ax.set_ylabel("score")
    ax.margins(y=0.15)
    handles = [ax.patches[0]] + ([ax.patches[1]] if len(ax.patches) > 1 else [])
    ax.legend(
        handles,
        ["outputs", "outputs shuffled within their concept"][: len(handles)],
        frameon=False,
        fontsize=8,
        loc="upper left",
    )
    open_frame(ax)
    return ax
