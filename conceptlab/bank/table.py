"""A bank as a table, and as what a notebook shows."""

from __future__ import annotations

__all__ = ["bank_frame", "bank_html", "short_space"]

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

_SHOWN = 20


def bank_frame(
    names: Sequence[str],
    vectors: np.ndarray,
    intercepts: np.ndarray | None,
    parents: Sequence[int | None] | None,
    columns: Mapping[str, Sequence[Any]],
) -> pandas.DataFrame:
    """See :meth:`conceptlab.ConceptBank.to_frame`."""
    import pandas

    frame = pandas.DataFrame({"norm": np.linalg.norm(vectors.astype(np.float64), axis=1)})
    if intercepts is not None:
        frame["intercept"] = intercepts
    if parents is not None:
        frame["parent"] = [None if p is None else names[p] for p in parents]
    for key, column in columns.items():
        frame[key] = column
    frame.index = pandas.Index(names, name="concept")
    return frame


def bank_html(frame: pandas.DataFrame, n_features: int, space: str | None) -> str:
    """Lay out the first concepts of such a frame as an HTML table; all text is escaped."""
    n, frame = len(frame), frame.head(_SHOWN)
    heads = "".join(f"<th>{html.escape(str(head))}</th>" for head in ("concept", *frame.columns))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in frame.reset_index().itertuples(index=False, name=None)
    )
    more = f"<p>... and {n - _SHOWN} more</p>" if n > _SHOWN else ""
    return (
        f"<div><p><b>ConceptBank</b>: {n} concepts in {n_features} dimensions, space "
        f"{html.escape(short_space(space))}</p><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{more}</div>"
    )


def short_space(space: object) -> str:
    """Give the beginning of a fingerprint, for messages."""
    if space is None:
        return "unknown"
    text = str(space)
    return text[:16] + ("..." if len(text) > 16 else "")


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
