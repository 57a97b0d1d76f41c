"""The picture of what imports what is that of the code."""

import runpy
from xml.etree import ElementTree

from markdown_blocks import DOCS


def test_the_picture_is_current():
    made = runpy.run_path(str(DOCS / "dependencies.py"))["picture"]()
    drawn = (DOCS / "dependencies.svg").read_text(encoding="utf-8")
    assert made == drawn, "run: python docs/dependencies.py"


def test_the_picture_has_every_folder():
    root = ElementTree.fromstring((DOCS / "dependencies.svg").read_text(encoding="utf-8"))
    shown = {element.text for element in root.iter() if element.tag.endswith("text")}
    folders = {
        path.parent.name
        for package in ("conceptlab", "bottlenecks", "attribution", "unlearning")
        for path in (DOCS.parent / package).glob("*/__init__.py")
    }
    assert folders <= shown
