"""What a notebook or a browser is shown: names are texts there, never marks."""

import html.parser
import inspect
import io
from pathlib import Path

import numpy as np
import pytest
from discovery import public_objects
from instances import images
from reports import HOSTILE, NUMBERS, REPORTS
from sklearn.base import BaseEstimator

import conceptlab.io.html
import conceptlab.plot as plots
from conceptlab.io.html import escape
from conceptlab.plot import generators, removal, unlearning

pytestmark = pytest.mark.filterwarnings("ignore")


def with_a_view():
    return {
        value
        for value in public_objects().values()
        if inspect.isclass(value)
        and hasattr(value, "_repr_html_")
        and not issubclass(value, BaseEstimator)
        # A picture, and what reports derive from.
        and value.__module__ not in ("conceptlab.plot.figures", "conceptlab.io.pages")
    }


def test_every_view_is_under_contract():
    assert with_a_view() - set(REPORTS) == set(), "add them to tests/contract/reports.py"


OWN = (Path(conceptlab.io.html.__file__).parent / "page.js").read_text("utf-8")
"""The one script that a page may hold, whatever it shows."""


class Marks(html.parser.HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        text = text.replace(f"<script>{OWN}</script>", "")
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object", "embed", "link", "base", "b>round<"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.found.append(f"{tag} {name}")
            elif name in ("src", "href") and not value.startswith(("data:", "#")):
                self.found.append(f"{tag} {name}={value}")


def pages(found, folder):
    shown = {"view": found._repr_html_()}
    if hasattr(found, "to_html"):
        if "path" in inspect.signature(found.to_html).parameters:
            shown["page"] = found.to_html(folder / "page.html").read_text("utf-8")
        else:
            shown["page"] = found.to_html()
    return shown


@pytest.mark.parametrize("kind", REPORTS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_names_are_escaped(kind, tmp_path):
    found = REPORTS[kind]()
    assert isinstance(repr(found), str)
    shown = pages(found, tmp_path)
    for what, text in shown.items():
        assert Marks(text).found == [], what
        for raw in ("<script>alert", 'alert("x")', "<b>round", "& co"):
            assert raw not in text, f"{what}: {raw}"
    named = any(escape(HOSTILE)[:30] in text for text in shown.values())
    assert named == (kind not in NUMBERS), "the name is shown nowhere, so nothing was checked"


PLOTS = {
    "before_after_grid": lambda: generators.before_after_grid({HOSTILE: images(2)}),
    "figure_bars": lambda: unlearning.figure_bars([HOSTILE], {HOSTILE: np.ones(1)}, main=HOSTILE),
    "intervention_plot": lambda: plots.intervention_plot({HOSTILE: (np.arange(2), [0.2, 0.9])}),
    "map_grid": lambda: plots.map_grid(
        images(1), images(1), [HOSTILE] * 3, concepts=[0], captions=[HOSTILE]
    ),
    "patch_grid": lambda: plots.patch_grid([[images()[0]]], [HOSTILE], notes=[HOSTILE]),
    "picture_grid": lambda: removal.picture_grid(images(1)[None], [HOSTILE], title=HOSTILE),
    "dilation_curves": lambda: removal.dilation_curves({HOSTILE: np.ones((2, 4))}, title=HOSTILE),
    "ranking_plot": lambda: removal.ranking_plot([HOSTILE], np.ones((1, 3)), [1], title=HOSTILE),
    "relearn_curves": lambda: unlearning.relearn_curves(
        {HOSTILE: (np.arange(2), np.arange(2))}, target=0.9
    ),
    "destination_bars": lambda: unlearning.destination_bars(
        [HOSTILE, "b"], {HOSTILE: np.array([0.5, 0.5])}
    ),
    "score_distributions": lambda: generators.score_distributions(
        {HOSTILE: np.arange(3.0)}, HOSTILE
    ),
    "share_bars": lambda: generators.share_bars({HOSTILE: 0.3}),
    "waterfall": lambda: plots.waterfall([1.0, 0.5], [HOSTILE, "b"], title=HOSTILE),
    "weight_map": lambda: plots.weight_map([[1.0, 0.5]], [HOSTILE, "b"], [HOSTILE]),
}


@pytest.mark.parametrize("name", PLOTS)
def test_names_are_no_formulas(name):
    drawn = PLOTS[name]()
    figure = drawn if hasattr(drawn, "savefig") else drawn.figure
    figure.savefig(io.BytesIO(), dpi=30)  # where matplotlib reads the texts
