"""The HTML views of a removal report."""

from __future__ import annotations

__all__ = ["removal_page", "removal_summary"]

from conceptlab.io.html import picture, table
from conceptlab.io.pages import Page, Section
from conceptlab.io.values import digits
from unlearning.removal.findings import RemovalFindings
from unlearning.removal.scores import SCORES
from unlearning.removal.views import dilation_curves, draw

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
_TRUTH = (
    "fid_truth",
    "psnr_mask",
    "psnr_effect",
    "ssim_mask",
    "lpips_mask",
    "psnr_truth",
    "ssim_truth",
    "lpips",
)
_MISLEADING = (
    "fid_original",
    "kid_original",
    "cmmd_original",
    "u_ids_original",
    "p_ids_original",
    "psnr_original",
    "u_ids_in_sample",
)


def removal_page(report: RemovalFindings, title: str) -> Page:
    """Lay findings out as a page.

    Parameters
    ----------
    report : RemovalFindings
        What to show.
    title : str
        Heading, plain text.

    Returns
    -------
    Page
    """
    parts = [
        Section(
            "Ranking",
            picture(draw(report, "ranking"), "FID* of each remover with intervals")
            + _ranking(report),
            text="FID*: Fréchet distance of the removed images to real images that never held the "
            "class. Lower is better. A rank is one more than the number of removers that are "
            "surely better; equal ranks are ties. Intervals are of the debiased distance. The "
            "floor is what a perfect removal scores, the ceiling what the originals score.",
        ),
        Section("All scores", _scores(report, _SHOWN), text=_legend(report, _SHOWN)),
    ]
    if any(name in report.scores() for name in _TRUTH):
        parts.append(
            Section(
                "Against the truth",
                _scores(report, _TRUTH)
                + (
                    picture(draw(report, "agreement"), "FID* against FID to the truth")
                    if "fid_truth" in report.scores()
                    else ""
                ),
                text=_legend(report, _TRUTH),
            )
        )
    parts.append(
        Section(
            "What the usual scores would have said",
            _scores(report, _MISLEADING),
            text="References are the originals, in which the object still is: doing nothing wins. "
            "Shown as a warning.",
        )
    )
    if dilation_curves(report):
        parts.append(
            Section(
                "Masks that are not exact",
                picture(draw(report, "dilation"), "FID* over the dilation of the masks"),
                text="FID* over the pixels that masks grow or shrink by. A steep fall to the right "
                "says that the masks leave rims of the object; a rise, that much is invented.",
            )
        )
    if len(report.classes) > 1:
        parts.append(Section("By class", picture(draw(report, "classes"), "FID* of each class")))
    if any(r.shifts for r in report.results):
        parts.append(_concepts(report))
    parts.append(_pictures(report))
    return Page(
        title,
        _lead(report),
        parts,
        notes=report.notes(),
        facts={"settings": report.settings, "provenance": report.provenance},
    )


def removal_summary(report: RemovalFindings) -> tuple[str, str]:
    """Give the notebook view: a line and the ranking."""
    return _lead(report), _ranking(report)


def _lead(report: RemovalFindings) -> str:
    sizes = ", ".join(f"{r.name} ({r.n} with, {r.n_comparison} without)" for r in report.results)
    return (
        f"{len(report.removers)} removers judged on {sizes}; features of "
        f"{report.settings.get('features', 'the extractor')}."
    )


def _ranking(report: RemovalFindings) -> str:
    frame = report.ranking("fid")
    rows = [
        [
            int(r["rank"]),
            r.remover,
            digits(r.value),
            f"{digits(r.low)} to {digits(r.high)}",
            r.tied_with or "nobody",
        ]
        for _, r in frame.iterrows()
    ]
    return table(["rank", "remover", "FID*", "debiased, interval", "tied with"], rows)


def _scores(report: RemovalFindings, names: tuple[str, ...]) -> str:
    shown = [name for name in names if name in report.scores()]
    order = list(report.ranking("fid").remover)
    columns = {name: dict(zip(report.removers, report.values(name), strict=True)) for name in shown}
    rows = [[k, *(digits(columns[name][k]) for name in shown)] for k in order]
    return table(["remover", *(SCORES[name].title for name in shown)], rows)


def _legend(report: RemovalFindings, names: tuple[str, ...]) -> str:
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


def _concepts(report: RemovalFindings) -> Section:
    best = report.favourite()
    labels = [best] + (["nothing"] if "nothing" in report.removers and best != "nothing" else [])
    shown = "".join(
        picture(draw(report, "concepts", remover=label), f"concepts of {label}") for label in labels
    )
    return Section(
        "What is left, what was made up",
        shown,
        text="Concept FID splits exactly by concept. Bars show how much more (right) or less "
        "(left) of a concept the removed images have than images without the class, in standard "
        "deviations.",
    )


def _pictures(report: RemovalFindings) -> Section:
    order = [k for k in report.ranking("fid").remover if k != "oracle"]
    chosen = list(dict.fromkeys([*order[:2], *order[-2:]]))
    shown = [
        picture(draw(report, "pictures", remover=label), f"worst and best of {label}", dpi=90)
        for label in chosen
        if label in report.results[0].pictures
    ]
    return Section(
        "Pictures",
        "".join(shown),
        text="The three worst and the three best of some removers: original, removed, and the true "
        "removal where it is known.",
    )
