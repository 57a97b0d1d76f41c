"""Long jobs that are killed (SIGKILL) at random moments go on to the same bits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from unlearning_world import methods, trains

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
QUICK = {
    "files": ["saving", "embedding cache", "nmf", "synthesis", "benchmarks"],
    "activations": ["activation store", "activation store of positions"],
    "unlearning": ["forget FineTune", "sharded ensemble", "removal"],
}
EVERY = [
    *(name for names in QUICK.values() for name in names),
    "generator",
    "unlearn command",
    *(f"forget {name}" for name in methods() if trains(name) and name != "FineTune"),
]


def killed(names, folder, n_kills, seed=0):
    """Run jobs in a process of their own; give what came of each."""
    script = Path(__file__).with_name("kill_jobs.py")
    done = subprocess.run(
        [sys.executable, script, folder, str(n_kills), str(seed), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [entry["job"] for entry in found] == names
    return found


@pytest.mark.parametrize("group", QUICK)
def test_killed_jobs_go_on_to_the_same_bits(group, tmp_path):
    for entry in killed(QUICK[group], tmp_path, 2):
        assert entry["killed"] == entry["chosen"] == 2, entry
        assert entry["wrong"] == [], entry


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", EVERY)
def test_killed_at_many_moments(name, tmp_path):
    (entry,) = killed([name], tmp_path, 25, seed=1)
    assert entry["killed"] == entry["chosen"], entry
    assert entry["wrong"] == [], entry
