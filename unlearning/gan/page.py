"""The HTML views of a report on a generator."""

from __future__ import annotations

__all__ = ["gan_page", "gan_summary"]

import json
from typing import TYPE_CHECKING

from conceptlab.io.html import escape, page, picture, section, table

if TYPE_CHECKING:
    from unlearning.gan.report import GanReport


def gan_page(report: GanReport, title: str) -> str:
    """Lay a report out as a self-contained page.

    Parameters
    ----------
    report : GanReport
    title : str
        Heading, plain text.

    Returns
    -------
    str
    """
    parts = []
    if report.notes:
        parts.append(section("Mind", "".join(f"<p>{escape(note)}</p>" for note in report.notes)))
    parts += [
        section(
            "Before and after",
            picture(report.plot("grids"), "the same latents before and after"),
            text="The same latents in the old and in the new generator: those that showed the "
            "concept, and those that never had it.",
        ),
        section(
            "Who says so",
            picture(report.plot("figures"), "shares by judge and guide") + _figures(report),
            text="Shares of latents, by the independent judge and by the guide that the training "
            "has pleased. Removed: had the concept, no longer shows it. Leak: never had it, shows "
            "it now.",
        ),
        section(
            "Scores of the guide",
            picture(report.plot("scores"), "distributions of scores"),
            text="A degree of unlearning of 1 means that the scores after lie on those of latents "
            "that never had the concept.",
        ),
    ]
    facts = {"facts": report.to_dict()["facts"], "provenance": report.provenance}
    footer = f"<p>How it came about</p><code>{escape(json.dumps(facts, default=str))}</code>"
    lead = f"{report.facts['n']} latents, seed {report.facts['seed']}."
    return page(title, lead, parts, footer=footer)


def gan_summary(report: GanReport) -> str:
    """Make the notebook view: a line and the figures."""
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    lead = f"<b>GanReport</b> &middot; {escape(' and '.join(report.facts['targets']))}"
    return f"<div><p>{lead}</p>{notes}{_figures(report)}</div>"


def _figures(report: GanReport) -> str:
    return table(["figure", "value"], [[k, float(v)] for k, v in report.figures.items()])
