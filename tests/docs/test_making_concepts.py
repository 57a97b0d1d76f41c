"""The page on making concepts runs from top to bottom, and says what comes out."""

from markdown_blocks import DOCS, blocks, run


def test_page_runs(tmp_path, monkeypatch, recwarn, capsys):
    monkeypatch.chdir(tmp_path)
    page = DOCS / "making-concepts.md"
    names = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        run(block, page, names)
    assert names["made"]["tree_frog"] == ["sticky toes", "green skin"]
    assert names["made"].meta["shortfall"] == {}
    assert names["concepts"].counts.tolist() == [2, 1]
    assert names["table"]["arvo"] == ["red", "circle", "striped"]
    assert names["found"].counts()["duplicate"] == 1
    assert names["sets"].counts.tolist() == [10]
    assert names["control"].counts.tolist() == names["table"].counts.tolist()
    assert "['sticky toes', 'green skin']" in capsys.readouterr().out
