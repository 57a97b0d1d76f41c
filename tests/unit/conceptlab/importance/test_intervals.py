import numpy as np
import pytest
from scipy.stats import norm, t

from conceptlab.importance.intervals import mean_interval


def test_with_many_images_it_is_the_normal_interval():
    values = np.random.default_rng(0).random((2000, 1))
    low, high = mean_interval(values, 0.95, 4000, np.random.default_rng(1))[0]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.15 * half
    )


def test_it_covers_a_rare_concept():
    """One image in ten has it: a percentile bootstrap of ten images covers in 0.65 of the draws."""
    rng = np.random.default_rng(0)
    draws = (rng.random((400, 10)) < 0.1).astype(float) * 0.8
    low, high = mean_interval(draws.T, 0.95, 400, rng).T
    assert ((low <= 0.08) & (high >= 0.08)).mean() >= 0.93


def test_it_covers_a_concept_of_little_importance_from_both_sides():
    """Mean 0.002: a pseudo-image at 1 in both limits would lift the lower one above it."""
    rng = np.random.default_rng(0)
    draws = 0.004 * rng.random((300, 40))
    low, high = mean_interval(draws.T, 0.95, 400, rng).T
    assert ((low <= 0.002) & (high >= 0.002)).mean() >= 0.95
    assert (low < 0.002).mean() >= 0.97


def test_the_limits_are_those_of_gaffke_where_values_are_uniform():
    """12 v = 1: each limit has one image more at its end, here drawn as Dirichlet weights."""
    n = 50
    values = (np.arange(n) + 0.5) / n
    values = (values - 0.5) * np.sqrt(1 / 12 / values.var(ddof=1)) + 0.5
    found = mean_interval(values[:, None], 0.9, 40000, np.random.default_rng(0))[0]
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.r_[np.ones(n), 1 + 1 / (2 * n)], 40000)
    tail = norm.sf(np.sqrt(n / (n - 1)) * t.isf(0.05, n - 1))
    expected = [
        np.quantile(weights @ np.r_[values, 0.0], tail),
        np.quantile(weights @ np.r_[values, 1.0], 1 - tail),
    ]
    np.testing.assert_allclose(found, expected, atol=0.002)


def test_it_stays_within_the_span_and_scales_with_it():
    values = np.array([[0.0], [0.0], [1.0]])
    unit = mean_interval(values, 0.9, 100, np.random.default_rng(2))
    assert 0 <= unit[0, 0] < unit[0, 1] <= 1
    wide = mean_interval(2 * values - 1, 0.9, 100, np.random.default_rng(2), span=(-1.0, 1.0))
    np.testing.assert_allclose(wide, 2 * unit - 1)


def test_without_resamples_it_is_not_known():
    assert np.isnan(mean_interval(np.ones((3, 2)), 0.9, 0, np.random.default_rng(0))).all()
