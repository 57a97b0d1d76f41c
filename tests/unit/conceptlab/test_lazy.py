"""Packages whose names are imported on first use."""

import pytest

import conceptlab
from conceptlab import plot


def test_names_are_found_listed_and_kept():
    assert plot.map_grid is vars(plot)["map_grid"]
    assert {"map_grid", "waterfall"} <= set(dir(plot))
    with pytest.raises(AttributeError, match="module 'conceptlab' has no attribute 'nowhere'"):
        _ = conceptlab.nowhere
