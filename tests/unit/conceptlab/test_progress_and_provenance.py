import numpy as np
import torch
from torch import nn

from conceptlab.progress import track
from conceptlab.provenance import fingerprint, provenance


def test_a_callable_sees_every_step():
    seen = []
    assert list(track([5, 6], description="x", progress=lambda n, t: seen.append((n, t)))) == [5, 6]
    assert seen == [(1, 2), (2, 2)]


def test_silence(capsys, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_PROGRESS", "0")
    list(track(range(3), description="x"))
    list(track(range(3), description="x", progress=False))
    assert capsys.readouterr().err == ""


def test_a_bar_shows_the_description(capsys):
    list(track(range(3), description="encode images", progress=True))
    assert "encode images" in capsys.readouterr().err


def test_fingerprints_tell_weights_apart():
    model = nn.Linear(2, 2)
    before = fingerprint(model)
    assert before == fingerprint(model)
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert fingerprint(model) != before


def test_an_array_and_its_tensor_have_one_fingerprint():
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fingerprint(X) == fingerprint(torch.from_numpy(X))
    assert fingerprint(X) != fingerprint(X.T)
    assert fingerprint(X.astype(np.float64)) != fingerprint(X)


def test_bfloat16_has_a_fingerprint():
    assert len(fingerprint(torch.ones(3, dtype=torch.bfloat16))) == 64


def test_provenance_names_versions():
    facts = provenance(seed=3)
    assert facts["seed"] == 3
    assert torch.__version__.startswith(facts["versions"]["torch"])
