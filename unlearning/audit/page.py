"""The HTML views of an audit."""

from __future__ import annotations

__all__ = ["audit_page", "audit_summary"]

from collections.abc import Sequence

from conceptlab.io.html import escape, picture, table
from conceptlab.io.pages import Page, Section
from conceptlab.io.values import digits
from unlearning.audit.drawing import draw
from unlearning.audit.evidence import VERDICTS
from unlearning.audit.figures import COLUMNS, FIGURES, GROUPS, better
from unlearning.audit.findings import Findings
from unlearning.audit.rates import in_words

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


def audit_page(found: Findings, title: str) -> Page:
    """Lay a report out as a self-contained page.

    Parameters
    ----------
    found : Findings
        What to show.
    title : str
        Heading, plain text.

    Returns
    -------
    Page
    """
    parts = []
    if found.pictures is not None:
        what, whose = "The class", "Test samples of the class"
        if found.of_samples:
            what, whose = "The samples", "Samples to be forgotten"
        parts.append(
            Section(
                f"{what}, before and after",
                picture(draw(found, "pictures"), "samples, said before and after"),
                text=f"{whose}: what the original says, then what the unlearned model says.",
            )
        )
    parts += [
        Section("Verdict", _banner(found) + _evidence(found) + _calibration(found)),
        Section(
            "At a glance",
            picture(draw(found, "figures"), "figures beside reference and noise floor"),
            text=_glance(found),
        ),
    ]
    for group in GROUPS:
        keys = [k for k in found.figures() if FIGURES[k].group == group]
        if not keys:
            continue
        drawn = ""
        if group == "attacks" and found.curves:
            drawn = picture(draw(found, "relearn"), "forget accuracy while learning again")
        if group == "distance" and found.destinations:
            drawn = picture(draw(found, "destinations"), "where samples of the class go")
        if group == "concepts" and found.concept_names:
            drawn = picture(draw(found, "concepts"), "attributions before and after")
            drawn += _concepts(found)
        parts.append(Section(_TITLES[group], _figures(found, keys) + drawn, text=_legend(keys)))
    if found.earlier:
        rows = [
            [found.class_names[c], *(digits(found.earlier[m][c]) for m in found.columns)]
            for c in found.earlier["after"]
        ]
        heads = ["class", *(COLUMNS[m] for m in found.columns)]
        parts.append(
            Section(
                "Classes of earlier requests",
                table(heads, rows),
                text="Test accuracy. What an earlier request took away must stay away.",
            )
        )
    if found.certificate:
        parts.append(Section("Certificate of the run", _certificate(found)))
    facts = {"settings": found.settings, "provenance": found.provenance}
    return Page(title, _lead(found), parts, notes=found.notes, facts=facts)


def audit_summary(found: Findings) -> tuple[str, str]:
    """Make lead and body of the notebook view: the verdict, the evidence, the main figures."""
    keys = [k for k in found.figures() if FIGURES[k].group in _EVERY]
    return _lead(found), _banner(found) + _evidence(found) + _figures(found, keys)


def _lead(found: Findings) -> str:
    method = f" by {found.certificate['method']}" if found.certificate else ""
    if "retrained_b" in found.values:
        beside = "two retrained models, whose difference is the noise floor"
    elif found.has_reference:
        beside = "a retrained model"
    else:
        beside = "its original and a logit mask (no retrained model was given)"
    if found.of_samples:
        beside = beside.replace("its original and a logit mask", "its original")
        return (
            f"{found.sizes.get('forget', 0)} samples of {found.classes()}, to be "
            f"forgotten{method}, beside {beside}. {found.sizes.get('test', 0)} test samples of all "
            "classes."
        )
    return (
        f"Class {found.classes()}, to be forgotten{method}, beside {beside}. "
        f"{found.sizes.get('forget', 0)} samples to forget, "
        f"{found.sizes.get('forget_test', 0)} test samples of the class, "
        f"{found.sizes.get('test', 0)} of the retained classes."
    )


