"""The HTML views of an explanation: a page of its own, and a notebook cell."""

from __future__ import annotations

__all__ = ["explanation_page", "explanation_summary"]

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.io.html import escape, page, picture, section, table

if TYPE_CHECKING:
    from conceptlab.explanation import Explanation


def explanation_page(explanation: Explanation, title: str) -> str:
    """Lay an explanation out as a self-contained page.

    Parameters
    ----------
    explanation : Explanation
        What to show.
    title : str
        Heading of the page, plain text.

    Returns
    -------
    str
        HTML with all pictures inside.
    """
    top = min(8, len(explanation.names))
    parts = [
        section(
            "Which concepts matter",
            picture(explanation.plot("importance", top=len(explanation.names)), "importance")
            + _table(explanation),
            text="The total Sobol index: the share of the output's variance, under random "
            "strengths of all concepts, that involves this one, alone or together with others. "
            "Lines are confidence intervals. The sign of the column 'signed' says in which "
            "direction the concept moves the target.",
        ),
    ]
    if any(explanation.patches):
        parts.append(
            section(
                "What the concepts are",
                picture(explanation.plot("patches", top=top), "best patches of each concept"),
                text="The patches of the images in which each concept is strongest, best first.",
            )
        )
    if explanation.maps is not None:
        method = explanation.settings.get("maps", "")
        parts.append(
            section(
                "Where they are",
                picture(explanation.plot("maps", top=min(5, top)), "concept maps"),
                text=f"Concept attribution maps ({method}), for each concept over the image that "
                "holds most of it. The line above an image is what the model says. A concept's "
                "colour has one scale for all images, so a pale map is a concept that is hardly "
                "there.",
            )
        )
    if explanation.tree is not None and explanation.tree.depth > 0:
        parts.append(
            section(
                "Concepts that held more than one thing",
                picture(explanation.plot("tree"), "tree of concepts"),
                text="A ringed concept's patches fall into two groups at an earlier layer; it was "
                "factorised again there. Numbers are importances by the head of each layer.",
            )
        )
    if explanation.faithfulness is not None:
        parts.append(
            section(
                "Do these concepts carry the decision?",
                picture(explanation.plot("faithfulness"), "deletion and insertion curves")
                + explanation.faithfulness._repr_html_(),
                text="Concepts are taken away (deletion) or put back (insertion) by importance, "
                "beside random order and the reverse order. A faithful ranking falls early and "
                "rises early.",
            )
        )
    return page(title, _lead(explanation), parts, footer=_footer(explanation.settings))


def explanation_summary(explanation: Explanation) -> str:
    """Make the notebook view: a line, the table, the best patches."""
    top = min(6, len(explanation.names))
    return (
        f"<div><p><b>Explanation</b> &middot; {escape(_lead(explanation))}</p>"
        + _table(explanation, top)
        + (_small_patches(explanation, top) if any(explanation.patches) else "")
        + "</div>"
    )


def _small_patches(explanation: Explanation, top: int) -> str:
    figure = explanation.plot("patches", top=top)
    return picture(figure, "best patches of each concept", dpi=80)


def _lead(explanation: Explanation) -> str:
    targets = [explanation.class_name(int(t)) for t in np.unique(explanation.target)]
    shown = ", ".join(targets[:6]) + (", ..." if len(targets) > 6 else "")
    layer = explanation.settings.get("layer", "the layer")
    return (
        f"{len(explanation.names)} concepts of {layer} on {len(explanation.coefficients)} images; "
        f"explained output: {shown}."
    )


def _table(explanation: Explanation, top: int | None = None) -> str:
    from conceptlab.plot.style import concept_color

    frame = explanation.to_frame().head(top or len(explanation.names))
    colors = [concept_color(int(i)) for i in explanation.order[: len(frame)]]
    return table(list(frame.columns), frame.itertuples(index=False, name=None), swatches=colors)


def _footer(settings: dict[str, Any]) -> str:
    return f"<p>How it came about</p><code>{escape(json.dumps(settings, default=str))}</code>"
