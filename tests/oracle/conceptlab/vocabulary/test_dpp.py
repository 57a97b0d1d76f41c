"""Determinantal selection against determinants computed from their definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.bench.dpp import candidates, inverse_based
from conceptlab.errors import InputError
from conceptlab.vocabulary import DPPSelector


def unit_rows(n, d, seed):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def kernel_of(E, quality=None, jitter=1e-5):
    q = np.ones(len(E)) if quality is None else np.asarray(quality)
    return q[:, None] * (E @ E.T + jitter * np.eye(len(E))) * q


def log_det(L, items):
    sign, value = np.linalg.slogdet(L[np.ix_(items, items)])
    assert sign > 0
    return value


@given(st.integers(0, 10_000), st.integers(4, 9), st.integers(2, 8), st.booleans())
def test_each_step_takes_the_item_of_largest_determinant(seed, n, d, weighted):
    E = unit_rows(n, d, seed)
    q = np.random.default_rng(seed + 1).uniform(0.5, 2.0, n) if weighted else None
    m = min(4, n)
    selector = DPPSelector(m, start="central").fit(E, q)
    L = kernel_of(E, q)
    chosen = selector.selected_.tolist()
    for step in range(1, m):
        values = {j: log_det(L, [*chosen[:step], j]) for j in range(n) if j not in chosen[:step]}
        assert values[chosen[step]] >= max(values.values()) - 1e-7
    if weighted:
        assert chosen[0] == int(np.argmax(q))
    assert selector.log_det_ == pytest.approx(log_det(L, chosen), abs=1e-6)
    assert len(set(chosen)) == m


@given(st.integers(0, 10_000))
def test_greedy_and_exchanges_lie_between_their_bounds(seed):
    E, m = unit_rows(8, 5, seed), 3
    L = kernel_of(E, jitter=1e-3)
    best = max(log_det(L, list(s)) for s in itertools.combinations(range(8), m))
    greedy = DPPSelector(m, jitter=1e-3).fit(E)
    swapped = DPPSelector(m, jitter=1e-3, exchange=True).fit(E)
    assert greedy.log_det_ - 1e-9 <= swapped.log_det_ <= best + 1e-9
    assert swapped.log_det_ == pytest.approx(log_det(L, swapped.selected_.tolist()), abs=1e-9)
    # No single swap is left that would help.
    for out, new in itertools.product(range(m), range(8)):
        trial = swapped.selected_.tolist()
        if new not in trial:
            trial[out] = new
            assert log_det(L, trial) <= swapped.log_det_ + 1e-6


def test_exchanges_find_the_best_set_more_often_than_greedy():
    hits = {False: 0, True: 0}
    for seed in range(40):
        E = unit_rows(9, 4, seed)
        L = kernel_of(E)
        best = max(log_det(L, list(s)) for s in itertools.combinations(range(9), 3))
        for exchange in hits:
            found = DPPSelector(3, exchange=exchange, start="central").fit(E).log_det_
            hits[exchange] += abs(found - best) < 1e-9
    assert hits[True] >= 2 * hits[False]


def test_the_default_comes_near_the_largest_determinant():
    """From the item most like all others greedy search is poor; from unlike ones it is not."""
    shares = {"central": [], "diverse": []}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(7, 12)), int(rng.integers(3, 5))
        E = rng.normal(size=(n, 6)) + rng.random() * 2 * rng.normal(size=6)
        E /= np.linalg.norm(E, axis=1, keepdims=True)
        L = kernel_of(E)
        sets = np.array(list(itertools.combinations(range(n), m)))
        best = np.linalg.slogdet(L[sets[:, :, None], sets[:, None, :]])[1].max()
        for start, found in shares.items():
            found.append(np.exp(DPPSelector(m, start=start).fit(E).log_det_ - best))
    assert np.mean(shares["diverse"]) > 0.95
    assert np.mean(shares["central"]) < 0.85
    assert max(shares["diverse"]) <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_same_picks_as_the_loop_that_inverts(seed):
    E = candidates(120, 64, seed)
    ours = DPPSelector(25, start="central").fit(E).selected_
    np.testing.assert_array_equal(inverse_based(E, 25, int(ours[0])), ours)


@given(st.integers(0, 10_000), st.booleans())
def test_the_set_does_not_depend_on_the_order(seed, weighted):
    rng = np.random.default_rng(seed)
    E = unit_rows(12, 6, seed)
    E[3], E[7] = E[2], -E[5]  # equal and opposite rows tie
    q = rng.choice([1.0, 2.0], size=12) if weighted else np.ones(12)
    order = rng.permutation(12)
    first = DPPSelector(5, exchange=True).fit(E, q)
    second = DPPSelector(5, exchange=True).fit(E[order], q[order])
    np.testing.assert_array_equal(E[first.selected_], E[order][second.selected_])
    assert first.log_det_ == second.log_det_


def test_first_pick_is_the_most_central_of_equal_quality():
    E = unit_rows(30, 8, 0).astype(np.float32)
    expected = int((E.astype(np.float64) @ E.sum(axis=0)).argmax())
    assert DPPSelector(1, start="central").fit(E).selected_[0] == expected
    basis = np.eye(4)  # all tie in everything: the answer is still one and the same set
    picks = {
        tuple(basis[p][DPPSelector(1, start="central").fit(basis[p]).selected_[0]])
        for p in map(list, itertools.permutations(range(4)))
    }
    assert len(picks) == 1


def test_quality_rules_when_it_is_strong():
    E = unit_rows(20, 20, 1)
    q = np.exp(30 * np.linspace(0, 1, 20))
    assert set(DPPSelector(5).fit(E, q).selected_.tolist()) == {15, 16, 17, 18, 19}


def test_qualities_of_any_spread():
    E = unit_rows(12, 6, 4)
    q = np.exp(np.linspace(-150, 150, 12))
    for exchange in (False, True):
        selector = DPPSelector(5, exchange=exchange).fit(E, q)
        assert set(selector.selected_.tolist()) == {7, 8, 9, 10, 11}
    expected = 2 * np.log(q[7:]).sum() + log_det(kernel_of(E), [7, 8, 9, 10, 11])
    assert selector.log_det_ == pytest.approx(expected)


def test_gains_never_rise_and_duplicates_come_last():
    E = unit_rows(6, 10, 2)
    selector = DPPSelector(9).fit(np.vstack([E, E[:4]]))
    assert (np.diff(selector.gains_) <= 1e-12).all()
    assert len({i % 6 for i in selector.selected_[:6].tolist()}) == 6


def test_tensors_and_narrow_dtypes():
    import torch

    E = unit_rows(15, 8, 3)
    expected = DPPSelector(4).fit(E).selected_
    np.testing.assert_array_equal(DPPSelector(4).fit(torch.tensor(E)).selected_, expected)
    np.testing.assert_array_equal(DPPSelector(4).fit(E.astype(np.float32)).selected_, expected)


@pytest.mark.parametrize(
    ("E", "options", "quality", "words"),
    [
        (np.eye(3), {"n_select": 4}, None, "4 items were asked for, but there are n_samples=3"),
        (np.ones((4, 2)), {"n_select": 2, "jitter": 0.0}, None, "only 1 of the 4 point in indep"),
        (np.eye(3), {"n_select": 0}, None, "n_select must be a whole number of at least 1"),
        (np.eye(3), {"n_select": 2, "jitter": -1.0}, None, "jitter must be a number of at least 0"),
        (np.ones(3), {"n_select": 1}, None, r"axes \(items, features\), got shape \(3,\)"),
        (np.empty((0, 3)), {"n_select": 1}, None, "at least one item"),
        (np.array([["a"]]), {"n_select": 1}, None, "must hold numbers"),
        (np.array([[1.0, np.nan]]), {"n_select": 1}, None, "E contains NaN"),
        (np.eye(3), {"n_select": 1}, [1.0, 2.0], r"one number for each of the 3 items"),
        (np.eye(3), {"n_select": 1}, [1.0, 0.0, 1.0], "quality must be above 0, got 0 at index 1"),
        (np.eye(3), {"n_select": 1}, [1.0, np.inf, 1.0], "quality contains infinity"),
    ],
)
def test_bad_input_gets_a_clear_answer(E, options, quality, words):
    with pytest.raises(InputError, match=words):
        DPPSelector(**options).fit(E, quality)


def test_parameters_are_kept_as_given():
    from sklearn.base import clone

    selector = DPPSelector(7, exchange=True, jitter=0.1)
    assert clone(selector).get_params() == {
        "n_select": 7,
        "exchange": True,
        "start": "diverse",
        "jitter": 0.1,
    }
    assert repr(selector) == "DPPSelector(exchange=True, jitter=0.1, n_select=7)"


def test_the_benchmark_runs():
    from conceptlab.bench.dpp import run

    result = run(quick=True)
    assert result.rows[1].met
    assert result.rows[0].ratio > 3  # the goal of 20 is for a quiet machine
