"""Pooling rules and the posterior against formulas written out anew and other libraries."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from sklearn.metrics import log_loss

from conceptlab.errors import InputError
from conceptlab.zeroshot import (
    RULES,
    BayesianZeroShot,
    calibration_error,
    fit_temperature,
    pool,
    pool_weights,
)

POOLING = [name for name, rule in RULES.items() if rule.pools]


def rows(R=200, C=50, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    S = 25 + 2 * rng.normal(size=(R, C))
    S[rng.random((R, C)) < 0.1] -= 9
    S[rng.random((R, C)) < 0.03] += 12
    return S.astype(dtype)


def lower_median(values):
    return sorted(values)[(len(values) - 1) // 2]


def published_trim(s, lam=2.5, low=0.1, high=4.0, eps=1e-6):
    """The released code's rule, number by number."""
    m = lower_median(s)
    mad = lower_median([abs(v - m) for v in s]) + eps
    rho = sum(abs(v - m) > lam * mad for v in s) / len(s)
    kappa = high if rho == 0 else min(max(math.log((1 - rho) / rho), low), high)
    w = [1 / (1 + math.exp(-kappa * (v - m) / mad)) for v in s]
    return sum(a * b for a, b in zip(w, s, strict=True)) / sum(w), w, m, mad, kappa


@pytest.mark.parametrize("C", [1, 2, 3, 7, 50, 51, 300])
def test_trim_is_the_published_rule(C):
    S = rows(60, C)
    expected = [published_trim(s)[0] for s in S.tolist()]
    np.testing.assert_allclose(pool(S), expected, rtol=1e-12)
    weights = np.array([published_trim(s)[1] for s in S.tolist()])
    np.testing.assert_allclose(pool_weights(S), weights / weights.sum(1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("options", [{"lam": 1.0}, {"kappa": (0.5, 1.5)}, {"eps": 0.5}])
def test_trim_options(options):
    S = rows(40, 21)
    extra = dict(options)
    if "kappa" in extra:
        extra["low"], extra["high"] = extra.pop("kappa")
    expected = [published_trim(s, **extra)[0] for s in S.tolist()]
    np.testing.assert_allclose(pool(S, **options), expected, rtol=1e-12)


def test_sym_gated_and_tukey_by_their_formulas():
    S = rows(80, 33)
    for s, sym, gated, tukey in zip(
        S, pool(S, "sym", slope=2.0), pool(S, "gated"), pool(S, "tukey", cutoff=6.0), strict=True
    ):
        _, _, m, mad, kappa = published_trim(s.tolist())
        u = (s - m) / mad
        w = special.expit(-2.0 * kappa * np.abs(u))
        assert sym == pytest.approx((w * s).sum() / w.sum(), rel=1e-12)
        w = special.expit(kappa * (2.5 - np.abs(u)))
        assert gated == pytest.approx((w * s).sum() / w.sum(), rel=1e-12)
        # Biweight location, Beers, Flynn and Gebhardt 1990, equation 5.
        inside = np.abs(u) < 6
        b = (1 - (u[inside] / 6) ** 2) ** 2
        assert tukey == pytest.approx(m + (b * (s[inside] - m)).sum() / b.sum(), rel=1e-12)


def test_plain_rules_against_numpy_and_scipy():
    S = rows(50, 40)
    np.testing.assert_allclose(pool(S, "mean"), S.mean(1))
    np.testing.assert_allclose(pool(S, "max"), S.max(1))
    np.testing.assert_allclose(pool(S, "median"), np.median(S[:, :39], axis=1), atol=6)
    np.testing.assert_allclose(pool(S[:, :39], "median"), np.median(S[:, :39], axis=1))
    np.testing.assert_allclose(
        pool(S, "trimmed_mean", share=0.2), stats.trim_mean(S, 0.2, axis=1), rtol=1e-12
    )
    T = 3.0
    expected = T * special.logsumexp(S / T, axis=1, b=1 / 40)
    np.testing.assert_allclose(pool(S, "lse", temperature=T), expected, rtol=1e-12)
    np.testing.assert_allclose(
        pool_weights(S, "lse", temperature=T), special.softmax(S / T, axis=1), rtol=1e-10
    )


@pytest.mark.parametrize("rule", POOLING)
def test_the_quick_rows_equal_the_plain_ones(rule):
    S = rows(300, 50)
    S[0] = 7.0  # all equal
    S[1] -= 40  # negative, so the rows cannot be sorted as integers
    plain = pool(torch.from_numpy(S).requires_grad_(), rule).detach().numpy()
    np.testing.assert_allclose(pool(S, rule), plain, rtol=1e-12)
    np.testing.assert_allclose(pool(S.astype(np.float32), rule), plain, rtol=2e-5)
    positive = np.abs(S)
    plain = pool(torch.from_numpy(positive).requires_grad_(), rule).detach().numpy()
    np.testing.assert_allclose(pool(positive, rule), plain, rtol=1e-12)


@pytest.mark.parametrize("rule", POOLING)
def test_a_prior_counts_as_repetition(rule):
    S = rows(40, 11)
    counts = np.array([1, 2, 1, 3, 1, 0, 2, 1, 1, 2, 4])
    repeated = np.repeat(S, counts, axis=1)
    np.testing.assert_allclose(pool(S, rule, prior=counts), pool(repeated, rule), rtol=1e-9)


@pytest.mark.parametrize("rule", POOLING)
def test_weights_make_the_score(rule):
    S = rows(40, 12)
    w = pool_weights(S, rule)
    np.testing.assert_allclose(w.sum(1), 1)
    assert (w >= 0).all()
    if RULES[rule].linear:
        np.testing.assert_allclose((w * S).sum(1), pool(S, rule), rtol=1e-12)


@pytest.mark.parametrize("rule", ["trim", "sym", "gated", "lse", "mean", "tukey"])
def test_gradients_by_finite_differences(rule):
    S = torch.from_numpy(rows(4, 9)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: pool(s, rule), (S,), eps=1e-7, atol=1e-4)


def planted(K=6, C=9, d=16, n=300, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, 1, d))
    P = centres + 0.7 * rng.normal(size=(K, C, d))
    P /= np.linalg.norm(P, axis=-1, keepdims=True)
    y = rng.integers(K, size=n)
    X = centres[y, 0] + noise * rng.normal(size=(n, d))
    return X, y, P


def brute_similarities(X, P, scale):
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    return scale * np.einsum("nd,kcd->nkc", unit, P)


@pytest.mark.parametrize("rule", POOLING)
def test_the_classifier_is_pool_and_softmax(rule):
    X, _, P = planted()
    model = BayesianZeroShot(P, rule=rule, scale=20.0, temperature=1.5).fit()
    options = {"temperature": 1.5} if rule == "lse" else {}
    scores = pool(brute_similarities(X, P, 20.0), rule, **options)
    np.testing.assert_allclose(model.scores(X), scores, rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), special.softmax(scores / 1.5, axis=1))
    assert (model.predict(X) == scores.argmax(1)).all()


