"""Deletion and insertion curves with their controls."""

from __future__ import annotations

__all__ = ["faithfulness_curves"]

from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import unknown_name
from conceptlab.plot.style import new_axes, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"deletion": "#D55E00", "insertion": "#0072B2"}
_LABELS = {
    "probability": "probability of the target",
    "logit": "logit of the target",
    "accuracy": "share of images predicted as the target",
}


def faithfulness_curves(
    report: Any, kind: str = "both", *, metric: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw what happens while concepts are removed or restored one by one.

    Parameters
    ----------
    report : FaithfulnessReport
        With ``curve(name, metric)``, ``metric`` and ``n_concepts``.
    kind : {"both", "deletion", "insertion"}
        Which curves.
    metric : str, optional
        Which measure; the report's own by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    Thick: by importance, with the interval over images. Grey: mean and
    middle 80 % of random orders. Dashed: the least important first.

    Examples
    --------
    >>> from attribution.faithfulness import faithfulness
    >>> U = np.random.default_rng(0).random((10, 3))
    >>> report = faithfulness(lambda u: 3 * u, U, [3.0, 2.0, 1.0], target=0, random_state=0)
    >>> axes = faithfulness_curves(report)
    """
    from matplotlib.ticker import MaxNLocator

    if kind not in ("both", "deletion", "insertion"):
        raise unknown_name("kind of curve", kind, ["both", "deletion", "insertion"])
    ax = new_axes(ax, 6.4, 4.6)
    metric = metric or report.metric
    names = ["deletion", "insertion"] if kind == "both" else [kind]
    steps = np.arange(report.n_concepts + 1)
    for number, name in enumerate(names):
        curve = report.curve(name, metric)
        colour = _COLOURS[name]
        last = number == len(names) - 1
        low, high = np.quantile(curve.random, [0.1, 0.9], axis=0)
        ax.fill_between(
            steps,
            low,
            high,
            color="#999999",
            alpha=0.18,
            lw=0,
            label="random orders, middle 80 %" if last else None,
        )
        ax.plot(
            steps,
            curve.random.mean(0),
            color="#777777",
            lw=1.2,
            ls=":",
            label="random orders, mean" if last else None,
        )
        ax.plot(
            steps,
            curve.reverse,
            color=colour,
            lw=1.2,
            ls=(0, (4, 3)),
            label=f"{name}, least important first ({curve.auc('reverse'):.2f})",
        )
        ax.fill_between(
            steps, curve.interval[:, 0], curve.interval[:, 1], color=colour, alpha=0.25, lw=0
        )
        ax.plot(
            steps,
            curve.importance,
            color=colour,
            lw=2.2,
            marker="o",
            ms=3.5,
            label=f"{name}, most important first ({curve.auc():.2f})",
        )
    verb = {"deletion": "removed", "insertion": "restored", "both": "removed or restored"}[kind]
    ax.set_xlabel(f"concepts {verb}")
    ax.set_ylabel(_LABELS.get(metric, metric))
    ax.set_xlim(0, report.n_concepts)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(
        frameon=False,
        fontsize=8,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        title="area under the curve in brackets",
        title_fontsize=8,
    )
    open_frame(ax)
    return ax
