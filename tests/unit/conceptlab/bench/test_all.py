"""`python -m conceptlab.bench all`: every table, whatever becomes of the others."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from conceptlab.bench.__main__ import benchmarks, main

RESULTS = Path(__file__).resolve().parents[4] / "docs" / "results"
WRITES = """
import sys
from pathlib import Path
place = Path(__file__).with_name("good-table.md")
place.write_text("# figures\\n")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three tables: one is made, one breaks, one needs data that are not here."""
    monkeypatch.delenv("NO_SUCH_DATA", raising=False)
    (tmp_path / "tables.toml").write_text(
        '["bad-table"]\n["good-table"]\n["photos"]\nneeds = ["NO_SUCH_DATA"]\n'
    )
    (tmp_path / "good_table.py").write_text(WRITES)
    (tmp_path / "bad_table.py").write_text("raise ValueError('the disk | is full')\n")
    (tmp_path / "photos.py").write_text(WRITES)
    return tmp_path


def call(folder, *more):
    return main(["all", "--out", str(folder), "--only", "bad-table", "good-table", "photos", *more])


def states(folder):
    return {k: v["state"] for k, v in json.loads((folder / "runs.json").read_text()).items()}


def test_a_failure_stops_nothing_and_all_is_written_down(folder, capsys):
    assert call(folder) == 1
    assert states(folder) == {"bad-table": "failed", "good-table": "done", "photos": "skipped"}
    log = json.loads((folder / "runs.json").read_text())
    assert log["bad-table"]["reason"] == "ValueError: the disk | is full"
    assert log["photos"]["reason"] == "needs NO_SUCH_DATA"
    assert {"conceptlab", "torch"} <= set(log["good-table"]["provenance"]["versions"])
    assert log["good-table"]["provenance"]["machine"]
    page = (folder / "runs.md").read_text()
    assert page.startswith("---\norphan: true\n---\n")  # or a build with it would warn
    assert "[good-table](good-table.md)" in page
    assert "the disk / is full" in page  # a bar would break the table
    shown = capsys.readouterr().out
    assert "[1/3] bad-table" in shown
    assert "skipped, 0 s: needs NO_SUCH_DATA" in shown


def test_what_is_done_is_not_made_again_when_only_the_missing_is_asked_for(folder):
    call(folder)
    (folder / "bad_table.py").write_text(WRITES.replace("good-table", "bad-table"))
    (folder / "good_table.py").write_text("raise ValueError('never run')\n")
    assert call(folder, "--missing") == 0
    assert states(folder) == {"bad-table": "done", "good-table": "done", "photos": "skipped"}


def test_a_page_of_an_earlier_run_is_no_success(folder):
    call(folder)
    (folder / "good_table.py").write_text("pass\n")
    assert call(folder) == 1
    assert states(folder)["good-table"] == "failed"


def test_skipping_keeps_what_was_done(folder, monkeypatch):
    monkeypatch.setenv("NO_SUCH_DATA", "here")
    (folder / "photos.py").write_text(WRITES.replace("good-table", "photos"))
    call(folder)
    monkeypatch.delenv("NO_SUCH_DATA")
    call(folder)
    assert states(folder)["photos"] == "done"


@pytest.mark.parametrize(
    "log", ["", "[1]", '{"good-table": 3}', '{"good-table": {"no": 1}}'], ids=range(4)
)
def test_a_damaged_log_is_begun_anew(folder, log):
    (folder / "runs.json").write_text(log)
    call(folder, "--missing")
    assert states(folder)["good-table"] == "done"


def test_a_benchmark_is_run_at_a_small_size_and_its_page_written(tmp_path):
    out = tmp_path / "small run"
    assert main(["all", "--quick", "--out", str(out), "--only", "scenes", "story-photos"]) == 0
    log = json.loads((out / "runs.json").read_text())
    assert log["scenes"]["state"].startswith("done")
    assert log["scenes"]["command"] == "python -m conceptlab.bench scenes --quick --seed 0"
    assert "seed 0" in (out / "scenes.md").read_text()
    assert log["story-photos"]["reason"] == "it has no small problem"


def test_what_cannot_be_meant_is_refused(folder, tmp_path, capsys):
    for arguments in (
        ["all"],
        ["scenes", "--missing"],
        ["scenes", "--only", "scenes"],
        ["all", "--quick", "--out", str(RESULTS)],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert main(["all", "--out", str(folder), "--only", "goood-table"]) == 2
    assert "good-table" in capsys.readouterr().err
    assert not (folder / "runs.json").exists()


def test_every_script_that_makes_a_table_is_listed():
    listed = {
        f"{n.replace('-', '_')}.py" for n in tomllib.loads((RESULTS / "tables.toml").read_text())
    }
    runnable = {p.name for p in RESULTS.glob("*.py") if '__name__ == "__main__"' in p.read_text()}
    assert listed == runnable


def test_every_page_of_a_benchmark_can_be_made_again():
    """A page says with which command it was made; that command exists."""
    for path in RESULTS.glob("*.md"):
        for name in re.findall(r"Made by `python -m conceptlab\.bench (\S+?)`", path.read_text()):
            assert name in benchmarks()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_table_at_a_small_size(tmp_path, monkeypatch):
    monkeypatch.delenv("CONCEPTLAB_DATA", raising=False)
    main(["all", "--quick", "--out", str(tmp_path)])
    log = json.loads((tmp_path / "runs.json").read_text())
    assert not {k: v["reason"] for k, v in log.items() if v["state"] == "failed"}
    assert set(benchmarks()) <= set(log)
