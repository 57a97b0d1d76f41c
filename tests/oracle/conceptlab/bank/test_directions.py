"""Directions from examples against the dense formula, other libraries and planted truth."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from conceptlab.bank.directions import METHODS, cross_validated_auc, fit_direction


def sample(n, d, seed, shift=1.0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
    mean = rng.normal(size=d) * shift
    return rng.normal(size=(n, d)) @ mix + mean, rng.normal(size=(n + 3, d)) @ mix, mix, mean


@pytest.mark.parametrize(("n", "d"), [(40, 5), (40, 12), (6, 30), (3, 100)])
def test_shrunken_solves_the_dense_system(n, d):
    P, N, *_ = sample(n, d, seed=n + d)
    centred = np.concatenate([P - P.mean(0), N - N.mean(0)])
    S = LedoitWolf(assume_centered=True).fit(centred).covariance_
    w = np.linalg.solve(S, P.mean(0) - N.mean(0))
    found = fit_direction(P, N)
    np.testing.assert_allclose(found.vector, w / np.linalg.norm(w), atol=1e-6)
    middle = (P.mean(0) + N.mean(0)) / 2
    assert found.vector @ middle + found.intercept == pytest.approx(0, abs=1e-9)
    assert 0 < found.shrinkage <= 1


def test_shrunken_serves_unrelated_and_correlated_features():
    found = {(kind, method): [] for kind in "ic" for method in METHODS}
    truth = np.repeat([1, 0], 1000)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        factors = rng.normal(size=(16, 64)) * np.exp(rng.normal(size=(16, 1)) * 0.7) / 4
        mean = rng.normal(size=64)
        mean *= 1.5 / np.linalg.norm(mean)

        def draw(n, kind, rng=rng, factors=factors):
            noise = rng.normal(size=(n, 64))
            return noise if kind == "i" else rng.normal(size=(n, 16)) @ factors + 0.3 * noise

        for kind in "ic":
            P, N = draw(100, kind) + mean, draw(100, kind)
            test = np.concatenate([draw(1000, kind) + mean, draw(1000, kind)])
            for method in METHODS:
                w = fit_direction(P, N, method=method).vector
                found[kind, method].append(roc_auc_score(truth, test @ w))
    auc = {key: np.mean(values) for key, values in found.items()}
    for kind in "ic":
        best = max(auc[kind, method] for method in METHODS)
        assert auc[kind, "shrunken"] > best - 0.005, auc
    assert auc["c", "shrunken"] > auc["c", "mean"] + 0.3
    assert auc["i", "shrunken"] > max(auc["i", "svm"], auc["i", "logistic"]) + 0.02


@pytest.mark.parametrize("method", ["shrunken", "mean", "svm", "logistic"])
def test_every_method_parts_what_can_be_parted_wherever_it_lies(method):
    P, N, *_ = sample(60, 4, seed=1, shift=4.0)
    near = fit_direction(P, N, method=method)
    assert ((P @ near.vector + near.intercept) > 0).mean() > 0.95
    assert ((N @ near.vector + near.intercept) < 0).mean() > 0.95
    far = fit_direction(1e3 * P + 50, 1e3 * N + 50, method=method)
    np.testing.assert_allclose(far.vector, near.vector, atol=1e-3)
    assert ((1e3 * P + 50) @ far.vector + far.intercept > 0).mean() > 0.95


def test_cross_validated_auc_is_honest():
    rng = np.random.default_rng(0)
    P, N = rng.normal(size=(25, 200)), rng.normal(size=(25, 200))
    seen = fit_direction(P, N)
    scores = np.concatenate([P, N]) @ seen.vector
    assert roc_auc_score(np.repeat([1, 0], 25), scores) > 0.95  # it fits noise
    auc, deviation = cross_validated_auc(P, N)
    assert 0.3 < auc < 0.7
    assert deviation > 0
    P, N, *_ = sample(200, 10, seed=3)
    auc, _ = cross_validated_auc(P, N)
    new_P, new_N, *_ = sample(4000, 10, seed=3)
    w = fit_direction(P, N).vector
    truth = roc_auc_score(
        np.repeat([1, 0], [len(new_P), len(new_N)]), np.concatenate([new_P, new_N]) @ w
    )
    assert abs(auc - truth) < 0.05


def test_too_few_for_folds():
    rng = np.random.default_rng(0)
    assert cross_validated_auc(rng.normal(size=(2, 3)), rng.normal(size=(9, 3))) == (None, None)
    auc, _ = cross_validated_auc(rng.normal(size=(4, 3)) + 9, rng.normal(size=(4, 3)))
    assert auc == 1.0
