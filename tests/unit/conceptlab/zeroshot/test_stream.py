"""Scores over tiles of images and classes: any size of tile, threads, memory, ties."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from zeroshot_world import bank, images_of

from conceptlab.zeroshot import RULES, BayesianZeroShot, pool
from conceptlab.zeroshot.stream import Layout, Settings, iter_scores


def ragged(seed=0, K=23, d=10, dtype=np.float64):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, size=K)
    vectors = rng.normal(size=(counts.sum(), d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Layout(vectors.astype(dtype), offsets, rng.permutation(K))


def assembled(X, layout, **settings):
    out = np.full((len(X), layout.n_classes), np.nan)
    rule = settings.pop("rule", "trim")
    options = dict(RULES[rule].options)
    for part in iter_scores(X, layout, Settings(rule, options, 10.0, **settings)):
        assert np.isnan(out[part.rows, part.columns]).all(), "a score came twice"
        out[part.rows, part.columns] = part.scores
    assert not np.isnan(out).any()
    return out


@pytest.mark.parametrize("rule", [*RULES])
def test_the_result_does_not_depend_on_the_tiles(rule):
    layout = ragged()
    X = np.random.default_rng(1).normal(size=(37, 10))
    whole = assembled(X, layout, rule=rule)
    for tiles in ((1, 1, 1), (8, 5, 37), (50, 7, 11), (3, 64, 2)):
        block_rows, tile_rows, group_rows = tiles
        cut = assembled(
            X, layout, rule=rule, block_rows=block_rows, tile_rows=tile_rows, group_rows=group_rows
        )
        np.testing.assert_allclose(cut, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", [*RULES])
def test_ragged_classes_are_pooled_one_by_one(rule):
    layout = ragged()
    X = np.random.default_rng(1).normal(size=(9, 10))
    found = assembled(X, layout, rule=rule)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for k, column in enumerate(layout.columns):
        rows = layout.vectors[layout.offsets[k] : layout.offsets[k + 1]]
        if rule == "mean_embedding":
            mean = rows.mean(axis=0)
            expected = 10 * unit @ (mean / np.linalg.norm(mean))
        else:
            expected = pool(10 * unit @ rows.T, rule)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-9, atol=1e-9)


def test_threads_change_no_more_than_the_last_bits():
    # Products and vector instructions fall otherwise on parts of another size.
    layout, before = ragged(dtype=np.float32), torch.get_num_threads()
    X = np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32)
    alone = assembled(X, layout)
    try:
        torch.set_num_threads(3)
        several = assembled(X, layout)
        np.testing.assert_array_equal(assembled(X, layout), several)  # the same threads again
        np.testing.assert_allclose(several, alone, rtol=0, atol=1e-5)  # logits lie in -10..10
    finally:
        torch.set_num_threads(before)


def test_the_path_of_other_devices_gives_the_same(monkeypatch):
    from conceptlab.zeroshot import stream

    layout = ragged()
    X = np.random.default_rng(1).normal(size=(21, 10))
    expected = assembled(X, layout)
    settings = Settings("trim", dict(RULES["trim"].options), 10.0, tile_rows=4)
    out = np.full_like(expected, np.nan)
    for columns, rows, scores in stream._score_device(X, layout, settings, True):
        out[rows, columns] = scores.numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-10)


@pytest.mark.gpu
def test_scores_on_a_gpu():
    P = bank(K=50, C=20, d=64)
    X = torch.from_numpy(images_of(P, 300)[0])
    for rule in RULES:
        model = BayesianZeroShot(P, rule=rule).fit()
        there = model.scores(X.cuda())
        assert there.is_cuda
        np.testing.assert_allclose(there.cpu(), model.scores(X), rtol=1e-8)


def test_half_precision_banks_are_kept_and_nearly_as_good():
    P = bank(K=40, C=11, d=64)
    X, _ = images_of(P, 200, noise=1.5)
    X = X.astype(np.float32)
    half = BayesianZeroShot(P.astype(np.float16)).fit()
    assert half.vectors_.dtype == np.float16
    full = BayesianZeroShot(P.astype(np.float32)).fit()
    # Rounding can move a concept across the threshold of an outlier, and a score with it.
    apart = np.abs(half.scores(X) - full.scores(X))
    assert np.quantile(apart, 0.99) < 0.1
    assert (half.predict(X) == full.predict(X)).mean() > 0.98


@pytest.mark.parametrize("with_prior", [False, True])
def test_memory_does_not_grow_with_images_and_classes(with_prior):
    rng = np.random.default_rng(0)
    peaks = []
    # The first fills a block of classes, a tile and a group of images; the second has two groups
    # and three blocks.
    for K, n in ((300, 4096), (620, 4600)):
        P = rng.normal(size=(K, 7, 16)).astype(np.float32)
        P /= np.linalg.norm(P, axis=-1, keepdims=True)
        X = rng.normal(size=(n, 16)).astype(np.float32)
        prior = rng.random(K * 7) if with_prior else None
        model = BayesianZeroShot(P, concept_prior=prior).fit()
        tracemalloc.start()  # NumPy's own memory
        model.predict(X)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[0] < 12
    answers = (4600 - 4096) * 48 / 2**20  # columns, logits, means
    assert peaks[1] < peaks[0] + answers + 0.1


def test_buffers_are_freed_without_the_garbage_collector():
    P = bank(K=200, C=20, dtype=np.float32)
    X = images_of(P, 400)[0].astype(np.float32)
    model = BayesianZeroShot(P).fit()
    model.predict(X)
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        for _ in range(3):
            model.predict(X)
        left = tracemalloc.get_traced_memory()[0] / 2**20
        tracemalloc.stop()
    finally:
        gc.enable()
    assert left < 0.3


def test_one_class_of_very_many_concepts_goes_in_pieces():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60_001, 64)).astype(np.float16)
    layout = Layout(vectors, np.array([0, 60_000, 60_001]), np.array([0, 1]))
    X = rng.normal(size=(30, 64)).astype(np.float32)
    tracemalloc.start()
    found = assembled(X, layout, rule="max")
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    expected = 10 * (unit @ vectors[:60_000].astype(np.float32).T).max(axis=1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    assert peak < 32


def test_ties_go_to_the_first_class():
    P = np.repeat(bank(K=1), 12, axis=0)
    model = BayesianZeroShot({f"{k:02d}": P[k] for k in range(12)}).fit()
    assert set(model.predict(np.random.default_rng(0).normal(size=(5, 12)))) == {"00"}


def test_ties_between_blocks_go_to_the_first_class_too():
    # Classes with one concept are scored before those with two.
    v = np.eye(3)
    model = BayesianZeroShot({"a": v[[0, 0]], "b": v[[0]], "c": v[[1]]}, rule="max").fit()
    assert model.predict(v[:1]).tolist() == ["a"]
    assert model.explain(v[:1]).runner_up == ["b"]
