"""Find what is public by walking the packages, so that nothing new can be forgotten."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sklearn.base import BaseEstimator

PACKAGES = ("conceptlab", "bottlenecks", "attribution", "unlearning")
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = re.compile(r"^(?:   ~|\.\. auto(?:class|function):: )([\w.]+)$", re.M)
FAILURES: dict[str, str] = {}
"""Modules that cannot be imported and public names that are not there, with the error."""


def source_files() -> list[Path]:
    """All Python files of the packages."""
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


@cache
def modules() -> tuple[ModuleType, ...]:
    """Import every module of the packages, ``__main__`` apart.

    What fails is noted in `FAILURES`, for one test to report.
    """
    found = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        found.append(package)
        for info in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=str):
            if info.name.endswith("__main__"):
                continue
            try:
                found.append(importlib.import_module(info.name))
            except Exception as error:
                FAILURES[info.name] = repr(error)
    return tuple(found)


def _names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Give the public names of a module with their values, submodules apart."""
    for name in getattr(module, "__all__", ()):
        try:
            value = getattr(module, name)
        except Exception as error:
            FAILURES[f"{module.__name__}.{name}"] = repr(error)
            continue
        if not inspect.ismodule(value):
            yield name, value


def _is_private(module: str) -> bool:
    return any(part.startswith("_") for part in module.split("."))


@cache
def public_objects() -> dict[str, Any]:
    """Everything in an ``__all__`` of a public module, by the module that defines it.

    Re-exports count once. Constants have no home of their own and keep the module's name.
    """
    found: dict[str, Any] = {}
    for module in modules():
        if _is_private(module.__name__):
            continue
        for name, value in _names(module):
            home = getattr(value, "__module__", None) if callable(value) else None
            known = isinstance(home, str) and home.split(".")[0] in PACKAGES
            found[f"{home if known else module.__name__}.{name}"] = value
    return found


@cache
def exported_objects() -> dict[str, Any]:
    """What the packages themselves offer: names in the ``__all__`` of a package."""
    found: dict[str, Any] = {}
    for module in modules():
        if _is_private(module.__name__) or not hasattr(module, "__path__"):
            continue
        for name, value in _names(module):
            found[f"{module.__name__}.{name}"] = value
    return found


@cache
def documented_objects() -> dict[str, Any]:
    """What the pages of the reference list: some modules offer names that no package does."""
    found: dict[str, Any] = {}
    for page in sorted((ROOT / "docs" / "reference").glob("*.rst")):
        for entry in REFERENCE.findall(page.read_text("utf-8")):
            module, name = entry.rsplit(".", 1)
            found[entry] = getattr(importlib.import_module(module), name)
    return found


@cache
def offered_objects() -> dict[str, Any]:
    """Everything a user is told of, by the module that defines it."""
    every = [*exported_objects().items(), *documented_objects().items()]
    return {
        f"{value.__module__}.{value.__qualname__}": value
        for _, value in every
        if inspect.isfunction(value) or inspect.isclass(value)
    }


@cache
def estimators() -> dict[str, type]:
    """Every public class with scikit-learn's parameters."""
    return {
        name.rsplit(".", 1)[1]: value
        for name, value in public_objects().items()
        if inspect.isclass(value) and issubclass(value, BaseEstimator)
    }
