"""One process or many: the same numbers, under torchrun on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ranks

from conceptlab.distributed import World
from conceptlab.extractors import NMFConcepts


def launch(n, *arguments):
    """Run the tests' program on n ranks; gloo, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return subprocess.run(
        [*command, str(n), ranks.__file__, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return ranks.compute(World(), Path(tmp_path_factory.mktemp("one")))


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tmp_path_factory):
    folder = Path(tmp_path_factory.mktemp(f"ranks-{request.param}"))
    done = launch(request.param, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    lost = np.array([path.read_text() for path in sorted(folder.glob("lost-*.txt"))])
    with np.load(folder / "found.npz") as found:
        return dict(found, lost=lost, size=request.param)


def test_what_ranks_find_is_what_one_process_finds(alone, together):
    for name, value in alone.items():
        other = together[name]
        if name.startswith(("rows", "index", "steps")):
            assert np.array_equal(value, other), name
        elif name == "float32 error":
            assert abs(other / value - 1) < 1e-5
        elif name in ("mean", "covariance"):
            assert np.abs(other - value).max() <= 1e-12 * np.abs(alone["mean"]).max(), name
        else:
            assert np.abs(other - value).max() <= 1e-6 * np.abs(value).max(), name


def test_one_rank_is_the_plain_fit(alone):
    plain = NMFConcepts(5, random_state=0, device="cpu").fit(ranks.matrix())
    assert np.array_equal(plain.components_, alone["W svd"])
    assert np.allclose(np.cov(1e6 + ranks.matrix(1), rowvar=False), alone["covariance"])


def test_the_dead_component_lives(alone):
    assert (np.linalg.norm(alone["W sown"], axis=1) > 0.99).all()


def test_what_is_wrong_on_one_rank_is_told_on_all(together):
    expected = ["CL-INPUT-NEGATIVE", "CL-INPUT-OPTION", "CL-INPUT-ZERO", "CL-INPUT-OPTION"]
    assert all(codes.tolist() == expected for codes in together["codes"])


def test_ranks_are_told_of_one_that_ended(together):
    assert len(together["lost"]) == together["size"] - 1
    assert all("lost another one" in words for words in together["lost"].tolist())
    assert all(words.endswith("[CL-RANK-LOST]") for words in together["lost"].tolist())
