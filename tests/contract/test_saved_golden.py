"""Folders that the first release wrote are read back, with the parts they had."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from reports import SAVED
from saved_objects import answers_of, load, plain

from conceptlab.training.checkpoint import read_checkpoint

FOLDER = Path(__file__).parents[1] / "golden" / "saved"
PARTS = json.loads((FOLDER / "parts.json").read_text())
KINDS = {kind.__name__: kind for kind in SAVED}
COMPUTED = ("answer", "predicted", "decoded", "maps", "frame", "mean", "covariance")
"""What is computed from the parts, which may differ in the last bit on another processor."""


def test_every_kind_has_a_folder():
    assert set(KINDS) - {name.split("-")[0] for name in PARTS} == set()


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_the_first_release_is_read_back(name):
    found = load(KINDS[name.split("-")[0]], FOLDER / name)
    answers = answers_of(found)
    kept = {part: value for part, value in answers.items() if part not in COMPUTED}
    now = {path: digest[:12] for path, digest in plain(kept)}
    assert {path: now.get(path) for path in PARTS[name]} == PARTS[name]


def test_a_checkpoint_of_the_first_release_is_read_back():
    key = {"method": "FineTune", "parameters": {"lr": 0.1}, "seed": 3}
    state = read_checkpoint(FOLDER / "UnlearningCheckpoint", key)
    assert state["tuple"] == (1, 2.5, None)
    assert state["inf"] == math.inf
    assert math.isnan(state["nan"])
    assert torch.equal(state["numbers"][0], torch.arange(3))
    assert state["numbers"][1][0].dtype is torch.bfloat16
    assert state["numbers"][1][0].shape == ()
    assert state["numbers"][1] == [torch.tensor(2.0, dtype=torch.bfloat16), True]
    assert np.array_equal(state["array"], np.eye(2, dtype=np.float32))
    assert (state["text"], state["empty"], state["scalar"]) == ("x", {}, 0.5)
