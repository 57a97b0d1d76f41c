"""Deletion from shards against runs that never saw the data, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from torch import nn

from conceptlab.errors import CheckpointError, InputError
from unlearning import ShardedEnsemble, as_samples


def build():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def noisy(X, generator):
    return X + 0.05 * torch.randn(X.shape, generator=generator)


def world(n=60):
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(n) % 3
    X = torch.randn(n, 6, generator=generator)
    X[torch.arange(n), y] += 2.0
    return X, y


def ensemble(**changes):
    settings = {"n_shards": 3, "n_slices": 3, "epochs": 2, "batch_size": 8, "random_state": 0}
    return ShardedEnsemble(build, **{**settings, **changes})


def same(first, second):
    """Whether all states of two ensembles have equal bits."""
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        for left, right in zip(first.states_, second.states_, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@settings(max_examples=8)
@given(st.sets(st.integers(0, 59), min_size=1, max_size=12), st.integers(0, 3))
def test_deletion_equals_a_run_that_never_saw_the_data(gone, seed):
    X, y = world()
    keep = torch.tensor([i not in gone for i in range(len(y))])
    trained = ensemble(random_state=seed, augment=noisy).fit(X, y)
    before = trained.fingerprint()
    deletion = trained.delete((X[~keep], y[~keep]))
    reference = ensemble(random_state=seed, augment=noisy).fit(X[keep], y[keep])
    assert same(trained, reference)
    assert trained.fingerprint() == reference.fingerprint() != before
    assert deletion.n_deleted == len(gone)
    assert 0 < deletion.passes <= deletion.passes_of_fit


def test_order_of_the_data_and_of_requests_does_not_matter(global_state_untouched):
    X, y = world()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    first = ensemble().fit(X, y)
    second = ensemble().fit(X[order], y[order])
    assert same(first, second)
    first.delete((X[:4], y[:4]))
    first.delete((X[9:10], y[9:10]))
    second.delete((X[9:10], y[9:10]))
    second.delete((X[:4].flip(0), y[:4].flip(0)))
    assert same(first, second)
    assert len(first.deletions_) == 2
    assert first.to_frame()["n_deleted"].tolist() == [4, 1]


def test_nothing_of_the_deleted_samples_is_kept():
    X, y = world()
    trained = ensemble().fit(X, y)
    gone = as_samples((X[:5], y[:5]))
    trained.delete(gone)
    assert len(trained.data_) == len(trained.ids_) == 55
    assert not any(line.split(":")[0] in set(gone.hashes) for line in trained.ids_)


def test_one_sample_costs_one_shard_from_its_slice_on():
    X, y = world()
    trained = ensemble().fit(X, y)
    states = [list(shard) for shard in trained.states_]
    shard, piece = int(trained.shard_[7]), int(trained.slice_[7])
    deletion = trained.delete((X[7:8], y[7:8]))
    assert deletion.shards == [shard]
    assert deletion.slices == 3 - piece
    assert deletion.cost < 0.6
    for i, before in enumerate(states):
        for j, state in enumerate(before):
            kept = state is trained.states_[i][j]
            assert kept == (i != shard or j <= piece)


def test_late_classes_cost_the_last_slice_alone():
    X, y = world()
    early = ensemble(late_classes=[1]).fit(X, y)
    assert set(early.slice_[y.numpy() == 1]) == {2}
    assert set(early.slice_[y.numpy() != 1]) == {0, 1}
    deletion = early.delete((X[y == 1], y[y == 1]))
    assert deletion.slices == 3
    assert same(early, ensemble(late_classes=[1]).fit(X[y != 1], y[y != 1]))
    spread = ensemble().fit(X, y).delete((X[y == 1], y[y == 1]))
    assert deletion.cost < 0.6 < spread.cost


def test_equal_samples_are_deleted_together():
    X, y = world()
    twice = torch.cat([X, X[:2]]), torch.cat([y, y[:2]])
    trained = ensemble().fit(*twice)
    assert trained.delete((X[:1], y[:1])).n_deleted == 2
    assert same(trained, ensemble().fit(*(part[[*range(1, 60), 61]] for part in twice)))


def test_prediction_is_the_mean_of_probabilities():
    X, y = world()
    trained = ensemble(epochs=6).fit(X, y)
    found = []
    for states in trained.states_:
        member = build()
        member.load_state_dict(states[-1])
        with torch.no_grad():
            found.append(member.eval()(X).softmax(1))
    expected = torch.stack(found).mean(0).numpy()
    np.testing.assert_allclose(trained.predict_proba(X), expected, atol=1e-6)
    assert np.array_equal(trained.predict(X.numpy()), expected.argmax(1))
    with torch.no_grad():
        np.testing.assert_allclose(trained.as_module()(X).exp(), expected, atol=1e-6)
    assert trained.score(X, y) == trained.score((X, y)) > 0.6


def test_epochs_of_slices_are_worth_those_of_one_training():
    """The sum over slices of e i/R is `epochs` up to rounding (section V-A of the paper)."""
    X, y = world()
    trained = ensemble(epochs=8, n_shards=1).fit(X, y)
    each = trained._epochs_of_slice()
    assert each == 4
    assert sum(each * i / 3 for i in (1, 2, 3)) == 8


def test_saved_ensemble_deletes_to_the_same_bits(tmp_path):
    X, y = world()
    trained = ensemble(augment=noisy).fit(X, y)
    trained.delete((X[3:4], y[3:4]))
    trained.save(tmp_path / "shards")
    keep = torch.arange(60) != 3
    again = ShardedEnsemble.load(
        tmp_path / "shards", build, data=(X[keep].flip(0), y[keep].flip(0)), augment=noisy
    )
    assert same(again, trained)
    assert again.deletions_ == trained.deletions_
    assert np.array_equal(again.predict_proba(X), trained.predict_proba(X))
    for one in (again, trained):
        one.delete((X[10:13], y[10:13]))
    assert same(again, trained)
    assert "sha256" in again._repr_html_()


def test_what_is_refused(tmp_path):
    X, y = world()
    trained = ensemble().fit(X, y)
    before = trained.fingerprint()
    for forget, match in (
        ((X[:1] + 1, y[:1]), "not in the fit"),
        ((X[:1], (y[:1] + 1) % 3), "not in the fit"),
        ((X, y), "Nothing would be left"),
    ):
        with pytest.raises(InputError, match=match):
            trained.delete(forget)
    assert trained.fingerprint() == before
    trained.save(tmp_path / "shards")
    with pytest.raises(InputError, match="without its training data"):
        ShardedEnsemble.load(tmp_path / "shards", build).delete((X[:1], y[:1]))
    with pytest.raises(InputError, match="not the 60 of the fit"):
        ShardedEnsemble.load(tmp_path / "shards", build, data=(X[1:], y[1:]))
    with pytest.raises(InputError, match="augment"):
        ShardedEnsemble.load(tmp_path / "shards", build, augment=noisy)
    with pytest.raises(CheckpointError, match="do not fit"):
        ShardedEnsemble.load(tmp_path / "shards", lambda: nn.Linear(6, 3))
    for changes, match in (
        ({"n_shards": 0}, "n_shards"),
        ({"late_classes": [1], "n_slices": 1}, "late_classes"),
        ({"lr": 0}, "lr"),
    ):
        with pytest.raises(InputError, match=match):
            ensemble(**changes).fit(X, y)
    with pytest.raises(InputError, match="0 to 2"):
        ensemble().fit(X, y + 1)
    with pytest.raises(InputError, match="NaN"):
        ensemble(lr=1e38, momentum=10).fit(X, y)


def test_a_fit_that_fails_leaves_the_ensemble_as_it_was():
    X, y = torch.rand(40, 6), torch.arange(40) % 3
    left = [3]

    def fragile():
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("no more")
        return nn.Linear(6, 3)

    ensemble = ShardedEnsemble(fragile, 3, 2, epochs=1, random_state=0)
    with pytest.raises(RuntimeError, match="no more"):
        ensemble.fit(X, y)
    with pytest.raises(NotFittedError):
        ensemble.predict(X)
    left[0] = 100
    before = ensemble.fit(X, y).fingerprint()
    left[0] = 3
    with pytest.raises(RuntimeError, match="no more"):
        ensemble.fit(X[:30], y[:30])
    left[0] = 100
    assert ensemble.fingerprint() == before
    assert ensemble.predict(X).shape == (40,)


def test_interrupted_deletion_leaves_the_ensemble_as_it_was():
    X, y = world()
    trained = ensemble().fit(X, y)
    before = trained.fingerprint()

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.delete((X[:9], y[:9]), progress=interrupt)
    assert trained.fingerprint() == before
    assert len(trained.ids_) == 60
    trained.delete((X[:9], y[:9]))
    assert same(trained, ensemble().fit(X[9:], y[9:]))
