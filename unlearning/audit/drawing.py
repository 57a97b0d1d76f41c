"""The pictures of an audit."""

from __future__ import annotations

__all__ = ["PLOTS", "draw"]

from typing import Any

import numpy as np

from conceptlab.errors import InputError, unknown_name
from unlearning.audit.figures import COLUMNS, FIGURES
from unlearning.audit.findings import Findings

PLOTS = ("figures", "concepts", "relearn", "destinations", "pictures")
"""Kinds of pictures."""


def draw(found: Findings, kind: str = "figures", *, top: int = 10, ax: Any = None) -> Any:
    """Draw what an audit found; see :meth:`unlearning.audit.Report.plot`."""
    from conceptlab.plot import unlearning

    if kind not in PLOTS:
        raise unknown_name("plot", kind, PLOTS)
    if kind == "concepts":
        if not found.attributions or not found.concept_names:
            raise InputError("Concepts need audit(..., concepts=...).", code="CL-INPUT-OPTION")
        return unlearning.concept_pair(
            found.concept_names,
            {
                COLUMNS[k]: found.attributions[k][found.forgotten].mean(axis=0)
                for k in found.columns
            },
            own=found.class_concepts,
            exclusive=found.exclusive,
            left=COLUMNS["before"],
            right=COLUMNS["after"],
            title=f"logit of {found.classes()}",
            top=top,
        )
    if kind == "pictures":
        return _pictures(found)
    if kind == "relearn":
        if not found.curves:
            raise InputError("Curves need audit(..., relearn=True).", code="CL-INPUT-OPTION")
        shown = [k for k in COLUMNS if k in found.curves]
        first = found.curves[shown[0]]
        return unlearning.relearn_curves(
            {COLUMNS[k]: (found.curves[k].steps, found.curves[k].forget) for k in shown},
            target=first.target,
            emphasis=COLUMNS["after"],
            ax=ax,
        )
    if kind == "destinations":
        return unlearning.destination_bars(
            found.class_names,
            {COLUMNS[k]: found.destinations[k] for k in found.columns},
            forgotten=found.forgotten,
            top=top,
            ax=ax,
        )
    keys = [k for k in found.figures() if FIGURES[k].share and FIGURES[k].group != "cost"]
    return unlearning.figure_bars(
        [FIGURES[k].title for k in keys],
        {COLUMNS[m]: np.array([found.value(k, m) for k in keys]) for m in found.columns},
        main=COLUMNS["after"],
        reference=COLUMNS["retrained"],
        floor=np.array([found.floor(k) for k in keys]),
        groups=[FIGURES[k].group for k in keys],
        ax=ax,
    )


def _pictures(found: Findings) -> Any:
    from conceptlab.plot.style import bare, new_figure, shorten, to_picture

    if found.pictures is None:
        raise InputError("Pictures need images as test samples.", code="CL-INPUT-OPTION")
    n = len(found.pictures)
    across = min(n, 4)  # two rows, so that they are seen on a narrow screen too
    down = -(-n // across)
    figure = new_figure(1.6 * across, 2.0 * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    for i, ax in enumerate(axes[:n]):
        ax.imshow(to_picture(found.pictures[i]))
        bare(ax)
        said = [found.class_names[found.answers[model][i]] for model in ("before", "after")]
        ax.set_title("\nthen ".join(shorten(name, 14) for name in said), fontsize=8)
    return figure
