"""Plots show themselves in a notebook, without pyplot."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from conceptlab.plot.bottlenecks import waterfall
from conceptlab.plot.style import new_axes, new_figure

PNG = b"\x89PNG\r\n\x1a\n"


def bars(ax=None):
    return waterfall(np.array([0.7, 0.2]), ["red", "round"], ax=ax)


def test_axes_and_figures_are_pictures_of_themselves():
    ax = new_axes(None)
    ax.plot([0, 1], [1, 0])
    whole = ax._repr_png_()
    assert whole.startswith(PNG)
    assert whole == new_axes(ax)._repr_png_()
    figure = new_figure(2, 1)
    empty = figure._repr_png_()
    assert empty.startswith(PNG)
    figure.add_subplot().plot([0, 1])
    assert len(figure._repr_png_()) > len(empty)


def test_a_users_own_axes_stay_as_they_are():
    own = Figure().add_subplot()
    assert bars(own) is own
    assert not hasattr(own, "_repr_png_")


def test_a_notebook_finds_the_picture():
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(bars())
    assert data["image/png"].startswith(PNG)
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )
