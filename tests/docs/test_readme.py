"""The README's stories run, and its two commands are where the checks look for them."""

import pytest
from markdown_blocks import ROOT, blocks, run

README = ROOT / "README.md"
STORIES = blocks(README, "python")


def test_the_two_commands_stand_after_their_markers():
    text = README.read_text(encoding="utf-8")
    for name, end in (
        ("explain", ".venv/bin/conceptlab explain"),
        ("test", ".venv/bin/pytest -n 2"),
    ):
        after = text.split(f"<!-- command: {name} -->\n", 1)[1].splitlines()
        assert after[0] == "```bash"
        assert after[1].startswith("python3 -m venv .venv && .venv/bin/pip install -e ")
        assert after[1].endswith(end)


def test_there_are_four_stories():
    assert len(STORIES) == 4
    stations = ("attribution.explain", "conceptlab.zeroshot", "bottlenecks", "unlearning.audit")
    for story, station in zip(STORIES, stations, strict=True):
        assert f"from {station} import" in story.code


@pytest.mark.parametrize("block", STORIES, ids=[f"line {b.line}" for b in STORIES])
def test_story_runs(block, tmp_path, monkeypatch, capsys, global_state_untouched):
    monkeypatch.chdir(tmp_path)
    run(block, README)
    if "unlearning.audit" in block.code:
        masked, poisoned = (line.split()[-1] for line in capsys.readouterr().out.splitlines())
        assert masked == "suppressed"
        assert poisoned in {"suppressed", "removed"}, "undecided beside a retrained model"
