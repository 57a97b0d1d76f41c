import dataclasses
import json
import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from planted import ColorNet, color_images

from conceptlab.errors import InputError
from conceptlab.extractors import CRAFT
from conceptlab.io.html import figure_png
from conceptlab.models import SplitModel
from conceptlab.plot.maps import map_grid

HOSTILE = '<script>alert("x")</script> & a rather long name'


@pytest.fixture(scope="module")
def explanation():
    images, _ = color_images()
    split = SplitModel(ColorNet(), at="late", class_names=["warm", HOSTILE])
    craft = CRAFT(split, 2, patch_size=8, layers=["early"], depth=1, random_state=0)
    craft.fit(images, target=0).rename([HOSTILE, "b"])
    return craft.explain(images, target=0)


def test_shapes(explanation):
    assert explanation.coefficients.shape == (24, 2)
    assert explanation.maps.shape == (24, 2, 32, 32)
    assert explanation.logits.shape == (24, 2)
    assert [len(row) for row in explanation.patches] == [8, 8]
    assert explanation.patches[0][0].shape == (3, 8, 8)


def test_maps_point_at_the_colour(explanation):
    _, cells = color_images()
    blue = next(i for i, r in enumerate(explanation.tree.roots) if r.vector.argmax() == 1)
    where = (cells == 2).repeat(8, axis=1).repeat(8, axis=2)
    inside = np.maximum(explanation.maps[:, blue], 0)
    assert (inside * where).sum() / inside.sum() > 0.9


def test_frame_is_sorted(explanation):
    frame = explanation.to_frame()
    assert list(frame["importance"]) == sorted(frame["importance"], reverse=True)
    assert ((frame["low"] <= frame["importance"]) & (frame["importance"] <= frame["high"])).all()


@pytest.mark.parametrize(
    ("kind", "result"),
    [("importance", Axes), ("patches", Figure), ("maps", Figure), ("tree", Axes)],
)
def test_plots_return_what_they_promise(explanation, kind, result):
    import matplotlib.pyplot as plt

    drawn = explanation.plot(kind)
    assert isinstance(drawn, result)
    assert not plt.get_fignums(), "a plot leaked into pyplot's list"
    (drawn.figure if isinstance(drawn, Axes) else drawn).canvas.draw()


def test_a_plot_draws_on_the_axes_given(explanation):
    figure = Figure()
    ax = figure.add_subplot()
    assert explanation.plot("importance", ax=ax) is ax


def test_each_concept_is_shown_where_there_is_most_of_it(explanation, monkeypatch):
    from conceptlab import plot

    drawn = {}
    monkeypatch.setattr(
        plot, "map_grid", lambda images, maps, names, **how: drawn.update(maps=maps)
    )
    explanation.plot("maps", top=2)
    held = explanation.coefficients[explanation.shown]
    assert len(drawn["maps"]) == 6
    for row, concept in enumerate(explanation.order):
        best = explanation.maps[held[:, concept].argmax()]
        np.testing.assert_array_equal(drawn["maps"][row], best)
    assert len(np.unique(drawn["maps"].reshape(6, -1), axis=0)) == 6


def test_unknown_kind(explanation):
    with pytest.raises(InputError, match=r"Did you mean 'maps'\?.*Not made .*faithfulness"):
        explanation.plot("map")


def test_the_report_is_self_contained_and_escaped(explanation, tmp_path):
    path = explanation.save(tmp_path / "out dir" / "report.html", title=HOSTILE)
    text = path.read_text()
    assert text.count("<script") == 1, "the page's own"
    assert "script-src 'sha256-" in text
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=['\"](?!data:|#)", text)
    assert text.count("<img") >= 4
    assert "<svg" in text
    assert "<script" not in explanation._repr_html_()


def test_json(explanation):
    data = json.loads(json.dumps(explanation.to_dict()))
    assert len(data["concepts"]) == 2
    assert data["targets"] == {"warm": 24}
    assert data["settings"]["layer"] == "late"


def test_tree_text_and_frame(explanation):
    text = str(explanation.tree)
    assert "[late]" in text
    assert "  " + HOSTILE + ".0 [early]" in text or "  b.0 [early]" in text
    frame = explanation.tree.to_frame()
    assert len(frame) == len(explanation.tree) == 4
    with pytest.raises(InputError, match="Unknown concept"):
        explanation.tree["nothing"]


def test_unknown_figures_are_null_in_json(explanation):
    unknown = dataclasses.replace(
        explanation.importance, interval=np.full_like(explanation.importance.interval, np.nan)
    )
    data = dataclasses.replace(explanation, importance=unknown).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False, default=str))["concepts"][0]["low"] is None


def test_one_name_means_one_thing(explanation):
    """A column that both tables have holds the same numbers."""
    ours = explanation.to_frame().set_index("concept")
    theirs = explanation.importance.to_frame(explanation.names)
    for column in set(ours) & set(theirs):
        np.testing.assert_allclose(ours[column], theirs.loc[ours.index, column])


def test_names_are_no_formulas(explanation):
    explanation = dataclasses.replace(
        explanation, names=[f"${name}_\\foo$" for name in explanation.names], tree=None
    )
    for kind in ("importance", "patches", "maps"):
        figure_png(explanation.plot(kind))
    labels = explanation.plot("importance").get_yticklabels()
    assert all(label.get_text().startswith(r"\$") for label in labels)


def test_maps_of_a_concept_share_one_scale():
    image = np.full((3, 8, 8), 0.5, np.float32)
    maps = np.zeros((2, 1, 8, 8), np.float32)
    maps[0, 0, :2, :2], maps[1, 0, :2, :2] = 1.0, 0.01
    figure = map_grid(np.stack([image, image]), maps, ["c"], concepts=[0])
    strong, weak = (figure.axes[i].images[0].get_array() for i in (2, 5))
    clear = strong[-1, -1]
    assert abs(weak[0, 0] - clear).max() < 0.1 * abs(strong[0, 0] - clear).max()
