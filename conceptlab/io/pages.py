"""One machine for the pages of results: sections as data, notes, footer, files, notebook view."""

from __future__ import annotations

__all__ = ["HtmlReport", "Page", "Section", "summary"]

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conceptlab.io.files import atomic_write
from conceptlab.io.html import escape, page, section
from conceptlab.io.values import plain


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes
    ----------
    title : str
        Its heading, plain text.
    body : str
        HTML, by :func:`conceptlab.io.html.table`, :func:`~conceptlab.io.html.picture`, ...
    text : str
        Plain text before the body: what is shown and how to read it.
    name : str
        Where the contents point to; no entry there without.
    """

    title: str
    body: str = ""
    text: str = ""
    name: str = ""


@dataclass(frozen=True)
class Page:
    """A self-contained page as data.

    Attributes
    ----------
    title, lead : str
        Heading, and the sentences below it; plain text.
    sections : sequence of Section
        In their order.
    notes : sequence of str
        What a reader has to know: a section at the end, plain text.
    facts : mapping
        How it came about, as settings and provenance: the footer. Empty for none. ``command``
        is told first.
    warning : str
        What a reader has to know before all else, plain text.
    tools : str
        HTML of what the page's script sorts and filters by; the page has no script without.

    Examples
    --------
    >>> made = Page("Result", "One figure.", [Section("Figures", "<p>1</p>")], facts={"seed": 0})
    >>> "How it came about" in made.html()
    True
    """

    title: str
    lead: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""
    tools: str = ""

    def html(self) -> str:
        """Lay the page out."""
        parts = [f"<p class='warn'>{escape(self.warning)}</p>"] if self.warning else []
        parts += [f"<p class='lead'>{escape(line)}</p>" for line in self.lead.splitlines()]
        named = [part for part in self.sections if part.name]
        if named:
            items = "".join(
                f"<li><a href='#{escape(part.name)}'>{escape(part.title)}</a></li>"
                for part in named
            )
            parts.append(f"<nav aria-label='Contents'><ul>{items}</ul></nav>")
        parts.append(self.tools)
        parts += [
            section(part.title, part.body, text=part.text, name=part.name) for part in self.sections
        ]
        if self.notes:
            items = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
            parts.append(section("Notes", f"<ul>{items}</ul>"))
        facts = dict(self.facts)
        command = facts.pop("command", "")
        footer = f"<p>Made by <code>{escape(command)}</code></p>" if command else ""
        if facts:
            told = escape(json.dumps(plain(facts)))
            footer += f"<p>How it came about</p><code>{told}</code>"
        return page(self.title, "", parts, footer=footer, script=bool(self.tools))


class HtmlReport:
    """What results offer beside their figures: JSON, a page of their own, a notebook cell.

    A report that derives from this gives :meth:`to_dict`, the page as data (``_page``) and the
    lead and body of its notebook view (``_summary``).
    """

    def to_dict(self) -> dict[str, Any]:
        """Give the results as JSON values; what is not finite is None."""
        raise NotImplementedError

    def _page(self, title: str | None) -> Page:
        raise NotImplementedError

    def _summary(self) -> tuple[str, str]:
        raise NotImplementedError

    def to_json(self, path: str | os.PathLike[str] | None = None, *, indent: int = 2) -> str:
        """Give :meth:`to_dict` as text, and write it where `path` is given.

        Parameters
        ----------
        path : path-like, optional
            A file.
        indent : int
            Spaces a level.

        Returns
        -------
        str
        """
        text = json.dumps(self.to_dict(), indent=indent, allow_nan=False)
        if path is not None:
            atomic_write(Path(path), text)
        return text

    def to_html(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Write a self-contained page: pictures are inside the file.

        Parameters
        ----------
        path : path-like
            The file.
        title : str, optional
            Its heading.

        Returns
        -------
        pathlib.Path
        """
        return atomic_write(path, self._page(title).html())

    def _repr_html_(self) -> str:
        lead, body = self._summary()
        return summary(type(self).__name__, lead, body)


def summary(name: str, lead: str, body: str) -> str:
    """Make a notebook view: a name, a line of plain text, and HTML below.

    Examples
    --------
    >>> summary("Report", "2 models & a mask", "<p>1</p>")
    '<div><p><b>Report</b> &middot; 2 models &amp; a mask</p><p>1</p></div>'
    """
    return f"<div><p><b>{escape(name)}</b> &middot; {escape(lead)}</p>{body}</div>"
