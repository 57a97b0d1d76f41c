"""The page on the papers' numbers: our figures are on the pages that it links to."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGE = RESULTS / "papers.md"
PAPERS = ("2211.10154", "2404.03323", "2603.07911", "2405.15662", "2404.11104", "2504.01218")
NUMBER = re.compile(r"(?<![\d.])[−-]?\d+\.\d+")


def rows():
    """The cells of each line of a table: published, where, ours, verdict."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines]
    return [c for c in cells if c[0] != "published"]


def numbers(text):
    return [(n, float(n.replace("−", "-"))) for n in NUMBER.findall(text)]


def stand_on(value, decimals, known):
    """Whether a figure is one of these, rounded, be it a share or in per cent."""
    half = 0.5000001 * 10**-decimals
    return any(abs(abs(value) - abs(k) * unit) <= half for k in known for unit in (1, 100, 0.01))


def test_all_six_papers_have_a_table():
    text = PAGE.read_text("utf-8")
    for paper in PAPERS:
        assert f"https://arxiv.org/abs/{paper}" in text
    assert len(rows()) >= 30
    assert all(len(cells) == 4 for cells in rows())


def test_all_six_papers_can_be_cited():
    text = (RESULTS.parent / "CITATION.cff").read_text("utf-8")
    assert [paper for paper in PAPERS if f'"https://arxiv.org/abs/{paper}"' not in text] == []


def test_every_line_ends_with_a_verdict_or_says_why_not():
    verdicts = ("reproduced", "partly", "contradicted", "not tested", "not comparable", "built")
    for published, _, ours, verdict in rows():
        assert published == "–" or verdict.startswith(verdicts), published
        assert verdict != "not tested" or ours != "–", published


@pytest.mark.parametrize("place", [2, 3])
def test_our_figures_are_on_the_pages_that_are_linked(place):
    checked = 0
    for cells in rows():
        pages = re.findall(r"\]\(([\w-]+\.md)\)", cells[place])
        if not pages:
            continue
        known = [v for page in pages for _, v in numbers((RESULTS / page).read_text("utf-8"))]
        for text, value in numbers(cells[place]):
            if place == 2 and text in cells[0]:
                continue  # quoted from the paper
            assert stand_on(value, len(text.split(".")[1]), known), (text, pages)
            checked += 1
    assert checked > (40 if place == 2 else 3)
