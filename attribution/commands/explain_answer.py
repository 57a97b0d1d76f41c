"""What ``conceptlab explain`` prints."""

from __future__ import annotations

__all__ = ["accuracy", "more_formats", "show", "write_formats"]

import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conceptlab.errors import InputError, unknown_name
from conceptlab.io.files import atomic_write

_FORMATS = ("html", "svg", "csv", "data")


def accuracy(folders: list[str], explanation: Any) -> dict[str, float] | None:
    """Compare answers with folders that have the name of a class; None where there are none."""
    from conceptlab.importance.intervals import wilson

    names = [_plain(name) for name in explanation.class_names or ()]
    answers = explanation.logits.argmax(axis=1)
    told = [(_plain(f), a) for f, a in zip(folders, answers, strict=False) if _plain(f) in names]
    if not told or explanation.logits.shape[1] < 2:
        return None
    right, n = sum(names[a] == name for name, a in told), len(told)
    low, high = wilson(right / n, n)
    commonest = Counter(name for name, _ in told).most_common(1)[0][1]
    return {
        "accuracy": right / n,
        "low": low,
        "high": high,
        "commonest": commonest / n,
        "n_images": n,
    }


def show(console: Console, explanation: Any, found: dict[str, float] | None) -> None:
    """Print accuracy, whether the concepts carry the decision, and the table of concepts."""

    def say(line: str) -> None:
        if line:
            console.print(line, highlight=False, markup=False)

    if found:
        say(
            "Accuracy against the names of folders: {accuracy:.0%} ({low:.0%} to {high:.0%}) of "
            "{n_images} images (always the commonest: {commonest:.0%}).".format(**found)
        )
    say(explanation.warning())
    say(explanation.decision.figures())
    say(explanation.settings.get("layer_words", ""))
    frame = explanation.to_frame()
    table = Table(
        title=f"Concepts of {explanation.settings['layer']}", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("concept")
    if "words" in frame:
        table.add_column("words", ratio=1)
    for column in ("importance", "signed", *(["stable"] if "stability" in frame else [])):
        table.add_column(column, justify="right", no_wrap=True)
    if "drives" in frame:
        table.add_column("raises", ratio=1)
    for row in frame.head(10).to_dict(orient="records"):
        cells = [row["concept"], *([row["words"]] if "words" in frame else [])]
        cells += [
            f"{row['importance']:.3f}\n{row['low']:.3f} to {row['high']:.3f}",
            f"{row['signed']:+.3f}",
        ]
        cells += [f"{row['stability']:.2f}"] if "stability" in frame else []
        table.add_row(*map(escape, [*cells, *([row["drives"]] if "drives" in frame else [])]))
    console.print(table)
    if len(frame) > 10:
        say(f"10 of {len(frame)} concepts; the report has all.")
    split = [root for root in explanation.tree.roots if root.children] if explanation.tree else []
    for root in split:
        parts = ", ".join(child.name for child in root.children)
        say(f"{root.name} mixes two things (p = {root.test.p_value:.1g}): {parts}")
    if explanation.tree:
        say(explanation.tree.unsplit())


def more_formats(formats: str) -> list[str]:
    """Read what is to be written beside the page."""
    chosen = [word.strip().lower() for word in formats.split(",") if word.strip()]
    for word in chosen:
        if word not in _FORMATS:
            raise unknown_name("format", word, _FORMATS)
    return [word for word in dict.fromkeys(chosen) if word != "html"]


def write_formats(explanation: Any, report: Path, kinds: list[str]) -> list[str]:
    """Write figures, strengths and data beside a page, named as it is."""
    written = []
    if "svg" in kinds:
        folder = report.with_name(f"{report.stem}-figures")
        for kind in ("importance", "patches", "maps", "tree", "faithfulness"):
            with contextlib.suppress(InputError):  # not made for this explanation
                drawn = explanation.plot(kind, top=len(explanation.names))
                stream = io.StringIO()
                getattr(drawn, "figure", drawn).savefig(stream, format="svg")
                written.append(atomic_write(folder / f"{kind}.svg", stream.getvalue()))
    if "csv" in kinds:
        text = explanation.strengths().to_csv(index=False)
        written.append(atomic_write(report.with_suffix(".csv"), text))
    if "data" in kinds:
        written.append(explanation.save(report.with_name(f"{report.stem}-data")))
    return [str(path) for path in written]


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")
