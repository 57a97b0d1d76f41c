"""The HTML views of an explanation as data: a page, and a notebook cell."""

from __future__ import annotations

__all__ = ["explanation_page", "summary_body"]

from typing import Any

from conceptlab.explanation.gallery import concept_cards, drive_table, image_cards, tools
from conceptlab.io.html import escape, picture, table
from conceptlab.io.pages import Page, Section
from conceptlab.plot.style import concept_color

_READING = (
    "Importance is the total Sobol index: the share of the output's variance, under random "
    "strengths of all concepts, that involves this one, alone or together with others; low and "
    "high are its confidence interval, given these concepts. 'signed' tells in which direction "
    "the concept moves the target, 'prevalence' in what share of the images it is there."
)


def explanation_page(found: Any, title: str) -> Page:
    """Lay out a report.

    Parameters
    ----------
    found : Explanation
        What is told.
    title : str
        Its heading.

    Returns
    -------
    Page
    """
    k, frame = len(found.names), found.to_frame()
    first = frame.iloc[0]
    strongest = f"{first['concept']}, {first['importance']:.2f}"
    parts = [
        Section(
            "Which concepts matter",
            picture(
                found.plot("importance", top=k),
                f"Bars of importance of {k} concepts with intervals; the largest is {strongest}.",
                caption=f"All {k} concepts. Lines are confidence intervals.",
            )
            + _table(found),
            text=_READING,
            name="importance",
        )
    ]
    if any(found.patches):
        most = max(len(row) for row in found.patches)
        parts.append(
            Section(
                "What the concepts are",
                concept_cards(found),
                text=f"All {k} concepts. On the left up to {most} patches in which the concept is "
                "strongest, of different images where there are; beside each the image it is "
                "from, dark but for the patch, its name and the model's answer."
                + (
                    f" Last, where the concept is ({found.settings.get('maps')}): a concept's "
                    "colour has one scale for all images, so that a pale map is a concept that "
                    "is hardly there."
                    if found.maps is not None
                    else ""
                ),
                name="concepts",
            )
        )
    heat, which = drive_table(found)
    if heat:
        parts.append(
            Section(
                "Which classes they drive",
                heat,
                text=f"{which}, those of the most images first: how far a concept raises (blue) "
                "or lowers (orange) each output beyond the mean over the outputs, when it is put "
                f"back into the activations. Mean over {len(found.shown)} images.",
                name="classes",
            )
        )
    if len(found.shown):
        cards, n = image_cards(found)
        parts.append(
            Section(
                "Why each answer",
                cards,
                text=f"{n} of {len(found.coefficients)} images, by turns those that hold most of "
                "each concept. The numbers are what the output for the target loses when a "
                "concept is taken out; with what is there without any concept (the rest of the "
                "activations, and what the head adds) they make up the output.",
                name="images",
            )
        )
    if found.tree is not None and found.tree.depth > 0:
        split = [root.name for root in found.tree.roots if root.children]
        parts.append(
            Section(
                "Concepts that held more than one thing",
                picture(found.plot("tree"), f"Tree of concepts; split: {', '.join(split)}."),
                text="A ringed concept's patches fall into two groups at an earlier layer; it was "
                "factorised again there. Numbers are importances by the head of each layer.",
                name="tree",
            )
        )
    unsplit = "" if found.tree is None else found.tree.unsplit()
    if unsplit:
        parts.append(Section("Do concepts hold more than one thing?", text=unsplit, name="tree"))
    if found.faithfulness is not None:
        parts.append(
            Section(
                "Do these concepts carry the decision?",
                picture(
                    found.plot("faithfulness"),
                    "Deletion and insertion curves by importance, beside random and reverse "
                    "order; their areas stand in the table.",
                )
                + found.faithfulness.to_table(),
                text="Concepts are taken away (deletion) or put back (insertion) by importance, "
                "beside random order and the reverse order. A faithful ranking falls early and "
                "rises early.",
                name="faithfulness",
            )
        )
    return Page(
        title,
        found.lead(),
        parts,
        facts=found.settings,
        warning=found.warning(),
        tools=tools(found) if len(found.shown) else "",
    )


def summary_body(found: Any) -> str:
    """Make what a notebook shows: the table and the best patches of the first six concepts."""
    top = min(6, len(found.names))
    shown = f"<p>{escape(found.warning())}</p>" if found.warning() else ""
    shown += _table(found, top)
    if top < len(found.names):
        shown += f"<p>{top} of {len(found.names)} concepts.</p>"
    if any(found.patches):
        names = ", ".join(found.names[i] for i in found.order[:top])
        shown += picture(found.plot("patches", top=top), f"Best patches of {names}", dpi=80)
    return shown


def _table(found: Any, top: int | None = None) -> str:
    order = [int(i) for i in found.order[:top]]
    frame = found.to_frame().head(len(order))
    if (frame["first_order"] - frame["importance"]).abs().max() < 5e-4:
        frame = frame.drop(columns="first_order")  # nothing is done together
    return table(
        list(frame.columns),
        frame.itertuples(index=False, name=None),
        swatches=[concept_color(i) for i in order],
        sortable=True,
        marks=[f"data-concept='{i}'" for i in order],
    )
