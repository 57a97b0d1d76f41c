"""Packages whose names are imported on first use."""

import importlib

import pytest

import conceptlab
import unlearning
from conceptlab import plot
from unlearning.registry import METHODS


def test_names_are_found_listed_and_kept():
    assert plot.map_grid is vars(plot)["map_grid"]
    assert {"map_grid", "waterfall"} <= set(dir(plot))
    with pytest.raises(AttributeError, match="module 'conceptlab' has no attribute 'nowhere'"):
        _ = conceptlab.nowhere


@pytest.mark.parametrize("package", ["conceptlab", "bottlenecks", "attribution", "unlearning"])
def test_what_a_stub_says_is_there_and_nothing_else_is_offered(package):
    face = importlib.import_module(package)
    for name in face.__all__:
        value = getattr(face, name)
        home = getattr(value, "__module__", None) or value.__name__
        assert home.split(".")[0] in {"conceptlab", "bottlenecks", "attribution", "unlearning"}
    assert face.__all__ == sorted(set(face.__all__))


def test_every_method_of_the_command_line_is_offered():
    assert set(METHODS.values()) <= set(unlearning.__all__)
