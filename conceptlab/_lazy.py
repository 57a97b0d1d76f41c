"""Public names of a package, imported on first use.

A package's face is its stub: ``__init__.pyi`` says by plain imports which names it offers and
where each is made. Type checkers read it, and so does :func:`attach`, so that the list stands once.
"""

from __future__ import annotations

__all__ = ["attach"]

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], Any]]:
    """Make ``__all__``, ``__getattr__`` and ``__dir__`` of a package from its stub.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    file : str
        Its ``__file__``; the stub lies beside it.

    Returns
    -------
    names : list of str
        What the package offers, sorted.
    getattr, dir : callable
        As PEP 562 says.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text("utf-8"))
    homes = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        value = import_module(f"{home}.{name}") if home == package else _of(home, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return sorted(homes), find, names


def _of(module: str, name: str) -> Any:
    return getattr(import_module(module), name)
