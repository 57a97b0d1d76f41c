"""What is saved to a folder comes back with the same bits in a fresh process, one for all."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from answers import differences
from discovery import estimators, public_objects
from exceptions import ABSTRACT
from reports import SAVED
from saved_objects import answers_of, plain

from conceptlab.io.objects import Saved, SavedEstimator

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = {kind: f"{kind.__module__}.{kind.__name__}" for kind in SAVED}


def kept_in_folders():
    return {
        value
        for value in public_objects().values()
        if inspect.isclass(value) and hasattr(value, "save") and hasattr(value, "load")
    }


def test_everything_that_is_saved_is_under_contract():
    abstract = {value for name, value in estimators().items() if name in ABSTRACT}
    missing = kept_in_folders() - set(SAVED) - abstract - {Saved, SavedEstimator}
    assert missing == set(), "add them to tests/contract/reports.py"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Save everything, and let another process load it and answer."""
    folder = tmp_path_factory.mktemp("saved")
    here = {}
    for number, (kind, make) in enumerate(SAVED.items()):
        found = make()
        found.save(folder / str(number))
        here[NAMES[kind]] = plain(answers_of(found))
    script = Path(__file__).with_name("saved_objects.py")
    listed = folder / "list.json"
    listed.write_text(json.dumps(list(NAMES.values())))
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there, heavy = json.loads(done.stdout)
    assert heavy == [], "loading took packages that it does not need"
    return here, there


@pytest.mark.parametrize("name", NAMES.values())
def test_a_fresh_process_gives_the_same_bits(name, elsewhere):
    here, there = elsewhere
    assert here[name], "nothing was compared"
    expected = [tuple(pair) for pair in here[name]]
    assert differences(expected, [tuple(pair) for pair in there[name]]) == []


def test_what_was_saved_is_not_changed_by_saving(tmp_path):
    for kind, make in SAVED.items():
        found = make()
        before = plain(answers_of(found))
        found.save(tmp_path / "folder")
        assert plain(answers_of(found)) == before, kind
        found.save(tmp_path / "folder")  # over an older one
