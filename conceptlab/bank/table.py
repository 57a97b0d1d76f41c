"""A bank as a table, and as what a notebook shows."""

from __future__ import annotations

__all__ = ["bank_frame", "bank_html", "short_space"]

import html
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

    from conceptlab.bank.core import ConceptBank

_SHOWN = 20


def bank_frame(bank: ConceptBank) -> pandas.DataFrame:
    """See :meth:`ConceptBank.to_frame`."""
    import pandas

    frame = pandas.DataFrame({"norm": np.linalg.norm(bank.vectors.astype(np.float64), axis=1)})
    if bank.intercepts is not None:
        frame["intercept"] = bank.intercepts
    if bank.parents is not None:
        frame["parent"] = [None if p is None else bank.names[p] for p in bank.parents]
    for key, column in bank.meta.get("concepts", {}).items():
        frame[key] = column
    frame.index = pandas.Index(bank.names, name="concept")
    return frame


def bank_html(bank: ConceptBank) -> str:
    """Lay out the first concepts as an HTML table; all text is escaped."""
    frame = bank_frame(bank).head(_SHOWN)
    heads = "".join(f"<th>{html.escape(str(head))}</th>" for head in ("concept", *frame.columns))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in frame.reset_index().itertuples(index=False, name=None)
    )
    more = f"<p>... and {len(bank) - _SHOWN} more</p>" if len(bank) > _SHOWN else ""
    return (
        f"<div><p><b>ConceptBank</b>: {len(bank)} concepts in {bank.n_features} dimensions, space "
        f"{html.escape(short_space(bank.space))}</p><table><thead><tr>{heads}</tr></thead>"
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
