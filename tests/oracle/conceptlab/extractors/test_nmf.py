"""The factorisation: planted truth, scikit-learn as the peer, KKT, statistics, streams."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF
from sklearn.decomposition import non_negative_factorization as sklearn_nmf
from sklearn.exceptions import ConvergenceWarning

from conceptlab.errors import InputError
from conceptlab.extractors import NMFConcepts, match_concepts, nnls
from conceptlab.extractors.hals import HALSOptions, factorise, sweep, unit_sweep
from conceptlab.extractors.starts import nndsvd, randomized_svd


def planted(n=300, p=60, k=5, noise=0.0, seed=0):
    """Separable: every concept has rows of its own, so that the truth is unique."""
    rng = np.random.default_rng(seed)
    U = rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.5)
    U[:k] = np.eye(k)
    W = rng.gamma(0.5, size=(k, p)) * (rng.random((k, p)) < 0.6)
    A = U @ W
    return np.maximum(A + noise * A.std() * rng.normal(size=A.shape), 0), U, W


def relative(A, model):
    return np.linalg.norm(A - model.transform(A) @ model.components_) / np.linalg.norm(A)


@pytest.mark.parametrize("init", ["nndsvda", "nndsvd", "random"])
def test_recovers_planted_concepts(init):
    A, U, W = planted()
    model = NMFConcepts(5, init=init, tol=1e-9, max_iter=3000, n_init=3, random_state=0).fit(A)
    order, cosines = match_concepts(W, model.components_)
    assert cosines.min() > 0.999
    found = model.transform(A)[:, order]
    assert min(np.corrcoef(found[:, j], U[:, j])[0, 1] for j in range(5)) > 0.999
    assert model.reconstruction_err_ < 2e-3 * np.linalg.norm(A)


@pytest.mark.parametrize("k", [4, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_no_worse_than_scikit_learn_from_the_same_start(k, dtype):
    A = planted(k=9, noise=0.5)[0].astype(dtype)
    U, W = nndsvd(torch.from_numpy(A), k, 0, fill=torch.from_numpy(A).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer_U, peer_W, _ = sklearn_nmf(
            A,
            U.numpy().copy(),
            W.numpy().copy(),
            n_components=k,
            init="custom",
            tol=1e-7,
            max_iter=3000,
        )
    ours = NMFConcepts(k, tol=1e-7, max_iter=3000, random_state=0).fit(A)
    peer = np.linalg.norm(A - peer_U @ peer_W)
    assert ours.reconstruction_err_ <= 1.002 * peer, "local optima differ by 0.1 %"
    assert ours.components_.dtype == dtype
    assert ours.kkt_ < 1e-4


def test_kkt_of_a_converged_fit_and_of_a_bad_one():
    A = planted(noise=0.3)[0]
    good = NMFConcepts(5, tol=0, max_iter=1500, random_state=0).fit(A)
    assert good.kkt_ < 1e-6
    with pytest.warns(ConvergenceWarning, match="stopped after 10 steps"):
        bad = NMFConcepts(5, tol=1e-12, max_iter=10, init="random", random_state=0).fit(A)
    assert bad.kkt_ > 100 * good.kkt_
    assert len(bad.history_) == bad.n_iter_ == 10


def test_without_extrapolation_the_error_falls_at_every_step_and_the_trace_is_true():
    A = planted(noise=0.3)[0]
    model = NMFConcepts(6, extrapolate=False, max_iter=200, random_state=0).fit(A)
    assert (np.diff(model.history_) <= 1e-9 * model.history_[0]).all()
    exact = np.linalg.norm(A - model.transform(A) @ model.components_)
    assert model.reconstruction_err_ == pytest.approx(exact)
    assert model.history_[-1] >= exact**2 * (1 - 1e-9), "exact codes can only be better"
    assert model.history_[-1] == pytest.approx(exact**2, rel=1e-3)


def test_extrapolation_needs_fewer_steps():
    """On overlapping concepts, where plain coordinate descent crawls."""
    rng = np.random.default_rng(0)
    A = rng.random((300, 8)) @ (1 + rng.random((8, 60)))
    steps = []
    for extrapolate in (True, False):
        model = NMFConcepts(8, extrapolate=extrapolate, tol=0, max_iter=1500, random_state=0)
        trace = model.fit(A).history_
        steps.append(int((trace > 1e-6 * np.square(A).sum()).sum()))
    assert steps[0] < 0.5 * steps[1], steps


def test_gauge_and_order():
    A = planted(noise=0.2)[0]
    model = NMFConcepts(5, random_state=0).fit(A)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, rtol=1e-12)
    energy = np.square(model.transform(A)).sum(0)
    assert (np.diff(energy) <= 0.05 * energy[0]).all()
    np.testing.assert_allclose(np.diag(model.statistics_.UU), energy, rtol=1e-9)


def test_given_start_keeps_its_order():
    A, _, W = planted()
    model = NMFConcepts(5, init=W[::-1].copy()).fit(A)
    assert match_concepts(W[::-1], model.components_)[0].tolist() == [0, 1, 2, 3, 4]


def test_same_seed_same_bits_and_global_state_stays(global_state_untouched):
    A = planted(noise=0.2)[0]
    first, second = (NMFConcepts(5, init="random", random_state=3).fit(A) for _ in range(2))
    np.testing.assert_array_equal(first.components_, second.components_)
    fresh = NMFConcepts(5, init="random").fit(A)
    again = NMFConcepts(5, init="random", random_state=fresh.seed_).fit(A)
    np.testing.assert_array_equal(fresh.components_, again.components_)


def test_more_starts_are_never_worse():
    A = planted(k=9, noise=0.5)[0]
    errors = [NMFConcepts(9, n_init=n, random_state=0).fit(A).reconstruction_err_ for n in (1, 4)]
    assert errors[1] <= errors[0] * (1 + 1e-9)


def test_dead_components_are_seeded_anew():
    A, _, W = planted(k=5, noise=0.1)
    start = W.copy()
    start[2:] = 0  # three components are dead from the first step on
    model = NMFConcepts(5, init=start, max_iter=1000).fit(A)
    assert (np.linalg.norm(model.components_, axis=1) > 0.99).all()
    assert (model.transform(A).max(0) > 0).all()
    free = NMFConcepts(5, random_state=0).fit(A)
    assert model.reconstruction_err_ < 1.02 * free.reconstruction_err_


def test_unused_components_are_told():
    A = np.outer(np.arange(1.0, 21), np.arange(1.0, 9))
    with pytest.warns(ConvergenceWarning, match="concepts are unused|stopped"):
        model = NMFConcepts(3, random_state=0, max_iter=30, tol=1e-14).fit(A)
    assert np.isfinite(model.components_).all()
    assert model.reconstruction_err_ < 1e-5 * np.linalg.norm(A)


@pytest.mark.parametrize("l2", [0.05, 1.0])
def test_penalty_shrinks_codes_and_coding_matches_the_fit(l2):
    A = planted(noise=0.2)[0]
    free, held = (NMFConcepts(5, l2=v, random_state=0).fit(A) for v in (0.0, l2))
    assert np.linalg.norm(held.transform(A)) < np.linalg.norm(free.transform(A))
    np.testing.assert_allclose(held.transform(A), nnls(A, held.components_, l2=l2), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(held.components_, axis=1), 1, rtol=1e-12)
    assert held.kkt_ < 1e-3
    value = held.reconstruction_err_**2 + l2 * np.square(held.transform(A)).sum()
    assert held.history_[-1] == pytest.approx(value, rel=1e-3)


def test_sweep_lowers_the_quadratic_and_unit_sweep_finds_the_sphere():
    rng = np.random.default_rng(0)
    B = rng.random((2, 9, 4))
    gram = torch.from_numpy(np.swapaxes(B, 1, 2) @ B)
    F = torch.from_numpy(rng.normal(size=(2, 4, 30)))
    solved = sweep(torch.zeros_like(F), gram, F, 500)
    for i in range(2):
        one = sweep(torch.zeros_like(F[i : i + 1]), gram[i : i + 1], F[i : i + 1], 500)
        torch.testing.assert_close(one[0], solved[i])
        gradient = gram[i] @ solved[i] - F[i]
        assert torch.minimum(solved[i], gradient).abs().max() < 1e-8
    start = torch.nn.functional.normalize(torch.from_numpy(rng.random((1, 4, 30))), dim=-1)
    W = unit_sweep(start, gram[:1], F[:1].abs(), 20)
    torch.testing.assert_close(W.norm(dim=-1), torch.ones(1, 4).double())


def test_randomised_svd_and_start_against_lapack():
    A = torch.from_numpy(planted(noise=0.1)[0])
    left, values, right = randomized_svd(A, 5, 0)
    torch.testing.assert_close(values, torch.linalg.svdvals(A)[:5], rtol=1e-6, atol=0)
    torch.testing.assert_close(A @ right.mT, left * values, rtol=1e-3, atol=1e-2)
    U, W = nndsvd(A, 5, 0)
    peer = NMF(5, init="nndsvd", max_iter=1, tol=0, random_state=0)
    from sklearn.decomposition._nmf import _initialize_nmf

    peer_U, peer_W = _initialize_nmf(A.numpy(), 5, init="nndsvd", random_state=0)
    np.testing.assert_allclose(U.numpy(), peer_U, atol=2e-3 * peer_U.max(), err_msg=str(peer))
    np.testing.assert_allclose(W.numpy(), peer_W, atol=2e-3 * peer_W.max())


def test_many_problems_at_once_equal_one_by_one():
    rng = np.random.default_rng(0)
    problems = [planted(n=n, noise=0.3, seed=s)[0] for s, n in enumerate((80, 200, 130))]
    model = NMFConcepts(4, random_state=1, n_init=2)
    for together, A in zip(model.fit_many(problems), problems, strict=True):
        alone = NMFConcepts(4, random_state=1, n_init=2).fit(A)
        np.testing.assert_allclose(together.components_, alone.components_, atol=1e-6)
        assert together.n_iter_ == alone.n_iter_
        assert together.reconstruction_err_ == pytest.approx(alone.reconstruction_err_)
    cube = rng.random((3, 40, 10))
    assert len(model.fit_many(cube)) == 3
    assert model.fit_many([]) == []
    with pytest.raises(InputError, match="same number of features"):
        model.fit_many([rng.random((20, 6)), rng.random((20, 7))])


def test_update_equals_the_batch_update_and_workers_sum():
    A = planted(noise=0.3)[0]
    start = NMFConcepts(5, max_iter=3, tol=0, random_state=0).fit(A)
    U = start.transform(A)
    exact = nnls(A.T, U.T).T
    statistics = sum(start.statistics(part) for part in np.array_split(A, 4))
    whole = start.statistics(A)
    np.testing.assert_allclose(statistics.UU, whole.UU, rtol=1e-12)
    np.testing.assert_allclose(statistics.UA, whole.UA, rtol=1e-12)
    assert statistics.n == 300
    assert whole.squared_error(start.components_) == pytest.approx(
        np.square(A - U @ start.components_).sum()
    )
    before = start.reconstruction_err_
    start.update(statistics)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(start.components_, exact / length, atol=1e-9)
    assert start.reconstruction_err_ <= before
    assert start.reconstruction_err_ == pytest.approx(np.linalg.norm(A - U @ exact))


def test_merge_of_two_workers_equals_one_with_all_rows():
    A = planted(noise=0.3)[0]
    base = NMFConcepts(5, max_iter=5, tol=0, random_state=0).fit(A)
    workers = []
    for rows in (A[:120], A[120:]):
        worker = NMFConcepts(5, init=base.components_, max_iter=1, tol=0, decay=0.0).fit(A)
        worker.components_ = base.components_
        worker.statistics_ = worker.statistics(rows)
        worker.n_rows_seen_ = len(rows)
        workers.append(worker)
    merged = workers[0].merge(workers[1])
    base.update(base.statistics(A))
    np.testing.assert_allclose(merged.components_, base.components_, atol=1e-9)
    assert merged.n_rows_seen_ == 300
    with pytest.raises(InputError, match="cannot be added"):
        base.merge(NMFConcepts(3, random_state=0).fit(A))


def test_partial_fit_over_several_passes_is_within_a_percent():
    A = planted(n=2000, k=8, noise=0.3)[0]
    rng = np.random.default_rng(0)
    batch = NMFConcepts(8, random_state=0).fit(A)
    online = NMFConcepts(8, random_state=0)
    for _ in range(5):
        for part in np.array_split(rng.permutation(len(A)), 8):
            online.partial_fit(A[part])
    assert relative(A, online) <= 1.01 * relative(A, batch)
    assert online.n_rows_seen_ == 5 * len(A)
    np.testing.assert_allclose(np.linalg.norm(online.components_, axis=1), 1, rtol=1e-9)


class Store:
    """Only what a stream needs: a method that gives batches."""

    def __init__(self, A):
        self.A = A
        self.passes = 0

    def batches(self, batch_size):
        self.passes += 1
        for start in range(0, len(self.A), batch_size):
            yield self.A[start : start + batch_size]


@pytest.mark.parametrize("batch_size", [11, 256, 4096])
def test_a_stream_falls_from_pass_to_pass_and_ends_like_the_batch_fit(batch_size):
    A = planted(n=1500, k=8, noise=0.3)[0]
    store = Store(A)
    model = NMFConcepts(8, batch_size=batch_size, random_state=0).fit(store)
    assert store.passes == model.n_iter_ + 1
    assert (np.diff(model.history_) <= 1e-9 * model.history_[0]).all()
    batch = NMFConcepts(8, random_state=0).fit(A)
    assert relative(A, model) <= 1.005 * relative(A, batch)
    assert model.n_rows_seen_ == len(A)
    assert model.statistics_.n == pytest.approx(len(A))


def test_a_stream_larger_than_the_sample(monkeypatch):
    monkeypatch.setattr("conceptlab.extractors.streaming._SAMPLE_ROWS", 200)
    A = planted(n=1500, k=6, noise=0.3)[0]
    model = NMFConcepts(6, l2=0.01, batch_size=100, random_state=0).fit(Store(A))
    batch = NMFConcepts(6, l2=0.01, random_state=0).fit(A)
    assert relative(A, model) <= 1.01 * relative(A, batch)


def test_streams_that_cannot_be_read_twice():
    A = planted()[0]
    with pytest.raises(InputError, match="generator can be read once"):
        NMFConcepts(3).fit_batches(part for part in np.array_split(A, 3))

    class Shuffled(Store):
        def batches(self, batch_size):
            self.passes += 1
            yield from [self.A] if self.passes < 3 else [self.A[:10], self.A[10:]]

    with pytest.raises(InputError, match="Turn shuffling off"):
        NMFConcepts(3, tol=0).fit_batches(Shuffled(A))
    with pytest.raises(InputError, match="stream has 0 sample"):
        NMFConcepts(3).fit_batches([])


def test_batched_solver_freezes_finished_problems():
    easy, hard = planted(k=2, noise=0.0)[0], planted(k=9, noise=0.6, seed=1)[0]
    A = torch.from_numpy(np.stack([easy, hard]))
    U, W = nndsvd(A, 2, 0, fill=A.mean((1, 2)))
    seen = []
    result = factorise(
        A, U, W, HALSOptions(tol=1e-8), callback=lambda step, u, *_: seen.append(len(u))
    )
    assert sorted(result.n_iter) == [seen.count(2), len(seen)]
    assert result.n_iter[0] != result.n_iter[1]


@pytest.mark.gpu
def test_gpu_equals_cpu():
    A = planted(n=2000, k=8, noise=0.3)[0].astype(np.float32)
    cpu = NMFConcepts(8, device="cpu", random_state=0).fit(A)
    gpu = NMFConcepts(8, device="cuda", random_state=0).fit(A)
    assert gpu.reconstruction_err_ == pytest.approx(cpu.reconstruction_err_, rel=2e-3)
    assert gpu.transform(torch.from_numpy(A).cuda()).is_cuda


def test_older_rows_weigh_by_the_cube_of_their_share():
    """The decay that the docstring writes, seen in the statistics of a second batch."""
    A = np.random.default_rng(5).gamma(1.0, size=(120, 6))
    for n_new, kept in ((40, 1 / 8), (80, 1 / 27)):
        model = NMFConcepts(2, random_state=0).partial_fit(A[:40])
        before = model.statistics_.n
        new = A[40 : 40 + n_new]
        model.partial_fit(new)
        assert model.statistics_.n == pytest.approx(kept * before + n_new)
