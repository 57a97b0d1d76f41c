"""The HTML views of an explanation as data: sections of a page, and a notebook cell."""

from __future__ import annotations

__all__ = ["Pictures", "sections", "summary_body"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conceptlab.io.html import picture, table
from conceptlab.io.pages import Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Pictures:
    """Draws the figures of a page when they are needed; None where there is nothing to draw.

    Attributes
    ----------
    importance : callable
        Gives the bars of importance.
    patches : callable or None
        ``patches(top)`` gives the best patches of the first `top` concepts.
    maps : callable or None
        ``maps(top)`` gives concept maps.
    tree : callable or None
        Gives the recursion.
    faithfulness : callable or None
        Gives the curves.
    """

    importance: Callable[[], Figure]
    patches: Callable[[int], Figure] | None = None
    maps: Callable[[int], Figure] | None = None
    tree: Callable[[], Figure] | None = None
    faithfulness: Callable[[], Figure] | None = None


def sections(
    frame: pd.DataFrame,
    colors: Sequence[str],
    pictures: Pictures,
    *,
    method: str,
    measures: str,
    unsplit: str = "",
) -> list[Section]:
    """Lay out the parts of a page.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row a concept, the most important first.
    colors : sequence of str
        One for each row.
    pictures : Pictures
        What can be drawn.
    method : str
        How the maps were made.
    measures : str
        HTML table of the faithfulness.
    unsplit : str
        What it means that no concept was split.

    Returns
    -------
    list of Section
    """
    top = min(8, len(frame))
    parts = [
        Section(
            "Which concepts matter",
            picture(pictures.importance(), "importance") + _table(frame, colors),
            text="The total Sobol index: the share of the output's variance, under random "
            "strengths of all concepts, that involves this one, alone or together with others. "
            "Lines are confidence intervals. The sign of the column 'signed' says in which "
            "direction the concept moves the target.",
        )
    ]
    if pictures.patches is not None:
        parts.append(
            Section(
                "What the concepts are",
                picture(pictures.patches(top), "best patches of each concept"),
                text="The patches of the images in which each concept is strongest, best first.",
            )
        )
    if pictures.maps is not None:
        parts.append(
            Section(
                "Where they are",
                picture(pictures.maps(min(5, top)), "concept maps"),
                text=f"Concept attribution maps ({method}), for each concept over the image that "
                "holds most of it. The line above an image is what the model says. A concept's "
                "colour has one scale for all images, so a pale map is a concept that is hardly "
                "there.",
            )
        )
    if pictures.tree is not None:
        parts.append(
            Section(
                "Concepts that held more than one thing",
                picture(pictures.tree(), "tree of concepts"),
                text="A ringed concept's patches fall into two groups at an earlier layer; it was "
                "factorised again there. Numbers are importances by the head of each layer.",
            )
        )
    if unsplit:
        parts.append(Section("Do concepts hold more than one thing?", text=unsplit))
    if pictures.faithfulness is not None:
        parts.append(
            Section(
                "Do these concepts carry the decision?",
                picture(pictures.faithfulness(), "deletion and insertion curves") + measures,
                text="Concepts are taken away (deletion) or put back (insertion) by importance, "
                "beside random order and the reverse order. A faithful ranking falls early and "
                "rises early.",
            )
        )
    return parts


def summary_body(frame: pd.DataFrame, colors: Sequence[str], pictures: Pictures) -> str:
    """Make what a notebook shows: the table and the best patches of the first six."""
    top = min(6, len(frame))
    shown = _table(frame.head(top), colors[:top])
    if pictures.patches is not None:
        shown += picture(pictures.patches(top), "best patches of each concept", dpi=80)
    return shown


def _table(frame: pd.DataFrame, colors: Sequence[str]) -> str:
    return table(list(frame.columns), frame.itertuples(index=False, name=None), swatches=colors)
