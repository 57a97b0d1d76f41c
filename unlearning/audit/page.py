"""The HTML views of an audit."""

from __future__ import annotations

__all__ = ["audit_page", "audit_summary"]

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from conceptlab.io.html import escape, page, picture, section, table
from unlearning.audit.figures import COLUMNS, FIGURES, GROUPS
from unlearning.audit.verdict import VERDICTS

if TYPE_CHECKING:
    from unlearning.audit.report import Report

_COLOURS = {
    "removed": "#009E73",
    "suppressed": "#D55E00",
    "not forgotten": "#A6325A",
    "damaged": "#A6325A",
    "undecided": "#8a6d00",
    "trace": "#8a6d00",
    "note": "#667788",
}
_SIDES = {
    "removed": "as after removal",
    "suppressed": "speaks for suppression",
    "not forgotten": "not forgotten",
    "damaged": "damage",
    "trace": "a trace of unlearning",
    "note": "to know",
}
_TITLES = {
    "accuracy": "What it answers",
    "distance": "How far from a model that never saw the class",
    "membership": "Do its answers give the training samples away?",
    "features": "What its features still hold",
    "attacks": "Does it come back?",
    "concepts": "Where the class's concepts are",
    "cost": "What it cost",
}
_EVERY = ("accuracy", "features", "attacks")


def audit_page(report: Report, title: str) -> str:
    """Lay a report out as a self-contained page.

    Parameters
    ----------
    report : Report
        What to show.
    title : str
        Heading, plain text.

    Returns
    -------
    str
        HTML with all pictures inside.
    """
    parts = [
        section("Verdict", _banner(report) + _evidence(report) + _calibration(report)),
        section(
            "At a glance",
            picture(report.plot("figures"), "figures beside reference and noise floor"),
            text=_glance(report),
        ),
    ]
    for group in GROUPS:
        keys = [k for k in report.figures() if FIGURES[k].group == group]
        if not keys:
            continue
        drawn = ""
        if group == "attacks" and report.curves:
            drawn = picture(report.plot("relearn"), "forget accuracy while learning again")
        if group == "distance":
            drawn = picture(report.plot("destinations"), "where samples of the class go")
        if group == "concepts" and report.concept_names:
            drawn = picture(report.plot("concepts"), "attributions before and after")
            drawn += _concepts(report)
        parts.append(section(_TITLES[group], _figures(report, keys) + drawn, text=_legend(keys)))
    if report.earlier:
        rows = [
            [report.class_names[c], *(_digits(report.earlier[m][c]) for m in report.columns)]
            for c in report.earlier["after"]
        ]
        heads = ["class", *(COLUMNS[m] for m in report.columns)]
        parts.append(
            section(
                "Classes of earlier requests",
                table(heads, rows),
                text="Test accuracy. What an earlier request took away must stay away.",
            )
        )
    if report.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(section("Notes", f"<ul>{items}</ul>"))
    if report.certificate:
        parts.append(section("Certificate of the run", _certificate(report)))
    facts = {"settings": report.settings, "provenance": report.provenance}
    footer = f"<p>How it came about</p><code>{escape(json.dumps(facts, default=str))}</code>"
    return page(title, _lead(report), parts, footer=footer)


def audit_summary(report: Report) -> str:
    """Make the notebook view: the verdict, the evidence, the main figures."""
    keys = [k for k in report.figures() if FIGURES[k].group in _EVERY]
    return (
        f"<div><p><b>Report</b> &middot; {escape(_lead(report))}</p>"
        + _banner(report)
        + _evidence(report)
        + _figures(report, keys)
        + "</div>"
    )


def _lead(report: Report) -> str:
    names = ", ".join(report.class_names[c] for c in report.forgotten)
    method = f" by {report.certificate['method']}" if report.certificate else ""
    if "retrained_b" in report.values:
        beside = "two retrained models, whose difference is the noise floor"
    elif report.has_reference:
        beside = "a retrained model"
    else:
        beside = "its original and a logit mask (no retrained model was given)"
    return (
        f"Class {names}, to be forgotten{method}, beside {beside}. "
        f"{report.sizes.get('forget', 0)} samples to forget, "
        f"{report.sizes.get('forget_test', 0)} test samples of the class, "
        f"{report.sizes.get('test', 0)} of the retained classes."
    )


