"""The plots of a removal report."""

from __future__ import annotations

__all__ = ["KINDS", "dilation_curves", "draw"]

import re
from typing import Any

import numpy as np

from conceptlab.errors import InputError, unknown_name
from unlearning.removal.findings import MEAN, RemovalFindings
from unlearning.removal.scores import SCORES

KINDS = ("ranking", "classes", "concepts", "pictures", "agreement", "dilation")
_DILATED = re.compile(r" [+-]\d+$")


def draw(
    findings: RemovalFindings,
    kind: str = "ranking",
    *,
    score: str = "fid",
    of: str = MEAN,
    ax: Any = None,
    remover: str | None = None,
) -> Any:
    """Draw findings; see :meth:`unlearning.removal.RemovalReport.plot`."""
    from conceptlab.plot import removal

    if kind not in KINDS:
        raise unknown_name("plot", kind, KINDS)
    if kind == "ranking":
        score = "fid_debiased" if score == "fid" else score
        frame = findings.ranking(score, of)
        chosen = findings.results_of(of)
        ends = [
            float(np.mean([getattr(r, side)[score] for r in chosen]))
            if all(score in getattr(r, side) for r in chosen)
            else None
            for side in ("floors", "ceilings")
        ]
        return removal.ranking_plot(
            list(frame.remover),
            frame[["value", "low", "high"]].to_numpy(),
            list(frame["rank"]),
            title=SCORES[score].title,
            floor=ends[0],
            ceiling=ends[1],
            ax=ax,
        )
    if kind == "dilation":
        curves = dilation_curves(findings, score, of)
        if not curves:
            raise InputError(
                "No remover was run with two dilations. Give such as ['telea-2', 'telea'].",
                code="CL-INPUT-OPTION",
            )
        floors = [r.floors[score] for r in findings.results_of(of) if score in r.floors]
        return removal.dilation_curves(
            curves,
            title=SCORES[score].title,
            floor=float(np.mean(floors)) if floors else None,
            ax=ax,
        )
    if kind == "classes":
        values = np.stack([findings.values(score, c) for c in findings.classes])
        return removal.class_bars(
            findings.removers, findings.classes, values, title=SCORES[score].title, ax=ax
        )
    if kind == "agreement":
        other = "fid_truth" if "fid_truth" in findings.scores() else "fid_original"
        return removal.agreement_plot(
            findings.removers,
            findings.values(other, of),
            findings.values(score, of),
            titles=(SCORES[other].title, SCORES[score].title),
            tau=findings.agreement(score, other, of),
            ax=ax,
        )
    result = findings.results_of(of)[0]
    label = remover or findings.favourite()
    if label not in result.labels:
        raise unknown_name("remover", label, result.labels)
    if kind == "concepts":
        if label not in result.shifts:
            raise InputError(
                "Concepts need an image–text encoder: RemovalBenchmark(..., encoder=...).",
                code="CL-INPUT-OPTION",
            )
        return removal.concept_bars(
            result.shifts[label].to_frame(), title=f"{label}, {result.name} removed", ax=ax
        )
    shown = result.pictures[label]
    return removal.picture_grid(
        shown["images"], shown["labels"], title=f"{label}: worst and best by {shown['by']}"
    )


def dilation_curves(
    findings: RemovalFindings, score: str = "fid", of: str = MEAN
) -> dict[str, np.ndarray]:
    """Give for each remover with several dilations the rows (dilation, value, low, high)."""
    values, intervals = findings.values(score, of), findings.interval(score, of)
    points: dict[str, list[list[float]]] = {}
    for label, value, (low, high) in zip(findings.removers, values, intervals, strict=True):
        name, _, dilation = label.rpartition(" ") if _DILATED.search(label) else (label, "", "0")
        points.setdefault(name, []).append([float(dilation), value, low, high])
    return {name: np.array(sorted(rows)) for name, rows in points.items() if len(rows) > 1}
