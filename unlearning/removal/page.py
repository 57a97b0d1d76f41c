"""The HTML views of a removal report."""

from __future__ import annotations

__all__ = ["removal_page", "removal_summary"]

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.io.html import escape, page, picture, section, table
from unlearning.removal.scores import SCORES

if TYPE_CHECKING:
    from unlearning.removal.report import RemovalReport

_SHOWN = (
    "fid_debiased",
    "fid_normalised",
    "kid",
    "cmmd",
    "u_ids",
    "u_ids_cv",
    "presence",
    "removed_share",
    "concept_collateral",
    "remove_score",
    "background_max",
)
_TRUTH = ("fid_truth", "psnr_mask", "ssim_mask", "lpips_mask", "psnr_truth", "ssim_truth", "lpips")
_MISLEADING = (
    "fid_original",
    "kid_original",
    "cmmd_original",
    "u_ids_original",
    "p_ids_original",
    "psnr_original",
    "u_ids_in_sample",
)


def removal_page(report: RemovalReport, title: str) -> str:
    """Lay a report out as a self-contained page.

    Parameters
    ----------
    report : RemovalReport
        What to show.
    title : str
        Heading, plain text.

    Returns
    -------
    str
        HTML with all pictures inside.
    """
    parts = [
        section(
            "Ranking",
            picture(report.plot("ranking"), "FID* of each remover with intervals")
            + _ranking(report),
            text="FID*: Fréchet distance of the removed images to real images that never held the "
            "class. Lower is better. A rank is one more than the number of removers that are "
            "surely better; equal ranks are ties. Intervals are of the debiased distance. The "
            "floor is what a perfect removal scores, the ceiling what the originals score.",
        ),
        section("All scores", _scores(report, _SHOWN), text=_legend(report, _SHOWN)),
    ]
    if any(name in report.scores() for name in _TRUTH):
        parts.append(
            section(
                "Against the truth",
                _scores(report, _TRUTH)
                + (
                    picture(report.plot("agreement"), "FID* against FID to the truth")
                    if "fid_truth" in report.scores()
                    else ""
                ),
                text=_legend(report, _TRUTH),
            )
        )
    parts.append(
        section(
            "What the usual scores would have said",
            _scores(report, _MISLEADING),
            text="References are the originals, in which the object still is: doing nothing wins. "
            "Shown as a warning.",
        )
    )
    if len(report.classes) > 1:
        parts.append(section("By class", picture(report.plot("classes"), "FID* of each class")))
    if any(r.shifts for r in report.results):
        parts.append(_concepts(report))
    parts.append(_pictures(report))
    notes = report.notes()
    if notes:
        parts.append(
            section("Notes", "<ul>" + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>")
        )
    facts = {"settings": report.settings, "provenance": report.provenance}
    footer = f"<p>How it came about</p><code>{escape(json.dumps(facts, default=str))}</code>"
    return page(title, _lead(report), parts, footer=footer)


def removal_summary(report: RemovalReport) -> str:
    """Make the notebook view: a line and the ranking."""
    lead = f"<b>RemovalReport</b> &middot; {escape(_lead(report))}"
    return f"<div><p>{lead}</p>{_ranking(report)}</div>"


def _lead(report: RemovalReport) -> str:
    sizes = ", ".join(f"{r.name} ({r.n} with, {r.n_comparison} without)" for r in report.results)
    return (
        f"{len(report.removers)} removers judged on {sizes}; features of "
        f"{report.settings.get('features', 'the extractor')}."
    )


def _ranking(report: RemovalReport) -> str:
    frame = report.ranking("fid")
    rows = [
        [
            int(r["rank"]),
            r.remover,
            _digits(r.value),
            f"{_digits(r.low)} to {_digits(r.high)}",
            r.tied_with or "nobody",
        ]
        for _, r in frame.iterrows()
    ]
    return table(["rank", "remover", "FID*", "debiased, interval", "tied with"], rows)


def _scores(report: RemovalReport, names: tuple[str, ...]) -> str:
    shown = [name for name in names if name in report.scores()]
    order = list(report.ranking("fid").remover)
    columns = {name: dict(zip(report.removers, report.values(name), strict=True)) for name in shown}
    rows = [[k, *(_digits(columns[name][k]) for name in shown)] for k in order]
    return table(["remover", *(SCORES[name].title for name in shown)], rows)


def _digits(value: Any) -> str:
    number = float(value)
    if not np.isfinite(number):
        return "–"
    if number == 0:
        return "0"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def _legend(report: RemovalReport, names: tuple[str, ...]) -> str:
    parts = []
    for name in names:
        if name in report.scores():
            score = SCORES[name]
            way = {
                "lower": " (lower is better)",
                "higher": " (higher is better)",
                "half": " (one half is best)",
            }.get(score.better, "")
            parts.append(f"{score.title}: {score.text}{way}.")
    return " ".join(parts)


def _concepts(report: RemovalReport) -> str:
    best = report._favourite()
    labels = [best] + (["nothing"] if "nothing" in report.removers and best != "nothing" else [])
    shown = "".join(
        picture(report.plot("concepts", remover=label), f"concepts of {label}") for label in labels
    )
    return section(
        "What is left, what was made up",
        shown,
        text="Concept FID splits exactly by concept. Bars show how much more (right) or less "
        "(left) of a concept the removed images have than images without the class, in standard "
        "deviations.",
    )


def _pictures(report: RemovalReport) -> str:
    order = [k for k in report.ranking("fid").remover if k != "oracle"]
    chosen = list(dict.fromkeys([*order[:2], *order[-2:]]))
    shown = [
        picture(report.plot("pictures", remover=label), f"worst and best of {label}", dpi=90)
        for label in chosen
        if label in report.results[0].pictures
    ]
    return section(
        "Pictures",
        "".join(shown),
        text="The three worst and the three best of some removers: original, removed, and the true "
        "removal where it is known.",
    )
