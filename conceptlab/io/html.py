"""Self-contained HTML: escaped text, tables, pictures inside the file."""

from __future__ import annotations

__all__ = ["escape", "figure_png", "page", "picture", "section", "table"]

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2530; background: #f5f6f8; margin: 0; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
p.lead { color: #556; margin: 0 0 1.5rem; }
section { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: 1.2rem 1.4rem;
  margin: 1rem 0; }
section > p { margin: .2rem 0 .9rem; color: #445; max-width: 52rem; }
table { border-collapse: collapse; font-size: .92rem; margin: .5rem 0; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid #eceef1; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
th { color: #667; font-weight: 600; }
img { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .45em; vertical-align: -.05em; }
footer { color: #778; font-size: .85rem; }
footer code { font-size: .8rem; word-break: break-all; }
"""


def escape(value: Any) -> str:
    """Escape a value for use as HTML text or attribute."""
    return html.escape(str(value), quote=True)


def page(title: str, lead: str, sections: Iterable[str], *, footer: str = "") -> str:
    """Lay sections (HTML) out as one page; `title` and `lead` are plain text."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p class='lead'>{escape(lead)}</p>"
        + "".join(sections)
        + f"<footer>{footer}</footer></main></body></html>\n"
    )


def section(title: str, body: str, *, text: str = "") -> str:
    """Frame a part of the page; `title` and `text` are plain text, `body` is HTML."""
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{body}</section>"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, swatches: Sequence[str] = ()
) -> str:
    """Make a table; floats get three digits, everything is escaped.

    Parameters
    ----------
    columns : sequence of str
        The headings.
    rows : iterable of sequences
        The cells.
    swatches : sequence of str
        A colour before the first cell of each row.
    """
    rows = [list(row) for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | np.number) for row in rows)
        for i in range(len(columns))
    ]
    head = "".join(
        f"<th class='n'>{escape(c)}</th>" if numeric[i] else f"<th>{escape(c)}</th>"
        for i, c in enumerate(columns)
    )
    body = []
    for number, row in enumerate(rows):
        cells = []
        for i, cell in enumerate(row):
            shown = f"{cell:.3f}" if isinstance(cell, float | np.floating) else str(cell)
            mark = (
                f"<span class='swatch' style='background:{escape(swatches[number])}'></span>"
                if i == 0 and number < len(swatches)
                else ""
            )
            cells.append(f"<td{' class=n' if numeric[i] else ''}>{mark}{escape(shown)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def figure_png(figure: Any, *, dpi: int = 110) -> bytes:
    """Render a matplotlib Figure (or the Figure of an Axes) as PNG bytes."""
    figure = getattr(figure, "figure", figure) if hasattr(figure, "plot") else figure
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, facecolor="white")
    return stream.getvalue()


def picture(figure: Any, alt: str, *, dpi: int = 110) -> str:
    """Embed a figure as an ``<img>`` with its data inside the page."""
    data = base64.b64encode(figure_png(figure, dpi=dpi)).decode()
    return f"<img alt='{escape(alt)}' src='data:image/png;base64,{data}'>"
