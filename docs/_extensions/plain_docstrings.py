"""Let docstrings write plainly: ``(n, *positions, k)``, ``|w|^2``, fitted names as in ``n_iter_``.

In reStructuredText a star opens emphasis, a bar a substitution, and a word that ends in an
underscore is a link. Docstrings are read in
terminals more than on pages, so the escapes are added here and not there.
"""

import re
from typing import Any

_ROLE = re.compile(r":(?:ref|term|doc):`([^`<]*?)(?:\s*<[^`>]*>)?`")
_REQUEST = re.compile(r"set_\w+_request$")
_LITERAL = re.compile(r"(``.+?``|`.+?`)")
_EMPHASIS = re.compile(r"(\*{1,2}[^*\s](?:[^*]*[^*\s])?\*{1,2}(?!\w))")
# Names of parameters, which numpydoc reads itself, before their types.
_NAMES = re.compile(r"^\s*\*{0,2}\w+(?:, \*{0,2}\w+)*(?= : |$)")


def escape(line: str) -> str:
    """Escape stars, bars and last underscores outside literals; emphasis that is closed stays."""
    names = _NAMES.match(line)
    start = names.end() if names else 0
    parts = _LITERAL.split(line[start:])
    for place in range(0, len(parts), 2):
        pieces = _EMPHASIS.split(parts[place])
        pieces[::2] = [re.sub(r"(?<!\\)\*", r"\\*", piece) for piece in pieces[::2]]
        text = re.sub(r"(?<!\\)\|", r"\\|", "".join(pieces))
        parts[place] = re.sub(r"(?<=\w)_(?![\w`])", r"\\_", text)
    return line[:start] + "".join(parts)


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape what stands outside examples."""
    if (getattr(obj, "__module__", None) or "").startswith("sklearn."):
        # Inherited docstrings point at pages of scikit-learn's own documentation.
        lines[:] = [_ROLE.sub(r"\1", line) for line in lines]
    in_example = False
    for place, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            lines[place] = escape(line)


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the setters of metadata routing, which scikit-learn makes for every method."""
    return True if _REQUEST.match(name) else None


def setup(app: Any) -> dict[str, bool]:
    """Run before numpydoc, which splits the docstring into sections."""
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
