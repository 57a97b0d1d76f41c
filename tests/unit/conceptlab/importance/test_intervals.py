import numpy as np
import pytest

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


def test_it_covers_a_concept_that_few_images_have():
    """One in a hundred has it, so that most draws of forty see none of it."""
    rng = np.random.default_rng(0)
    draws = (rng.random((400, 40)) < 0.01) * rng.uniform(0.3, 1.0, (400, 40))
    low, high = mean_interval(draws.T, 0.95, 400, rng).T
    assert ((low <= 0.0065) & (high >= 0.0065)).mean() >= 0.93


def test_it_stays_within_the_span_and_scales_with_it():
    values = np.array([[0.0], [0.0], [1.0]])
    unit = mean_interval(values, 0.9, 100, np.random.default_rng(2))
    assert 0 <= unit[0, 0] < unit[0, 1] <= 1
    wide = mean_interval(2 * values - 1, 0.9, 100, np.random.default_rng(2), span=(-1.0, 1.0))
    np.testing.assert_allclose(wide, 2 * unit - 1)


def test_without_resamples_it_is_not_known():
    assert np.isnan(mean_interval(np.ones((3, 2)), 0.9, 0, np.random.default_rng(0))).all()
