"""Submodular selection against plain greedy search, all subsets, and the paper's formula."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottlenecks.submodular import (
    SubmodularSelector,
    class_similarity,
    concept_discriminability,
    lazy_greedy,
)
from conceptlab.errors import InputError


def value(A, quality, cover):
    A = list(A)
    return quality[A].sum() + (cover[:, A].max(axis=1).sum() if A else 0.0)


def plain_greedy(quality, cover, k):
    chosen, covered = [], np.zeros(len(cover))
    for _ in range(k):
        gains = [
            -np.inf
            if j in chosen
            else quality[j] + np.maximum(cover[:, j].copy() - covered, 0).sum()
            for j in range(len(quality))
        ]
        best = int(np.argmax(gains))
        chosen.append(best)
        covered = np.maximum(covered, cover[:, best])
    return chosen


@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_lazy_makes_the_choices_of_plain_greedy(seed, k, tied):
    """`tied` makes many gains exactly equal."""
    rng = np.random.default_rng(seed)
    quality, cover = rng.random(12), rng.random((12, 12))
    if tied:
        quality, cover = (rng.integers(0, 3, size=a.shape).astype(float) for a in (quality, cover))
    chosen, gains, _ = lazy_greedy(quality, cover, k)
    assert chosen.tolist() == plain_greedy(quality, cover, k)
    assert (np.diff(gains) <= 1e-12).all()
    assert gains.sum() == pytest.approx(value(chosen, quality, cover))


def test_lazy_computes_less():
    rng = np.random.default_rng(0)
    E = rng.normal(size=(400, 16))
    E /= np.linalg.norm(E, axis=1, keepdims=True)
    model = SubmodularSelector(40).fit(E)
    assert model.n_evaluations_ < 400 * 40 / 3
    cover = np.maximum(E @ E.T, 0)
    cover /= cover.max(axis=1).sum()
    assert model.selected_.tolist() == plain_greedy(np.zeros(400), cover, 40)


@pytest.mark.parametrize("seed", range(5))
def test_at_least_the_guaranteed_share_of_the_best_set(seed):
    rng = np.random.default_rng(seed)
    quality, cover = rng.random(9), rng.random((9, 9))
    best = max(value(A, quality, cover) for A in combinations(range(9), 3))
    assert value(lazy_greedy(quality, cover, 3)[0], quality, cover) >= (1 - 1 / np.e) * best


def test_discriminability_is_the_formula_and_sums_to_the_information():
    rng = np.random.default_rng(0)
    raw = rng.random((5, 8))
    p = raw / raw.sum(axis=1, keepdims=True) / 5
    expected = [
        sum(p[c, j] * np.log(p[c, j] * 5 / p[:, j].sum()) for c in range(5)) for j in range(8)
    ]
    found = concept_discriminability(raw)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    information = (p * np.log(p / (p.sum(1, keepdims=True) * p.sum(0, keepdims=True)))).sum()
    assert found.sum() == pytest.approx(information)
    means = class_similarity(np.vstack([raw, raw + 1]), list(range(5)) * 2)
    np.testing.assert_allclose(means, raw + 0.5)


def test_groups_are_chosen_apart_and_small_ones_whole():
    rng = np.random.default_rng(0)
    E = rng.normal(size=(30, 4))
    groups = np.array(["b"] * 20 + ["a"] * 8 + ["c"] * 2)
    D = rng.random(30)
    model = SubmodularSelector(5, weights=(1.0, 0.5)).fit(E, D, groups)
    assert model.groups_.tolist() == ["a"] * 5 + ["b"] * 5 + ["c"] * 2
    alone = SubmodularSelector(5, weights=(1.0, 0.5)).fit(E[:20], D[:20])
    assert model.selected_[5:10].tolist() == alone.selected_.tolist()
    only = SubmodularSelector(5, weights=(1.0, 0.0)).fit(E[:20], D[:20])
    assert only.selected_.tolist() == np.argsort(-D[:20], kind="stable")[:5].tolist()


def test_published_weights_without_normalisation():
    rng = np.random.default_rng(1)
    E, D = rng.normal(size=(25, 4)), rng.random(25)
    E /= np.linalg.norm(E, axis=1, keepdims=True)
    model = SubmodularSelector(6, weights=(3.0, 0.1), normalize=False).fit(E, D)
    expected = plain_greedy(3.0 * D, 0.1 * np.maximum(E @ E.T, 0), 6)
    assert model.selected_.tolist() == expected


def test_of_two_copies_one_is_chosen():
    E = np.repeat(np.eye(4), 3, axis=0)
    chosen = SubmodularSelector(4).fit(E).selected_
    assert sorted(chosen // 3) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda E: SubmodularSelector(0).fit(E), "n_select must be a whole number"),
        (lambda E: SubmodularSelector(2, weights=(1.0, -1.0)).fit(E), "weights"),
        (lambda E: SubmodularSelector(2).fit(E, [1.0]), "discriminability must hold one"),
        (lambda E: SubmodularSelector(2).fit(E, -np.ones(5)), ">= 0"),
        (lambda E: SubmodularSelector(2).fit(E, groups=["a"]), "one group for each"),
        (lambda E: SubmodularSelector(2).fit(E[0]), "must be a matrix"),
        (lambda E: SubmodularSelector(2).fit(E * np.nan), "NaN"),
        (lambda E: concept_discriminability(-E), ">= 0"),
        (lambda E: concept_discriminability(0 * E), "no similarity"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(np.abs(np.random.default_rng(0).normal(size=(5, 3))))
