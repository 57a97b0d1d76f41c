"""The gallery: enough of it, scripts that run, and every function that draws is in it."""

import ast
import importlib
import pkgutil

import pytest
from markdown_blocks import DOCS

import conceptlab.plot

SCRIPTS = sorted((DOCS / "gallery").rglob("plot_*.py"))
# What only the report of a published setting needs.
NOT_SHOWN = {"window_grid"}


def drawing_functions():
    """Public functions of ``conceptlab.plot`` that give Axes or a Figure, with their module."""
    for info in pkgutil.iter_modules(conceptlab.plot.__path__, "conceptlab.plot."):
        if info.name.rsplit(".", 1)[1] in ("style", "figures"):
            continue
        module = importlib.import_module(info.name)
        for name in module.__all__:
            yield module, name


def test_there_are_at_least_twelve_with_a_title_and_a_text():
    assert len(SCRIPTS) >= 12
    for script in SCRIPTS:
        title, rule, blank, *text = ast.get_docstring(ast.parse(script.read_text())).split("\n")
        assert title, script
        assert rule == "=" * len(title), script
        assert not blank, script
        assert "".join(text), script


@pytest.mark.slow
def test_every_script_draws_and_every_function_is_shown(monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    used = set()

    def noting(name, function):
        def call(*args, **kwargs):
            used.add(name)
            return function(*args, **kwargs)

        return call

    wanted = set()
    for module, name in drawing_functions():
        wanted.add(name)
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
        if name in conceptlab.plot.__all__:
            monkeypatch.setattr(conceptlab.plot, name, getattr(module, name), raising=False)
    for script in SCRIPTS:
        names = {"__name__": "__main__"}
        exec(compile(script.read_text("utf-8"), str(script), "exec"), names)
        assert any(isinstance(value, Axes | Figure) for value in names.values()), script
    assert wanted - used == NOT_SHOWN
