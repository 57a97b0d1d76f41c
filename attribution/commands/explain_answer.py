"""What ``conceptlab explain`` prints."""

from __future__ import annotations

__all__ = ["accuracy", "show"]

from collections import Counter
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table


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


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")