def _banner(found: Findings) -> str:
    word = found.verdict.word
    colour = _COLOURS[word]
    meaning = "" if found.of_samples else VERDICTS[word]
    return (
        f"<div style='border-left:6px solid {colour};padding:.5rem 1rem;margin:.2rem 0 1rem;"
        f"background:{colour}14;border-radius:4px'>"
        f"<div style='font-size:1.5rem;font-weight:700;color:{colour}'>"
        f"{escape(word[0].upper() + word[1:])}</div>"
        f"<div>{escape(meaning)} {escape(found.verdict.summary)}</div></div>"
    )


def _evidence(found: Findings) -> str:
    order = ("not forgotten", "damaged", "suppressed", "trace", "note", "removed")
    lines = []
    for side in order:
        for one in found.verdict.evidence:
            if one.side == side:
                colour = _COLOURS[side]
                lines.append(
                    "<li style='margin:.3rem 0;list-style:none;display:flex;flex-wrap:wrap;"
                    "align-items:baseline'>"
                    f"<span style='color:{colour};flex:0 0 11.5rem;font-size:.85rem;"
                    f"font-weight:600'>{escape(_SIDES[side])}</span>"
                    f"<span style='flex:1 1 16rem'>{escape(one.text)}</span></li>"
                )
    return f"<ul style='padding:0;margin:.4rem 0 .6rem'>{''.join(lines)}</ul>"


def _calibration(found: Findings) -> str:
    if not found.baselines:
        return ""
    if found.of_samples:
        word = escape(found.baselines["before"])
        return (
            "<p style='opacity:.8;margin:.6rem 0 0'>The same rules call the original "
            f"<b>{word}</b>.</p>"
        )
    said = [
        f"the original <b>{escape(found.baselines['before'])}</b>",
        f"its logit mask <b>{escape(found.baselines['mask'])}</b>",
    ]
    references = sum(name in found.values for name in ("retrained", "retrained_b"))
    return (
        f"<p style='opacity:.8;margin:.6rem 0 0'>The same rules call {' and '.join(said)}; the "
        "mask costs nothing, so what it reaches too is no proof. "
        f"{escape(in_words(references))}</p>"
    )


def _glance(found: Findings) -> str:
    text = (
        "Bars are the unlearned model. What matters is the distance to the black line, not the "
        "length of the bar."
    )
    if not found.of_samples:
        text += (
            " Hollow diamonds are a logit mask, which forgets nothing: where it stands as well, "
            "the figure proves nothing."
        )
    if not found.has_reference:
        text = text.replace("to the black line", "to what a model gives that never saw the class")
        return f"{text} No retrained model was given."
    if "retrained_b" in found.values:
        text += " Grey bands are the noise floor, the distance of two retrained models."
    return text


def _figures(found: Findings, keys: Sequence[str]) -> str:
    heads = ["", *(COLUMNS[m] for m in found.columns)]
    if found.has_reference:
        heads.append("unlearned − retrained")
    if "retrained_b" in found.values:
        heads.append("noise floor")
    rows = []
    for key in keys:
        row = [FIGURES[key].title, *(digits(found.value(key, m)) for m in found.columns)]
        if found.has_reference:
            row.append(digits(found.excess(key), sign=True))
        if "retrained_b" in found.values:
            row.append(digits(found.floor(key)))
        rows.append(row)
    return table(heads, rows)


def _legend(keys: Sequence[str]) -> str:
    ways = {key: f" ({better(key)})" if better(key) else "" for key in keys}
    said = [f"{FIGURES[k].title}: {FIGURES[k].text}{ways[k]}." for k in keys]
    return " ".join(text[0].upper() + text[1:] for text in said)


def _concepts(found: Findings) -> str:
    frame = found.concept_frame()
    if frame.empty:
        return ""
    heads = ["concept of the class", *(f"AUC, {COLUMNS[m]}" for m in found.columns)]
    rows = []
    for name, part in frame.groupby("concept", sort=False):
        by = dict(zip(part["model"], part["auc"], strict=True))
        label = f"{name} (its own)" if part["exclusive"].any() else name
        rows.append([label, *(digits(by[m]) for m in found.columns)])
    return table(heads, rows)


def _certificate(found: Findings) -> str:
    facts = found.certificate or {}
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
