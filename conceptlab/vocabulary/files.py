"""Read and write concept files as they are published: ``{class: [texts]}`` in JSON."""

from __future__ import annotations

__all__ = ["from_pairs", "read_concepts", "write_concepts"]

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from conceptlab.errors import InputError, unknown_name
from conceptlab.io.files import atomic_write, json_bytes
from conceptlab.io.reading import read_plain_file
from conceptlab.vocabulary.concepts import ClassConcepts, Texts
from conceptlab.vocabulary.filters import fold
from conceptlab.vocabulary.prompts import PROMPTS

Duplicates = Literal["drop", "keep"]


def read_concepts(
    path: str | os.PathLike[str],
    *,
    prompt: str | None = None,
    classes: Sequence[str] | None = None,
    duplicates: Duplicates = "drop",
) -> ClassConcepts:
    """Read a file of CGBC, DCLIP or CuPL as it was published.

    All three are a JSON object from class to a list of strings: short features
    (CGBC, DCLIP) or whole sentences (CuPL). Lists may differ in length. Labels
    are kept letter by letter; underscores turn to blanks only in prompts.

    Parameters
    ----------
    path : path-like
        The file, in UTF-8.
    prompt : {"cgbc", "cgbc-satellite", "dclip", "cupl", ...}, optional
        How its texts are to be put into sentences; kept in ``meta["prompt"]``,
        where ``embed`` and ``prompts`` find it.
    classes : sequence of str, optional
        The classes to take, in this order; names that differ from the file's by
        underscores and case only are found too. May name a class twice: the
        result has it once, and ``index`` maps both.
    duplicates : {"drop", "keep"}
        What to do with a text that a class has twice, up to case and blanks.

    Returns
    -------
    ClassConcepts
        ``meta["dropped"]`` counts what was left out, by reason.

    Raises
    ------
    InputError
        A file that is not there, no JSON (with line and column), or of
        another form (``CL-INPUT-FILE``); a class that it lacks
        (``CL-INPUT-LABELS``).

    Examples
    --------
    >>> path = write_concepts({"newt": ["a long tail", "wet skin"]}, "amphibians.json")
    >>> read_concepts(path, prompt="cgbc")["newt"]
    ['a long tail', 'wet skin']
    """
    if prompt is not None and prompt not in PROMPTS and "{concept}" not in prompt:
        raise unknown_name("prompt", prompt, PROMPTS)
    if duplicates not in ("drop", "keep"):
        raise unknown_name("way with duplicates", duplicates, ["drop", "keep"])
    file = Path(path)
    dropped = {"blank": 0, "duplicate": 0}
    texts = _texts(_object(file), file, duplicates, dropped)
    if classes is not None:
        texts = _chosen(texts, classes, file)
    meta: dict[str, Any] = {"source": file.name, "dropped": {k: n for k, n in dropped.items() if n}}
    if prompt is not None:
        meta["prompt"] = prompt
    return ClassConcepts(texts, meta=meta)


def write_concepts(
    concepts: ClassConcepts | Mapping[str, Sequence[str]], path: str | os.PathLike[str]
) -> Path:
    """Write texts in the published form, so that the released programs read them.

    Parameters
    ----------
    concepts : ClassConcepts or mapping
        Class to texts; vectors are not written (``ClassConcepts.save`` does).
    path : path-like
        The file; replaced whole.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> from conceptlab.vocabulary import read_concepts
    >>> path = write_concepts({"newt": ["a tail"]}, "concepts.json")
    >>> read_concepts(path)["newt"]
    ['a tail']
    """
    texts = ClassConcepts(concepts.texts if isinstance(concepts, ClassConcepts) else concepts).texts
    return atomic_write(path, json_bytes(texts, indent=4) + b"\n")


