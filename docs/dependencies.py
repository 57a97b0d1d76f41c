"""Draw what imports what, from the imports themselves: ``python docs/dependencies.py``.

Writes ``dependencies.svg`` beside this file. Rows are the layers that import-linter checks (in
``pyproject.toml``); a line says that the upper one imports the lower one. A line that others
imply (a over b, b over c, so a over c) is left out. Faces (``__init__.py``) import what they
offer and are no part of it; imports for types alone count.
"""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_suffix(".svg")
WIDTH, BOX, ROW, EDGE = 1000, 24, 56, 14
FRAMES = {  # left edge and width; a row of frames each
    "unlearning": (0, WIDTH),
    "attribution": (0, 300),
    "bottlenecks": (320, WIDTH - 320),
    "conceptlab": (0, WIDTH),
}
ROWS = (("unlearning",), ("attribution", "bottlenecks"), ("conceptlab",))
STYLE = """
rect.frame { fill: #f6f7f9; stroke: #c5cad3; }
rect.box { fill: #ffffff; stroke: #4c5a70; }
path { fill: none; stroke: #4c5a70; stroke-opacity: 0.45; }
text { font: 12px system-ui, sans-serif; fill: #1c2430; text-anchor: middle; }
text.name { font-weight: 600; font-size: 14px; text-anchor: start; }
"""


def layers() -> dict[str, list[list[str]]]:
    """Read the layers of each package, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return {
        contract["containers"][0]: [
            [name.strip() for name in row.split("|") if not name.strip().startswith("_")]
            for row in contract["layers"]
        ]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers" and contract.get("containers", [""])[0] in FRAMES
    }


def imported(package: str) -> dict[str, set[str]]:
    """Give for each folder and file of a package what it imports of the same package."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        own = path.relative_to(ROOT / package).with_suffix("").parts[0]
        if own.startswith("_"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
                inside = (node.module or "").split(".")[1:2]
                names = inside or [alias.name for alias in node.names]
                found.setdefault(own, set()).update(n for n in names if n != own)
    return found


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out what follows from the rest."""

    def below(name: str) -> set[str]:
        direct = arrows.get(name, set())
        return direct.union(*(below(other) for other in direct))

    return {
        name: direct - set().union(*(below(other) for other in direct))
        for name, direct in arrows.items()
    }


def frame(package: str, rows: list[list[str]], top: int) -> tuple[list[str], int]:
    """Draw one package; gives the elements and the height."""
    left, width = FRAMES[package]
    rows = [row for row in rows if row]
    height = ROW * len(rows) + BOX + EDGE
    places = {}
    boxes = []
    for number, row in enumerate(rows):
        for i, name in enumerate(row):
            x = left + width * (i + 0.5) / len(row)
            y = top + BOX + EDGE + ROW * number
            wide = 7 * len(name) + 20
            places[name] = (x, y)
            boxes.append(
                f'<rect class="box" x="{x - wide / 2:.0f}" y="{y}" width="{wide}" '
                f'height="{BOX}" rx="4"/><text x="{x:.0f}" y="{y + 16}">{name}</text>'
            )
    lines = []
    for name, others in sorted(reduced(imported(package)).items()):
        for other in sorted(others & places.keys() if name in places else ()):
            (x1, y1), (x2, y2) = places[name], places[other]
            bend = f"{x1:.0f} {y1 + ROW} {x2:.0f} {y2 - ROW + BOX}"
            lines.append(f'<path d="M{x1:.0f} {y1 + BOX} C{bend} {x2:.0f} {y2}"/>')
    box = f'x="{left}.5" y="{top}.5" width="{width - 1}" height="{height}" rx="6"'
    title = f'<text class="name" x="{left + 12}" y="{top + 20}">{package}</text>'
    return [f'<rect class="frame" {box}/>', title, *lines, *boxes], height


def picture() -> str:
    """Draw all packages, those above over those below."""
    every, found, top = layers(), [], 0
    for row in ROWS:
        drawn = [frame(package, every[package], top) for package in row]
        found += [line for elements, _ in drawn for line in elements]
        top += max(height for _, height in drawn) + 20
    size = f'viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join(
        [head, f"<title>What imports what</title><style>{STYLE}</style>", *found, "</svg>\n"]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