def test_mean_embedding_is_the_usual_zero_shot_head():
    X, _, P = planted()
    head = P.mean(axis=1)
    head /= np.linalg.norm(head, axis=1, keepdims=True)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    model = BayesianZeroShot(P, rule="mean_embedding", scale=100.0).fit()
    np.testing.assert_allclose(model.scores(X), 100 * unit @ head.T, rtol=1e-9)


def test_lse_is_bayes_over_classes_and_concepts():
    X, _, P = planted(n=40)
    rng = np.random.default_rng(1)
    prior, weights = rng.dirichlet(np.ones(6)), rng.random(6 * 9)
    model = BayesianZeroShot(
        P, rule="lse", scale=10.0, temperature=2.0, class_prior=prior, concept_prior=weights
    ).fit()
    given = (weights.reshape(6, 9) / weights.reshape(6, 9).sum(1, keepdims=True))[None]
    joint = prior[None, :, None] * given * np.exp(brute_similarities(X, P, 10.0) / 2.0)
    joint /= joint.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(model.concept_posterior(X), joint.reshape(40, -1), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), joint.sum(axis=2), rtol=1e-9)


@pytest.mark.parametrize("rule", [*RULES])
@pytest.mark.parametrize("with_prior", [False, True])
def test_evidence_adds_up_to_the_score(rule, with_prior):
    X, _, P = planted(n=30)
    prior = np.random.default_rng(0).random(54) if with_prior else None
    model = BayesianZeroShot(
        P,
        rule=rule,
        scale=15.0,
        temperature=1.3,
        concept_prior=prior,
        class_prior=[0.3, 0.1, 0.2, 0.2, 0.1, 0.1],
    ).fit()
    found = model.explain(X)
    scores = model.scores(X) / 1.3
    logits = scores + model.class_log_prior_
    order = np.argsort(-logits, axis=1)[:, :2]
    assert (found.columns == order).all()
    expected = np.take_along_axis(scores, order, axis=1)
    np.testing.assert_allclose(found.score, expected, rtol=1e-9)
    total = np.nansum(found.evidence, axis=2) + found.reference[:, None]
    np.testing.assert_allclose(total, expected, rtol=1e-9)
    np.testing.assert_allclose(found.reference, scores.mean(1), rtol=1e-9)
    odds = np.take_along_axis(logits, order, axis=1)
    np.testing.assert_allclose(found.log_odds, odds[:, 0] - odds[:, 1], atol=1e-9)


def test_outliers_are_flagged_as_the_rule_counts_them():
    X, _, P = planted(n=20, C=15)
    model = BayesianZeroShot(P, scale=15.0).fit()
    found = model.explain(X)
    S = brute_similarities(X, P, 15.0)
    for i in range(20):
        for role in (0, 1):
            s = S[i, found.columns[i, role]]
            _, _, m, mad, kappa = published_trim(s.tolist())
            flags = np.where(np.abs(s - m) > 2.5 * mad, np.sign(s - m), 0)
            assert (found.outlier[i, role] == flags).all()
            assert found.rho[i, role] == pytest.approx((flags != 0).mean())
            assert found.kappa[i, role] == pytest.approx(kappa)