def from_pairs(pairs: Any, *, duplicates: Duplicates = "drop") -> ClassConcepts:
    """Group (class, concept) pairs by class.

    Parameters
    ----------
    pairs : iterable of pairs, or pandas.DataFrame
        A frame has the columns ``class`` and ``concept``, or exactly two.
    duplicates : {"drop", "keep"}
        What to do with a text that a class has twice.

    Returns
    -------
    ClassConcepts
        Classes in order of appearance.

    Examples
    --------
    >>> from_pairs([("newt", "a tail"), ("frog", "no tail"), ("newt", "wet skin")]).texts
    {'newt': ['a tail', 'wet skin'], 'frog': ['no tail']}
    """
    if hasattr(pairs, "columns"):
        names = list(pairs.columns)
        chosen = ["class", "concept"] if {"class", "concept"} <= set(names) else names
        if len(chosen) != 2:
            raise InputError(
                f"The table needs the columns 'class' and 'concept', got {names}.",
                code="CL-INPUT-SHAPE",
            )
        pairs = pairs[chosen].itertuples(index=False, name=None)
    grouped: Texts = {}
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(v, str) for v in pair):
            raise InputError(
                f"Pair {number} must be (class, concept), two texts, got {pair!r:.80}.",
                code="CL-INPUT-TYPE",
            )
        grouped.setdefault(pair[0], []).append(pair[1])
    if duplicates == "drop":
        grouped = {label: _without_repeats(values)[0] for label, values in grouped.items()}
    return ClassConcepts(grouped)


def _object(file: Path) -> list[tuple[str, Any]]:
    try:
        text = read_plain_file(file).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {file}.", code="CL-INPUT-FILE") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not readable as text in UTF-8: {error}.", code="CL-INPUT-FILE"
        ) from error
    try:
        # A list of pairs shows keys that come twice, of which a dict keeps the last.
        value = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}. "
            'Expected {"class": ["concept", ...], ...}.',
            code="CL-INPUT-FILE",
        ) from error
    except RecursionError as error:
        raise InputError(f"{file} is nested too deeply.", code="CL-INPUT-FILE") from error
    if not isinstance(value, _Pairs):
        raise InputError(
            f'{file} holds a {type(value).__name__}; expected an object {{"class": ["concept", '
            "...], ...}.",
            code="CL-INPUT-FILE",
        )
    if not value:
        raise InputError(f"{file} holds no classes.", code="CL-INPUT-EMPTY")
    return value


class _Pairs(list[tuple[str, Any]]):
    """The items of a JSON object, repeated keys included."""


def _texts(
    items: list[tuple[str, Any]], file: Path, duplicates: str, dropped: dict[str, int]
) -> Texts:
    texts: Texts = {}
    for label, values in items:
        if not label.strip():
            raise InputError(f"{file} has a class without a name.", code="CL-INPUT-FILE")
        if not isinstance(values, list) or isinstance(values, _Pairs):
            raise InputError(
                f"{file}: the concepts of class {label!r} must be a list of texts, got "
                f"{_shown(values)}.",
                code="CL-INPUT-FILE",
            )
        for place, text in enumerate(values):
            if not isinstance(text, str):
                raise InputError(
                    f"{file}: concept {place} of class {label!r} must be a text, got "
                    f"{_shown(text)}.",
                    code="CL-INPUT-FILE",
                )
        filled = [text.strip() for text in values if text.strip()]
        dropped["blank"] += len(values) - len(filled)
        texts.setdefault(label, []).extend(filled)
    if duplicates == "drop":
        for label, values in texts.items():
            texts[label], count = _without_repeats(values)
            dropped["duplicate"] += count
    return texts


def _without_repeats(values: list[str]) -> tuple[list[str], int]:
    first: dict[str, str] = {}
    for text in values:
        first.setdefault(fold(text), text)
    return list(first.values()), len(values) - len(first)


def _chosen(texts: Texts, classes: Sequence[str], file: Path) -> Texts:
    alike: dict[str, str] = {}
    for label in texts:
        alike.setdefault(fold(label.replace("_", " ")), label)
    chosen: Texts = {}
    for label in [classes] if isinstance(classes, str) else classes:
        if not isinstance(label, str):
            raise InputError(
                f"classes are names of the file, got {label!r}. For numbers give the names: "
                "classes=[class_names[i] for i in numbers].",
                code="CL-INPUT-LABELS",
            )
        found = label if label in texts else alike.get(fold(label.replace("_", " ")))
        if found is None:
            raise unknown_name(
                "class", label, texts, code="CL-INPUT-LABELS", hint=f"{file} does not have it."
            )
        chosen[label] = texts[found]
    return chosen


def _shown(value: Any) -> str:
    kind = "an object" if isinstance(value, _Pairs) else f"{value!r}"
    return kind if len(kind) <= 60 else kind[:57] + "..."
