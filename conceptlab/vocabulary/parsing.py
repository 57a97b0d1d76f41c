"""Read concepts out of whatever a text generator wrote."""

from __future__ import annotations

__all__ = ["parse_concepts"]

import json
import re
from typing import Any

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^\s*```[\w-]*\s*$", re.MULTILINE)
_MARKER = re.compile(
    r"^[^a-z]*(?:(?:begin|end|start|stop|of|output|answer|list|concepts?|features?)\b[^a-z]*)+$",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_BULLET = re.compile(
    r"^\s*(?:>+\s*)?(?:(?:[-*+•‣◦▪●·–—]|\(?\d{1,3}\s*[.):\]]|\(?[a-zA-Z][.)]|\[\s?[xX]?\])\s+"
    r"|\(?\d{1,3}[.)]\s*(?=[^\d\s])|[•‣◦▪●]\s*)+"
)
_BOLD_HEAD = re.compile(r"^\s*(?:\*\*|__)(.{2,}?)(?:\*\*|__)\s*(?:[:–—-]\s*(.*))?$")
_QUOTES = "\"'`“”„‟«»‘’"
_LEAD = re.compile(
    r"^(?:an?\s+(?:photo|picture|image|photograph)\s+of\s+.{1,60}?\s+(?=with\s)"
    r"|(?:it|they|this|these)(?:\s+\w+)?\s+(?=(?:has|have|is|are|features?|shows?)\s)"
    r"|(?:the|an?)\s+[\w -]{1,40}?\s+(?=(?:has|have|features?|shows?)\s)"
    r"|which\s+(?=(?:has|have|is|are)\s))",
    re.IGNORECASE,
)
_WITH = re.compile(r"^(?:with|has|have|having|featuring|features|showing|shows|is|are)\s+", re.I)
_EXPLAINED = re.compile(r"\s+(?:[–—-]{1,2}|->|→|=>)\s+.*$")
_TALK = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here(?:'s|’s| is| are)|these are|below|note that|i hope|"
    r"let me|i['’ ]|as an ai|sorry|unfortunately|please|in summary|the following)\b",
    re.IGNORECASE,
)


def parse_concepts(answer: str) -> list[str]:
    r"""Take the concepts out of one answer of a text generator, leniently.

    Understood are one concept a line, with or without bullets, numbers, quotes,
    bold print or begin and end marks; JSON lists, also inside a code fence; and
    one line with commas or semicolons. Lead-ins such as "with", "it has" or "a
    photo of a frog with" are cut, as are thoughts between ``<think>`` tags,
    explanations behind a dash, talk such as "Sure, here are ten:", and
    headings. What a concept may be is for the filters to say.

    Parameters
    ----------
    answer : str
        Text as it came.

    Returns
    -------
    list of str
        In the order of the text, repeats kept; may be empty.

    Examples
    --------
    >>> parse_concepts("Sure! Here are three:\n1. **Sticky toes** - to climb\n2) with green skin")
    ['Sticky toes', 'green skin']
    >>> parse_concepts('["a long tail", "red eyes"]')
    ['a long tail', 'red eyes']
    """
    text = _FENCE.sub("\n", _THINKING.sub("\n", answer)).strip()
    listed = _from_json(text)
    if listed is None:
        lines = [line for line in text.splitlines() if line.strip()]
        listed = _split_line(lines[0]) if len(lines) == 1 else lines
    cleaned = (_clean(line) for line in listed)
    return [concept for concept in cleaned if concept]


def _from_json(text: str) -> list[str] | None:
    """Read a JSON list of texts, or an object that holds lists of texts."""
    for opening, closing in (("[", "]"), ("{", "}")):
        start, stop = text.find(opening), text.rfind(closing)
        if start < 0 or stop <= start or text[:start].count("\n") > 3:
            continue
        try:
            value = json.loads(text[start : stop + 1])
        except (ValueError, RecursionError):
            continue
        found = _strings(value)
        if found:
            return found
    return None


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list | dict)]
        return _strings(lists or list(value.values()))
    return []


def _split_line(line: str) -> list[str]:
    """Cut one line at semicolons, at numbers, or at two or more commas."""
    bare = line.strip()
    if len(re.findall(r"(?:^|\s)\(?\d{1,2}[.)]\s", bare)) > 1:
        return [part for part in re.split(r"(?:^|\s)\(?\d{1,2}[.)]\s", bare) if part.strip()]
    if ";" in bare:
        return bare.split(";")
    if bare.count(",") >= 2:
        head, colon, rest = bare.partition(":")
        parts = (rest if colon and rest.strip() else head).split(",")
        return [re.sub(r"^\s*and\s+", "", part) for part in parts]
    return [bare]


def _clean(line: str) -> str:
    line = _TAG.sub(" ", line).strip()
    if not line or _MARKER.match(line) or line.startswith("#") or not any(map(str.isalpha, line)):
        return ""
    line = _BULLET.sub("", line).strip()
    bold = _BOLD_HEAD.match(line)
    if bold:
        line = (
            bold.group(1).rstrip(": ")
            if len(bold.group(1).split()) > 1 or not bold.group(2)
            else bold.group(2)
        )
    line = line.replace("**", "").replace("__", "").strip().strip(",;").strip(_QUOTES).strip()
    if line.endswith((":", "!", "?")) or _TALK.match(line):
        return ""
    line = _EXPLAINED.sub("", line)
    head, colon, rest = line.partition(": ")
    if colon:  # "Colour: green skin" names a kind, "Sticky toes: help it climb" explains
        line = rest if len(head.split()) == 1 else head
    line = line.strip(_QUOTES + " \t,;.…*_").strip()
    line = _LEAD.sub("", line)
    line = _WITH.sub("", line)
    return " ".join(line.split())
