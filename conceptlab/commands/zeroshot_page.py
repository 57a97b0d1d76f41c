"""The HTML page of a zero-shot run."""

from __future__ import annotations

__all__ = ["zeroshot_page"]

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from conceptlab.io.html import escape, page, picture, section, table
from conceptlab.zeroshot.explanation import ZeroShotExplanation

_ROWS = 200


def zeroshot_page(
    explanation: ZeroShotExplanation,
    probability: np.ndarray,
    paths: Sequence[str],
    images: Any,
    *,
    truth: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    shown: int = 12,
    top: int = 5,
) -> str:
    """Lay predictions and their evidence out as a self-contained page.

    Parameters
    ----------
    explanation : ZeroShotExplanation
        Of n images.
    probability : ndarray of shape (n,)
        Of the winners.
    paths : sequence of n str
        What the images are called.
    images : images
        As :func:`conceptlab.datasets.as_image_batch` takes them.
    truth : sequence of n str, optional
        Labels.
    notes : sequence of str
        Sentences for the head of the page, such as on the accuracy.
    shown : int
        Images with picture and evidence: the surest, the least sure and what is
        between.
    top : int
        Concepts of each class in the plots.

    Returns
    -------
    str
    """
    columns = ["image", "class", "probability", "runner-up", "log-odds"]
    rows: list[list[Any]] = [
        [path, winner, float(p), second, float(odds)]
        for path, winner, p, second, odds in zip(
            paths,
            explanation.predicted,
            probability,
            explanation.runner_up,
            explanation.log_odds,
            strict=True,
        )
    ]
    if truth is not None:
        columns.append("label")
        for row, label in zip(rows, truth, strict=True):
            row.append(label)
    more = "" if len(rows) <= _ROWS else f"<p>and {len(rows) - _ROWS} more</p>"
    order = np.argsort(-probability, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(shown, len(order))).astype(int))]
    listed = f"<div style='max-height:32rem;overflow-y:auto'>{table(columns, rows[:_ROWS])}</div>"
    parts = [section("Predictions", listed + more)]
    parts += [_reasons(explanation, int(i), probability, paths, images, truth, top) for i in chosen]
    rule = explanation.settings["rule"]
    lead = f"{len(rows)} images, {len(explanation.class_names)} classes, pooling rule {rule}."
    lead = " ".join([lead, *notes])
    footer = f"<code>{escape(json.dumps(explanation.settings, default=str))}</code>"
    return page("Zero-shot by concepts", lead, parts, footer=footer)


def _reasons(
    explanation: ZeroShotExplanation,
    i: int,
    probability: np.ndarray,
    paths: Sequence[str],
    images: Any,
    truth: Sequence[str] | None,
    top: int,
) -> str:
    from conceptlab.datasets.images import as_image_batch, image_source
    from conceptlab.plot.posterior import evidence_bars
    from conceptlab.plot.style import bare, new_figure, to_picture

    figure = new_figure(9.6, 0.9 + 0.27 * (2 * top + 5))
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 3.2))
    left = figure.add_subplot(grid[0])
    left.imshow(to_picture(as_image_batch(image_source(images).read(i, i + 1))[0]))
    bare(left)
    evidence_bars(explanation, i, top=top, ax=figure.add_subplot(grid[1]))
    label = "" if truth is None else f" Label: {truth[i]}."
    return section(
        f"{paths[i]}: {explanation.predicted[i]}",
        picture(figure, f"evidence for {paths[i]}", dpi=90),
        text=f"Probability {probability[i]:.2f}; next: {explanation.runner_up[i]}.{label} The bars "
        "of a class add up to its score over the mean of all classes.",
    )
