"""What holds for distances of feature sets whatever the features are, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.errors import InputError
from unlearning.removal import (
    FeatureStatistics,
    cmmd,
    concept_fid,
    frechet,
    frechet_distance,
    kid,
    null_bias,
    p_ids,
    u_ids,
)

seeds = st.integers(0, 10_000)
sizes = st.sampled_from([(6, 9), (12, 9), (40, 9), (9, 40)])


def pair(seed, size):
    rng = np.random.default_rng(seed)
    n, d = size
    scale = rng.uniform(0.1, 2, d)
    return rng.normal(size=(n, d)) * scale, rng.normal(size=(n + 3, d)) * scale + rng.normal(size=d)


@given(seeds, sizes)
def test_frechet_is_symmetric_and_follows_turns_shifts_and_scales(seed, size):
    X, Y = pair(seed, size)
    value = frechet_distance(X, Y)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(size[1], size[1])))[0]
    assert frechet_distance(Y, X) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(X @ turn + 3, Y @ turn + 3) == pytest.approx(value, rel=1e-7)
    assert frechet_distance(2 * X, 2 * Y) == pytest.approx(4 * value, rel=1e-9)
    assert frechet_distance(X[::-1], Y) == pytest.approx(value, rel=1e-9)
    assert value >= frechet(X, Y).mean_term - 1e-9


@given(seeds, sizes)
def test_a_pure_shift_is_its_squared_length(seed, size):
    X, _ = pair(seed, size)
    step = np.random.default_rng(seed).normal(size=size[1])
    assert frechet_distance(X, X + step) == pytest.approx(float(step @ step), rel=1e-7)


@given(seeds, sizes)
def test_tensors_and_batches_change_nothing(seed, size):
    X, Y = pair(seed, size)
    value = frechet_distance(X, Y)
    assert frechet_distance(torch.tensor(X), torch.tensor(Y)) == pytest.approx(value, rel=1e-12)
    parts = FeatureStatistics()
    for rows in np.array_split(X, 4):
        parts.update(rows)
    assert frechet_distance(parts, Y) == pytest.approx(value, rel=1e-8)
    small = frechet_distance(X.astype(np.float32), Y.astype(np.float32))
    assert small == pytest.approx(value, rel=1e-4)


@given(seeds)
def test_classifier_scores_are_shares_and_see_only_order(seed):
    X, Y = pair(seed, (20, 4))
    for method in ("loo", "cv", "in-sample"):
        assert 0 <= u_ids(X, Y, method=method) <= 1
    assert u_ids(X, Y) == pytest.approx(u_ids(3 * X - 1, 3 * Y - 1), abs=1e-9)
    assert 0 <= p_ids(X, Y[:20]) <= 1


@given(seeds)
def test_null_bias_falls_with_the_rows_and_scales(seed):
    values = np.random.default_rng(seed).uniform(0, 3, 7)
    few, many = null_bias(values, 50, 80), null_bias(values, 500, 800)
    assert few == pytest.approx(10 * many, rel=1e-9)
    assert null_bias(4 * values, 50, 80) == pytest.approx(4 * few, rel=1e-9)


@given(seeds)
def test_concept_parts_add_up(seed):
    X, Y = pair(seed, (30, 5))
    found = concept_fid(X, Y, list("abcde"), target="b")
    assert found.contributions.min() >= 0
    assert found.contributions.sum() == pytest.approx(found.distance)
    assert found.removal <= found.distance + 1e-9
    assert found.collateral <= found.distance + 1e-9


DISTANCES = [frechet_distance, kid, cmmd, u_ids]


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda f: f.__name__)
def test_features_that_are_refused(distance):
    X = np.random.default_rng(0).normal(size=(12, 4))
    broken = X.copy()
    broken[3, 1] = np.nan
    for first, second, code in (
        (broken, X, "CL-INPUT-NONFINITE"),
        (X, X[:, :3], "CL-INPUT-FEATURES"),
        (X[:1], X, "CL-INPUT-FEW"),
        (X[:, None], X, "CL-INPUT-RANK"),
        ("features", X, "CL-INPUT-TYPE"),
        (X + 1j, X, "CL-INPUT-TYPE"),
        (torch.tensor(X + 1j), X, "CL-INPUT-TYPE"),
    ):
        with pytest.raises(InputError) as caught:
            distance(first, second)
        assert caught.value.code == code, (distance, code)
    half = torch.tensor(X).half()
    assert distance(half, half[:9]) == pytest.approx(
        distance(half.double(), half[:9].double()), rel=1e-9, abs=1e-12
    )


def test_options_that_are_refused():
    X = np.random.default_rng(0).normal(size=(12, 4))
    with pytest.raises(InputError, match="Did you mean"):
        u_ids(X, X, method="insample")
    with pytest.raises(InputError, match="Pairs are compared"):
        p_ids(X, X[:5])
    with pytest.raises(InputError, match="no direction"):
        cmmd(np.zeros((3, 4)), X)
    with pytest.raises(InputError, match=r"X has 0 row"):
        frechet_distance(FeatureStatistics(), X)
