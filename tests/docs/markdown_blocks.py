"""Read fenced code blocks, with the heading they stand under, from a Markdown file."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROOT = DOCS.parent
FENCE = re.compile(r"^```(?:\{code-cell\} )?(\w*)[^\n]*\n(.*?)^```\s*$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block: its language, its code, the heading above it and its first line."""

    language: str
    code: str
    heading: str
    line: int


def blocks(path: Path, language: str | None = None) -> list[Block]:
    """Give the blocks of `path` in order, those of one language only if it is given."""
    text = path.read_text(encoding="utf-8")
    headings = [(m.start(), m.group(1)) for m in re.finditer(r"^#+ (.+)$", text, re.M)]
    found = []
    for match in FENCE.finditer(text):
        above = [title for place, title in headings if place < match.start()]
        line = text[: match.start()].count("\n") + 2
        found.append(Block(match.group(1), match.group(2), above[-1] if above else "", line))
    return [block for block in found if language in (None, block.language)]


def run(block: Block, path: Path, names: dict | None = None) -> dict:
    """Run a block, with line numbers of the file in tracebacks; gives its names."""
    names = {"__name__": "__main__"} if names is None else names
    code = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
    exec(code, names)
    return names
