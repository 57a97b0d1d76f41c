"""Every example in a docstring of the packages runs and gives what it says."""

import doctest
import importlib

import numpy as np
import pytest
import torch
from markdown_blocks import ROOT

PACKAGES = ("conceptlab", "bottlenecks", "attribution", "unlearning")
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules_with_examples():
    """Names of the modules, from the files, so that a broken one fails its own test."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if ">>> " in path.read_text("utf-8"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = list(modules_with_examples())


def test_the_examples_were_found():
    assert len(MODULES) > 20


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    given = {"np": np, "torch": torch, **vars(module)}
    found = [t for t in doctest.DocTestFinder().find(module, name, extraglobs=given) if t.examples]
    assert found, "the examples stand where doctest does not look"
    output: list[str] = []
    for test in found:
        doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=output.append)
    assert not output, "".join(output)