def test_temperature_is_the_minimiser_of_the_log_loss():
    X, y, P = planted(noise=2.5)
    model = BayesianZeroShot(P, scale=100.0).fit(X, y)
    scores = BayesianZeroShot(P, scale=100.0).fit().scores(X)

    def loss(log_t):
        return log_loss(y, special.softmax(scores / np.exp(log_t), axis=1), labels=np.arange(6))

    best = optimize.brute(loss, [(np.log(0.02), np.log(80))], Ns=200)
    assert model.temperature_ == pytest.approx(float(np.exp(best[0])), rel=1e-3)
    calibrated = model.predict_proba(X)
    plain = BayesianZeroShot(P, scale=100.0).fit().predict_proba(X)
    assert calibration_error(y, calibrated) < 0.5 * calibration_error(y, plain)


def test_temperature_is_fitted_with_the_class_prior():
    X, y, P = planted(noise=2.5)
    prior = np.array([0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    model = BayesianZeroShot(P, scale=100.0, class_prior=prior).fit(X, y)

    def loss(T):
        fixed = BayesianZeroShot(P, scale=100.0, class_prior=prior, temperature=T).fit()
        return log_loss(y, fixed.predict_proba(X), labels=np.arange(6))

    assert all(loss(model.temperature_) < loss(model.temperature_ * f) for f in (0.9, 1.1))


def test_temperature_of_the_marginal_moves_the_pooling_too():
    X, y, P = planted(noise=2.5)
    model = BayesianZeroShot(P, rule="lse", scale=100.0).fit(X, y)

    def loss(T):
        fixed = BayesianZeroShot(P, rule="lse", scale=100.0, temperature=T).fit()
        return log_loss(y, fixed.predict_proba(X), labels=np.arange(6))

    grid = np.geomspace(0.5, 50, 60)
    assert loss(model.temperature_) <= min(loss(T) for T in grid) + 1e-6


def test_fit_temperature_stays_in_its_range():
    assert fit_temperature(lambda T: T) == pytest.approx(1e-2, rel=1e-3)
    assert fit_temperature(lambda T: -T) == pytest.approx(1e2, rel=1e-3)


def test_calibration_error_bin_by_bin():
    rng = np.random.default_rng(0)
    p = special.softmax(2 * rng.normal(size=(500, 4)), axis=1)
    y = rng.integers(4, size=500)
    confidence, hit = p.max(1), p.argmax(1) == y
    expected = 0.0
    for b in range(10):
        inside = (confidence > b / 10) & (confidence <= (b + 1) / 10)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert calibration_error(y, p, n_bins=10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("y", "proba", "n_bins", "message"),
    [
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], 15, "integers 0 to 1"),
        (["a", "b"], [[0.5, 0.5], [0.5, 0.5]], 15, "integers 0 to 1, got <U1"),
        ([0, 1], [[np.nan, 0.5], [0.5, 0.5]], 15, "proba contains NaN"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], 0, "n_bins must be a whole number of at least 1"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], 15, "Expected labels"),
    ],
)
def test_calibration_of_what_cannot_be_calibrated(y, proba, n_bins, message):
    with pytest.raises(InputError, match=message):
        calibration_error(y, proba, n_bins=n_bins)


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    # 1/2 with a miss and 0.7 with a hit: bins (0, 1/2] and (1/2, 1].
    assert calibration_error([1, 0], [[0.5, 0.5], [0.7, 0.3]], n_bins=2) == pytest.approx(0.4)


def test_soft_trim_of_a_normal_row_has_the_known_bias():
    # By quadrature: score -> mean + 0.708 sd for many concepts (0.678 at C = 50).
    rng = np.random.default_rng(0)
    assert pool(rng.normal(size=(4, 200_001))).mean() == pytest.approx(0.708, abs=0.01)
    assert pool(rng.normal(size=(40_000, 50))).mean() == pytest.approx(0.678, abs=0.01)


def test_the_benchmark_compares_like_with_like():
    from conceptlab.bench.zeroshot import _on_gpu, _vectors, broadcast_trim

    X, P = _vectors(12, 10, 512, 64, 0)
    assert np.einsum("nd,kcd->nkc", X, P).min() > 0
    peer = broadcast_trim(torch.from_numpy(X), torch.from_numpy(P)).numpy()
    apart = np.abs(BayesianZeroShot(P, scale=100.0).fit().scores(X) - peer)
    assert np.quantile(apart, 0.99) < 1e-3
    row = _on_gpu(X, P, 300, "cpu")  # the same work where no GPU is
    assert row.ours > 0
    assert row.peer > 0
