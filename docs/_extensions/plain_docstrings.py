"""Let docstrings write plainly: ``(n, *positions, k)``, ``|w|^2``, fitted names as in ``n_iter_``.

In reStructuredText a star opens emphasis, a bar a substitution, and a word that ends in an
underscore is a link. Docstrings are read in
terminals more than on pages, so the escapes are added here and not there.
"""

import re
from typing import Any

_LITERAL = re.compile(r"(``.+?``|`.+?`)")
_EMPHASIS = re.compile(r"(\*{1,2}[^*\s](?:[^*]*[^*\s])?\*{1,2}(?!\w))")
_HEADING = re.compile(r"^\s*\*{0,2}\w+(, \*{0,2}\w+)*( :.*)?$")


def escape(line: str) -> str:
    """Escape stars and bars outside literals; emphasis that is closed stays."""
    parts = _LITERAL.split(line)
    for place in range(0, len(parts), 2):
        pieces = _EMPHASIS.split(parts[place])
        pieces[::2] = [re.sub(r"(?<!\\)\*", r"\\*", piece) for piece in pieces[::2]]
        parts[place] = re.sub(r"(?<!\\)\|", r"\\|", "".join(pieces))
        if not _HEADING.match(line):  # numpydoc reads names of parameters itself
            parts[place] = re.sub(r"(?<=\w)_(?![\w`])", r"\\_", parts[place])
    return "".join(parts)


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape what stands outside examples."""
    in_example = False
    for place, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            lines[place] = escape(line)


def setup(app: Any) -> dict[str, bool]:
    """Run before numpydoc, which splits the docstring into sections."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
