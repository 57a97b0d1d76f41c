"""Every error code has a page, and the page's wrong and right examples do what it says."""

import pytest
from markdown_blocks import DOCS, blocks, run

from conceptlab.errors import CODES, ConceptlabError

PAGES = DOCS / "errors"
WRITTEN = [code for code in CODES if (PAGES / f"{code}.md").is_file()]
RUN = [(code, block) for code in WRITTEN for block in blocks(PAGES / f"{code}.md", "python")]
WRONG = [(code, block) for code, block in RUN if block.heading == "Wrong"]
RIGHT = [(code, block) for code, block in RUN if block.heading == "Right"]


def test_every_code_has_a_page_and_every_page_a_code():
    pages = {path.stem for path in PAGES.glob("CL-*.md")}
    assert pages == set(CODES)


def test_pages_have_the_same_parts_and_the_title_of_the_code():
    for code, title in CODES.items():
        text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {code}\n\n{title}.\n"), code
        for part in ("**Symptom.**", "**Cause.**", "## Wrong", "## Right"):
            assert part in text, (code, part)


def test_the_index_lists_every_page():
    text = (PAGES / "index.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"[{code}]({code}.md) | {CODES[code]} |" not in text] == []


@pytest.mark.parametrize(("code", "block"), WRONG, ids=[code for code, _ in WRONG])
def test_wrong_example_raises_its_code(code, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConceptlabError) as caught:
        run(block, PAGES / f"{code}.md")
    assert caught.value.code == code


@pytest.mark.parametrize(("code", "block"), RIGHT, ids=[code for code, _ in RIGHT])
def test_right_example_runs(code, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(block, PAGES / f"{code}.md")
