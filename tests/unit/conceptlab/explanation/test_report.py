"""The report: all that is promised stands in it, adds up, works in a browser, and loads again."""

import html.parser
import json
import re

import numpy as np
import pytest
from planted import ColorNet, color_images

from conceptlab import Explanation
from conceptlab.errors import CheckpointError, InputError
from conceptlab.explanation.gallery import frame_style
from conceptlab.extractors import CRAFT
from conceptlab.io.html import figure_svg, picture
from conceptlab.models import SplitModel, crop

HOSTILE = '"><script>alert("x")</script>'


@pytest.fixture(scope="module")
def found():
    images, _ = color_images()
    split = SplitModel(ColorNet(), at="late", class_names=["warm", "cold"])
    craft = CRAFT(split, 2, patch_size=8, depth=0, n_refits=0, random_state=0)
    craft.fit(images, target="predicted").rename(["sun", "sea"])
    made = craft.explain(images, target="predicted")
    made.image_names = [f"photo {i}.png" for i in range(len(images))]
    made.image_names[3] = HOSTILE
    made.labels = ["warm"] * 12 + ["cold"] * 12
    made.settings["command"] = "conceptlab explain photos --model mine.py:build"
    return made


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(found):
    return found.to_html("Two colours")


def test_every_concept_and_its_places_are_told(found, page):
    tags = Tags(page).seen
    cards = [a for tag, a in tags if tag == "article" and "data-concept" in a]
    assert [a["data-name"] for a in cards] == [found.names[i] for i in found.order]
    frames = [a for tag, a in tags if tag == "i" and "style" in a]
    assert len(frames) == sum(len(row) for row in found.places) == 16
    pairs = [a for tag, a in tags if tag == "figure" and "data-concepts" in a]
    for i in (0, 1):
        named = [a["data-image"] for a in pairs if a["data-concepts"] == str(i)]
        assert named == [found.image_names[row[0]] for row in found.places[i]]


def test_a_frame_lies_where_the_patch_is_cut_from(found):
    for i in (0, 1):
        for patch, (image, y, x, side) in zip(found.patches[i], found.places[i], strict=True):
            whole = found.wholes[image]
            np.testing.assert_array_equal(patch, whole[:, y : y + side, x : x + side])
    assert frame_style(8, 16, 8, 1.0, 32, 64) == "left:25.00%;top:25.00%;width:12.50%;height:25.00%"


@pytest.mark.parametrize("place", [(0, 8), (10, 13), (24, 24), (28, 0)])
def test_a_frame_of_a_position_is_what_its_patch_shows(place):
    image = np.random.default_rng(0).random((1, 3, 32, 40), dtype=np.float32)
    shown = crop(image, np.array([0, *place, 8]), context=3.0)
    left, top, width, height = map(
        float, re.findall(r"[\d.]+", frame_style(*place, 8, 3.0, 32, 40))
    )
    y, x = round(top * 0.32), round(left * 0.40)
    framed = image[0, :, y : y + round(height * 0.32), x : x + round(width * 0.40)]
    np.testing.assert_array_equal(framed, shown)


def test_screen_readers_and_keyboards(page):
    tags = Tags(page).seen
    assert all(a.get("alt", "").strip() for tag, a in tags if tag == "img")
    assert all(a.get("scope") in ("col", "row") for tag, a in tags if tag == "th")
    drawn = [a["aria-label"] for tag, a in tags if tag == "div" and a.get("role") == "img"]
    assert any("largest is" in words for words in drawn)
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for tag, a in tags if tag == "a"}
    assert links
    assert links <= set(ids)
    assert "figcaption" in {tag for tag, _ in tags}
    assert "prefers-color-scheme: dark" in page
    assert "conceptlab explain photos --model mine.py:build" in page


def test_the_parts_of_an_answer_are_those_of_the_model(found):
    target = found.logits[found.shown, found.target[found.shown]]
    effects = found.effects
    parts = effects.contributions.sum(1) + effects.without + effects.together
    np.testing.assert_allclose(parts, target, atol=1e-4)


def test_it_loads_again_with_all_its_views(found, page, tmp_path):
    again = Explanation.load(found.save(tmp_path / "kept"))
    assert again.to_html("Two colours") == page
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    np.testing.assert_array_equal(again.maps, found.maps)
    with pytest.raises(CheckpointError, match=r"\[CL-CHECKPOINT"):
        Explanation.load(tmp_path / "nothing")


def test_strengths_by_image(found):
    frame = found.strengths()
    assert list(frame.columns) == ["image", "folder", "answer", "target", "sun", "sea"]
    assert list(frame["image"]) == found.image_names
    np.testing.assert_array_equal(frame[["sun", "sea"]].to_numpy(), found.coefficients)


def test_other_names(found):
    other = Explanation(**{**vars(found), "tree": None})
    assert other.rename(["a", "b"]).names == ["a", "b"]
    with pytest.raises(InputError, match=r"2 different names.*\[CL-INPUT-NAMES\]$"):
        other.rename(["a", "a"])


def test_a_drawing_is_the_same_text_twice_and_stands_twice_in_a_page(found):
    first = figure_svg(found.plot("importance"))
    assert figure_svg(found.plot("importance")) == first
    assert "#000000" not in first
    ids = set(re.findall(r'id="([^"]+)"', first))
    assert set(re.findall(r'href="#([^"]+)"', first)) <= ids
    other = set(re.findall(r'id="([^"]+)"', figure_svg(found.plot("importance", top=1))))
    assert not ids & other
    assert "<img" in picture(found.plot("patches"), "photographs stay pixels")


CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser():
    import os

    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"no browser at {CHROMIUM}")
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def test_sorting_and_filtering_in_a_browser(found, page, tmp_path, browser):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    view, asked, wrong = browser.new_page(), [], []
    view.on("request", lambda request: asked.append(request.url))
    view.on("console", lambda message: wrong.append(message.text))
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.on("dialog", lambda dialog: wrong.append(dialog.message))
    view.goto(file.as_uri())

    def shown(query):
        return view.locator(f"{query}:visible")

    def first_cells():
        return view.locator("table.sortable tbody td:first-child").all_inner_texts()

    ranked = [found.names[i] for i in found.order]
    assert shown("article[data-concept]").count() == 2
    n_images = shown("article[data-image]").count()
    assert first_cells() == ranked
    view.locator("table.sortable th button").first.click()  # by name, from z
    assert first_cells() == ["sun", "sea"]
    view.locator("table.sortable th button").first.click()
    assert first_cells() == ["sea", "sun"]

    view.select_option("[name=concept]", label="sea")
    assert shown("article[data-concept]").count() == 1
    assert shown("table.sortable tbody tr").count() == 1
    view.click(".tools button")
    assert shown("article[data-concept]").count() == 2

    view.select_option("[name=class]", "cold")
    cold = shown("article[data-image]").count()
    assert 0 < cold < n_images
    assert "images shown" in view.locator(".tools output").inner_text()
    view.click(".tools button")

    view.fill("[name=image]", "PHOTO 1")
    names = shown("article[data-image]").evaluate_all("all => all.map(one => one.dataset.image)")
    assert names
    assert all(name.startswith("photo 1") for name in names)
    view.click(".tools button")
    view.select_option("[name=order]", "name")
    cards = view.locator("article[data-concept] h3").all_inner_texts()
    assert cards == ["sea", "sun"]

    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert wrong == []
    for width in (1200, 420):
        view.set_viewport_size({"width": width, "height": 800})
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    view.close()
