"""The reference lists every name that a package offers, and nothing that is gone."""

import importlib
import inspect
import pkgutil
import re

import pytest
from markdown_blocks import DOCS

PACKAGES = ("conceptlab", "bottlenecks", "attribution", "unlearning")
ENTRY = re.compile(r"^(?:   ~|\.\. auto(?:data|class|function):: )([\w.]+)$", re.M)


def listed():
    found = {}
    for page in sorted((DOCS / "reference").rglob("*.rst")):
        for entry in ENTRY.findall(page.read_text("utf-8")):
            module, name = entry.rsplit(".", 1)
            found[entry] = getattr(importlib.import_module(module), name)
    return found


def offered():
    for package in PACKAGES:
        root = importlib.import_module(package)
        names = [package]
        for info in pkgutil.walk_packages(root.__path__, f"{package}."):
            if info.ispkg and not any(p.startswith("_") for p in info.name.split(".")):
                names.append(info.name)
        for module_name in names:
            module = importlib.import_module(module_name)
            for name in getattr(module, "__all__", ()):
                value = getattr(module, name)
                if not inspect.ismodule(value):
                    yield f"{module_name}.{name}", value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_its_place(package):
    places = {id(value) for value in listed().values()}
    missing = [
        name
        for name, value in offered()
        if name.startswith(f"{package}.")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and id(value) not in places
    ]
    assert missing == [], "add them to a page of docs/reference"