def _banner(report: Report) -> str:
    word = report.verdict.word
    colour = _COLOURS[word]
    return (
        f"<div style='border-left:6px solid {colour};padding:.5rem 1rem;margin:.2rem 0 1rem;"
        f"background:{colour}14;border-radius:4px'>"
        f"<div style='font-size:1.5rem;font-weight:700;color:{colour}'>"
        f"{escape(word[0].upper() + word[1:])}</div>"
        f"<div>{escape(VERDICTS[word])} {escape(report.verdict.summary)}</div></div>"
    )


def _evidence(report: Report) -> str:
    order = ("not forgotten", "damaged", "suppressed", "trace", "note", "removed")
    lines = []
    for side in order:
        for one in report.verdict.evidence:
            if one.side == side:
                colour = _COLOURS[side]
                lines.append(
                    "<li style='margin:.3rem 0;list-style:none;display:grid;"
                    "grid-template-columns:11.5rem 1fr;align-items:baseline'>"
                    f"<span style='color:{colour};font-size:.85rem;font-weight:600'>"
                    f"{escape(_SIDES[side])}</span>"
                    f"<span>{escape(one.text)}</span></li>"
                )
    return f"<ul style='padding:0;margin:.4rem 0 .6rem'>{''.join(lines)}</ul>"


def _calibration(report: Report) -> str:
    if not report.baselines:
        return ""
    said = [
        f"the original <b>{escape(report.baselines['before'])}</b>",
        f"its logit mask <b>{escape(report.baselines['mask'])}</b>",
    ]
    return (
        f"<p style='color:#556;margin:.6rem 0 0'>The same rules call {' and '.join(said)}; the "
        "mask costs nothing, so what it reaches too is no proof.</p>"
    )


def _glance(report: Report) -> str:
    text = (
        "Bars are the unlearned model. What matters is the distance to the black line, not the "
        "length of the bar. Hollow diamonds are a logit mask, which forgets nothing: where it "
        "stands as well, the figure proves nothing."
    )
    if not report.has_reference:
        text = text.replace("to the black line", "to what a model gives that never saw the class")
        return f"{text} No retrained model was given."
    if "retrained_b" in report.values:
        text += " Grey bands are the noise floor, the distance of two retrained models."
    return text


def _figures(report: Report, keys: Sequence[str]) -> str:
    heads = ["", *(COLUMNS[m] for m in report.columns)]
    if report.has_reference:
        heads.append("unlearned − retrained")
    if "retrained_b" in report.values:
        heads.append("noise floor")
    rows = []
    for key in keys:
        row = [FIGURES[key].title, *(_digits(report.value(key, m)) for m in report.columns)]
        if report.has_reference:
            excess = report.excess(key)
            row.append(f"{excess:+.3f}" if np.isfinite(excess) else "–")
        if "retrained_b" in report.values:
            row.append(_digits(report.floor(key)))
        rows.append(row)
    return table(heads, rows)


def _legend(keys: Sequence[str]) -> str:
    said = [f"{FIGURES[k].title}: {FIGURES[k].text}." for k in keys]
    return " ".join(text[0].upper() + text[1:] for text in said)


def _concepts(report: Report) -> str:
    frame = report.concept_frame()
    if frame.empty:
        return ""
    heads = ["concept of the class", *(f"AUC, {COLUMNS[m]}" for m in report.columns)]
    rows = []
    for name, part in frame.groupby("concept", sort=False):
        by = dict(zip(part["model"], part["auc"], strict=True))
        label = f"{name} (its own)" if part["exclusive"].any() else name
        rows.append([label, *(_digits(by[m]) for m in report.columns)])
    return table(heads, rows)


def _certificate(report: Report) -> str:
    facts = report.certificate or {}
    shown = (
        "method",
        "seed",
        "steps",
        "cpu_seconds",
        "stopped",
        "sha256_before",
        "sha256_after",
        "digest_forget",
        "digest_retain",
    )
    rows = [[key.replace("_", " "), facts[key]] for key in shown if key in facts]
    return table(["", ""], rows)


def _digits(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
