"""What is proved about the pooling rules, on rows that hypothesis draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import softmax

from conceptlab.zeroshot import RULES, pool, pool_weights

POOLING = [name for name, rule in RULES.items() if rule.pools]
ROBUST = ["sym", "gated", "tukey", "median"]
numbers = st.floats(-50, 50, allow_nan=False, width=32)
# Distinct values, so that MAD is not eps, which is the only unit in the rules.
distinct = st.lists(st.integers(-500, 500), min_size=3, max_size=40, unique=True).map(
    lambda v: np.array(v) / 10.0
)


@pytest.mark.parametrize("rule", POOLING)
@given(s=hnp.arrays(np.float64, st.integers(1, 40), elements=numbers))
def test_a_score_lies_between_the_least_and_the_largest(rule, s):
    score = float(pool(s, rule))
    assert s.min() - 1e-9 <= score <= s.max() + 1e-9


@given(s=hnp.arrays(np.float64, st.integers(1, 40), elements=numbers))
def test_trim_is_at_least_the_mean(s):
    assert pool(s, "trim") >= s.mean() - 1e-9


@given(
    s=hnp.arrays(np.float64, st.integers(1, 40), elements=numbers),
    temperature=st.floats(0.05, 50),
)
def test_the_marginal_lies_between_mean_and_maximum(s, temperature):
    score = float(pool(s, "lse", temperature=temperature))
    assert s.mean() - 1e-8 <= score <= s.max() + 1e-8
    assert score >= s.max() - temperature * np.log(len(s)) - 1e-8


@pytest.mark.parametrize("rule", POOLING)
@given(s=distinct, a=st.floats(0.1, 20), b=st.floats(-100, 100))
def test_scores_move_with_scale_and_shift(rule, s, a, b):
    options, moved = {}, {}
    if rule == "lse":
        options, moved = {"temperature": 1.0}, {"temperature": a}
    elif "eps" in RULES[rule].options:
        # eps is added to MAD in the units of s, so it scales too.
        options, moved = {"eps": 1e-6}, {"eps": 1e-6 * a}
    expected = a * pool(s, rule, **options) + b
    # Only a tie at the threshold of an outlier can be broken by rounding.
    if rule in {"trim", "sym", "gated"} and tie(s):
        return
    assert pool(a * s + b, rule, **moved) == pytest.approx(float(expected), abs=1e-6 * (1 + a))


def tie(s, lam=2.5):
    m = np.sort(s)[(len(s) - 1) // 2]
    distance = np.abs(s - m)
    mad = np.sort(distance)[(len(s) - 1) // 2] + 1e-6
    return np.min(np.abs(distance - lam * mad)) < 1e-4


@pytest.mark.parametrize("rule", POOLING)
@given(s=hnp.arrays(np.float64, st.integers(2, 30), elements=numbers), seed=st.integers(0, 99))
def test_the_order_of_concepts_does_not_matter(rule, s, seed):
    shuffled = np.random.default_rng(seed).permutation(s)
    assert pool(shuffled, rule) == pytest.approx(float(pool(s, rule)), abs=1e-8)


@pytest.mark.parametrize("rule", POOLING)
@given(s=distinct, extra=st.integers(1, 5), seed=st.integers(0, 99))
def test_concepts_without_prior_do_not_count(rule, s, extra, seed):
    padded = np.concatenate([s, np.random.default_rng(seed).normal(size=extra) * 100])
    prior = np.concatenate([np.ones(len(s)), np.zeros(extra)])
    assert pool(padded, rule, prior=prior) == pytest.approx(float(pool(s, rule)), abs=1e-7)
    assert (pool_weights(padded, rule, prior=prior)[len(s) :] == 0).all()


@st.composite
def contaminated(draw, low_only=False):
    """Clean values, and fewer than half of them replaced by anything."""
    clean = draw(distinct)
    size = draw(st.integers(1, (len(clean) - 1) // 2))
    wild = st.floats(-1e6, -60) if low_only else st.floats(-1e6, 1e6)
    values = draw(st.lists(wild, min_size=size, max_size=size))
    return clean, np.concatenate([clean[size:], values])


@pytest.mark.parametrize("rule", ROBUST)
@given(pair=contaminated())
def test_fewer_than_half_of_the_concepts_cannot_move_robust_rules_far(rule, pair):
    clean, dirty = pair
    diameter = clean.max() - clean.min()
    # |score - m| <= B MAD with B = 12 (sym), 16.2 (gated), 6 (tukey), 0 (median); the median stays
    # in the clean range and MAD is at most its diameter.
    assert clean.min() - 16.2 * diameter <= pool(dirty, rule) <= clean.max() + 16.2 * diameter


@given(pair=contaminated(low_only=True))
def test_low_outliers_cannot_pull_soft_trim_far(pair):
    clean, dirty = pair
    diameter = clean.max() - clean.min()
    assert pool(dirty, "trim") >= clean.min() - 5.6 * (diameter + 1e-6)


@given(s=hnp.arrays(np.float64, st.integers(2, 40), elements=numbers))
def test_bounds_in_units_of_mad(s):
    m = np.sort(s)[(len(s) - 1) // 2]
    mad = np.sort(np.abs(s - m))[(len(s) - 1) // 2] + 1e-6
    assert pool(s, "trim") >= m - 5.6 * mad
    assert abs(pool(s, "sym") - m) <= 12 * mad
    assert abs(pool(s, "gated") - m) <= 16.2 * mad
    assert abs(pool(s, "tukey") - m) <= 6 * mad


def test_one_high_outlier_moves_soft_trim_without_limit():
    # So its breakdown point against high outliers is 1/C, and worse than the mean's.
    rng = np.random.default_rng(0)
    s = rng.normal(size=50)
    dirty = s.copy()
    dirty[0] = 1000.0
    moved = pool(dirty, "trim") - pool(s, "trim")
    assert moved > 1.5 * (dirty.mean() - s.mean())
    for rule in ROBUST:
        assert abs(pool(dirty, rule) - pool(s, rule)) < 1.0


@given(
    scores=hnp.arrays(np.float64, (4, 5), elements=numbers),
    change=hnp.arrays(np.float64, (4, 5), elements=st.floats(-2, 2)),
)
def test_the_posterior_moves_by_no_more_than_the_scores(scores, change):
    error = np.abs(change).max(axis=1)
    moved = np.abs(softmax(scores + change, axis=1) - softmax(scores, axis=1)).sum(axis=1)
    assert (moved <= error + 1e-9).all()
    ordered = np.sort(scores, axis=1)
    safe = ordered[:, -1] - ordered[:, -2] > 2 * error
    same = (scores + change).argmax(1) == scores.argmax(1)
    assert same[safe].all()
