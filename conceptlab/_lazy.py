"""Public names of a package, imported on first use."""

from __future__ import annotations

__all__ = ["attach"]

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def attach(
    package: str, homes: Mapping[str, str], modules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        Its name.
    homes : mapping of str to str
        The module that defines each name; one that begins with a dot is inside the package.
    modules : collection of str
        Modules of the package that are attributes as well.

    Returns
    -------
    getattr, dir : callable
        As PEP 562 says.
    """
    offered = sorted({*homes, *modules})

    def find(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name], package), name)
        elif name in modules:
            value = import_module(f".{name}", package)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *offered})

    return find, names
