"""Self-contained HTML: escaped text, tables, pictures inside the file."""

from __future__ import annotations

__all__ = ["escape", "figure_png", "figure_svg", "page", "photo", "picture", "section", "table"]

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from conceptlab.io.reading import read_plain_file

_INKS = {
    "#000000": "currentColor",
    "#333333": "currentColor",
    "#444444": "var(--soft, #444444)",
    "#555555": "var(--soft, #555555)",
    "#666666": "var(--soft, #666666)",
}
"""Colours of text and lines, as a page tells them in light and in dark."""


def escape(value: Any) -> str:
    """Escape a value for use as HTML text or attribute."""
    return html.escape(str(value), quote=True)


def page(
    title: str, lead: str, sections: Iterable[str], *, footer: str = "", script: bool = False
) -> str:
    """Lay sections (HTML) out as one page; `title` and `lead` are plain text.

    Parameters
    ----------
    title, lead : str
        Plain text; each line of `lead` is a paragraph.
    sections : iterable of str
        HTML.
    footer : str
        HTML.
    script : bool
        Whether the page sorts and filters: the one script that a page may hold, named by its
        hash in a policy that forbids every other one and the network.
    """
    code = _asset("page.js") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{_asset('page.css')}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>"
        + "".join(f"<p class='lead'>{escape(line)}</p>" for line in lead.splitlines())
        + "".join(sections)
        + f"<footer>{footer}</footer></main>"
        + (f"<script>{code}</script>" if script else "")
        + "</body></html>\n"
    )


def section(title: str, body: str, *, text: str = "", name: str = "") -> str:
    """Frame a part of the page; `title` and `text` are plain text, `body` is HTML."""
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    mark = f" id='{escape(name)}'" if name else ""
    return f"<section{mark}><h2>{escape(title)}</h2>{paragraph}{body}</section>"


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    swatches: Sequence[str] = (),
    sortable: bool = False,
    marks: Sequence[str] = (),
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
    sortable : bool
        Whether the page's script sorts it at a click on a heading.
    marks : sequence of str
        HTML attributes of each row.
    """
    rows = [list(row) for row in rows]
    numeric = []
    for i in range(len(columns)):
        told = [row[i] for row in rows if row[i] not in ("", None)]
        numeric.append(bool(told) and all(isinstance(v, int | float | np.number) for v in told))
    head = "".join(
        f"<th scope='col'{' class=n' if numeric[i] else ''}>{escape(c)}</th>"
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
        more = f" {marks[number]}" if number < len(marks) else ""
        body.append(f"<tr{more}>{''.join(cells)}</tr>")
    return (
        f"<div class='scroll'><table{' class=sortable' if sortable else ''}>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def figure_png(figure: Any, *, dpi: int = 110) -> bytes:
    """Render a matplotlib Figure (or the Figure of an Axes) as PNG bytes."""
    stream = io.BytesIO()
    _whole(figure).savefig(stream, format="png", dpi=dpi, facecolor="white")
    return stream.getvalue()


def figure_svg(figure: Any) -> str:
    """Draw a matplotlib Figure (or the Figure of an Axes) as an ``<svg>`` element.

    Its ground is clear and its ink the page's, so that it serves in light and dark; its marks
    have names of their own, so that several stand in one page; the same figure gives the same
    text.
    """
    figure, stream = _whole(figure), io.StringIO()
    for ax in figure.axes:
        ax.patch.set_facecolor("none")
    hidden = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", facecolor="none", metadata=hidden)
    # Comments hold names as they were given.
    drawn = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", stream.getvalue(), flags=re.S)
    drawn = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawn[drawn.index("<svg") :])
    drawn = drawn.replace("xlink:href", "href")
    names = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', drawn)))
    new = {name: f"i{number}" for number, name in enumerate(names)}
    prefix = (
        "f"
        + hashlib.sha256(
            re.sub(r'(\bid="|#)([^")]+)', lambda m: m[1] + new.get(m[2], m[2]), drawn).encode()
        ).hexdigest()[:8]
    )
    drawn = re.sub(
        r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + prefix + new.get(m[2], m[2]), drawn
    )
    for ink, named in _INKS.items():
        drawn = drawn.replace(f": {ink}", f": {named}")
    return drawn.replace("<svg ", "<svg fill='currentColor' aria-hidden='true' ", 1)


def picture(figure: Any, alt: str, *, dpi: int = 110, caption: str = "") -> str:
    """Embed a figure: as SVG where it is drawn, as PNG where it holds photographs.

    Parameters
    ----------
    figure : matplotlib Figure or Axes
        What to show.
    alt : str
        What a reader who cannot see it is told.
    dpi : int
        Of a PNG.
    caption : str
        Plain text below it.
    """
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    if any(ax.images for ax in _whole(figure).axes):
        data = base64.b64encode(figure_png(figure, dpi=dpi)).decode()
        inside = f"<img alt='{escape(alt)}' src='data:image/png;base64,{data}'>"
        return f"<figure class='drawn'>{inside}{words}</figure>"
    inside = f"<div role='img' aria-label='{escape(alt)}'>{figure_svg(figure)}</div>"
    return f"<figure class='drawn'>{inside}{words}</figure>"


def photo(pixels: np.ndarray, alt: str, *, side: int = 168) -> str:
    """Embed a picture as an ``<img>``, scaled down to `side`; small ones stay as they are.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, 3)
        Values in [0, 1].
    alt : str
        What a reader who cannot see it is told.
    side : int
        Largest side in pixels.
    """
    from PIL import Image

    drawn = Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
    small = max(drawn.size) <= side // 2
    if max(drawn.size) > side:
        drawn.thumbnail((side, side))
    stream = io.BytesIO()
    kind = "png" if small else "jpeg"
    drawn.save(stream, kind, **({} if small else {"quality": 85}))
    data = base64.b64encode(stream.getvalue()).decode()
    mark = " class='small'" if small else ""
    width, height = drawn.size
    return (
        f"<img{mark} alt='{escape(alt)}' width='{width}' height='{height}' "
        f"src='data:image/{kind};base64,{data}'>"
    )


def _whole(figure: Any) -> Any:
    return getattr(figure, "figure", figure) if hasattr(figure, "plot") else figure


@cache
def _asset(name: str) -> str:
    return read_plain_file(Path(__file__).parent / name).decode()
