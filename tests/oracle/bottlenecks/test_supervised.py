"""Concepts from labels against closed forms, scikit-learn and counting."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression, Ridge

from bottlenecks import ConceptBottleneck
from bottlenecks.concept_labels import conformal_sets
from bottlenecks.concept_layer import platt
from conceptlab import ConceptBank


def world(n=240, d=5, k=3, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    C = rng.random((n, k)) < 0.5
    X = C @ rng.normal(size=(k, d)) + noise * rng.normal(size=(n, d))
    return X, C, C[:, 0] + 2 * (C[:, 1] & C[:, 2])


def plain(**options):
    return ConceptBottleneck(calibration_fraction=0, random_state=0, **options)


def test_concepts_are_scikit_learn_s_logistic_regressions_on_the_labelled_rows():
    X, C, y = world()
    labels = C.astype(float)
    labels[::3, 1] = np.nan
    model = plain().fit(X, y, concepts=labels)
    mean, scale = X.mean(0), X.std(0)
    for j in range(3):
        seen = ~np.isnan(labels[:, j])
        peer = LogisticRegression(tol=1e-10, max_iter=5000)
        peer.fit(((X - mean) / scale)[seen], labels[seen, j])
        np.testing.assert_allclose(
            model.predict_concept_proba(X)[:, j],
            peer.predict_proba((X - mean) / scale)[:, 1],
            atol=1e-5,
        )


def test_independent_is_the_head_on_the_true_concepts():
    X, C, y = world()
    model = plain(mode="independent").fit(X, y, concepts=C)
    peer = LogisticRegression(tol=1e-10, max_iter=5000).fit(C.astype(float), y)
    centred = model.coef_ - model.coef_.mean(0)
    np.testing.assert_allclose(centred, peer.coef_ - peer.coef_.mean(0), atol=1e-4)
    # With all concepts set to the truth it answers as that head does.
    done = model.intervene(X, C)
    np.testing.assert_array_equal(model.classes_[done.logits.argmax(1)], peer.predict(C))
    np.testing.assert_array_equal(model.activation_levels_, np.tile([0.0, 1.0], (3, 1)))


def test_sequential_is_the_head_on_what_the_concepts_predict():
    X, C, y = world()
    model = plain(mode="sequential").fit(X, y, concepts=C)
    A = model.predict_concepts(X)
    peer = LogisticRegression(tol=1e-10, max_iter=5000).fit(A, y)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(A), atol=1e-4)


def test_joint_with_a_large_weight_is_sequential():
    X, C, y = world()
    loose, tight, sequential = (
        plain(mode=mode, concept_weight=weight).fit(X, y, concepts=C)
        for mode, weight in (("joint", 0.1), ("joint", 1e6), ("sequential", 1.0))
    )
    np.testing.assert_allclose(tight.predict_proba(X), sequential.predict_proba(X), atol=1e-3)
    gaps = [np.abs(m.concept_coef_ - sequential.concept_coef_).max() for m in (tight, loose)]
    assert gaps[0] < 1e-4 < gaps[1]


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_joint_ends_where_no_step_goes_down(kind):
    X, C, y = world(n=80)
    labels = C.astype(float)
    labels[:20, 0] = np.nan
    weight = 0.5
    model = plain(mode="joint", concept_weight=weight, target=kind).fit(X, y, concepts=labels)
    mean, scale = X.mean(0), X.std(0)
    Z, known = (X - mean) / scale, ~np.isnan(labels)
    (k, d), K = model.concept_coef_.shape, len(model.coef_)

    def objective(flat):
        V, v = flat[: k * d].reshape(k, d), flat[k * d : k * d + k]
        W, b = flat[k * d + k : -K].reshape(K, k), flat[-K:]
        z = Z @ V.T + v
        F = expit(z) @ W.T + b
        if kind == "classes":
            task = -log_softmax(F, axis=1)[np.arange(80), y].mean()
        else:
            task = 0.5 * ((F[:, 0] - y) ** 2).mean()
        total = task + 0.5 / 80 * (W**2).sum()
        for j in range(k):
            on = known[:, j]
            bce = np.logaddexp(0, z[on, j]) - labels[on, j] * z[on, j]
            total += weight * (bce.mean() + 0.5 / on.sum() * (V[j] ** 2).sum())
        return total

    V = model.concept_coef_ * scale
    v = model.concept_intercept_ + model.concept_coef_ @ mean
    at = np.concatenate([V.ravel(), v, model.coef_.ravel(), model.intercept_])
    assert objective(at) == pytest.approx(model.joint_objective_, rel=1e-9)
    further = minimize(objective, at, method="BFGS", options={"maxiter": 20})
    assert further.fun > objective(at) - 1e-6


def test_numbers_are_ridge_regression_on_true_concepts():
    X, C, _ = world()
    y = C @ [1.0, -2.0, 0.5] + 3
    model = plain(target="values").fit(X, y, concepts=C)
    peer = Ridge(alpha=1.0).fit(C.astype(float), y)
    np.testing.assert_allclose(model.coef_[0], peer.coef_, atol=1e-6)
    assert model.intercept_[0] == pytest.approx(peer.intercept_, abs=1e-6)


def test_a_bank_gives_each_concept_its_own_score():
    X, C, y = world()
    bank = ConceptBank(
        np.random.default_rng(1).normal(size=(3, 5)), list("abc"), space=None, intercepts=[1, 2, 3]
    )
    model = plain(bank=bank).fit(X, y, concepts=C)
    scores, logits = bank.score(X), model.to_bank().score(X)
    for j in range(3):  # an affine function of that score alone
        assert abs(np.corrcoef(scores[:, j], logits[:, j])[0, 1]) == pytest.approx(1)
    np.testing.assert_allclose(expit(logits), model.predict_concept_proba(X), atol=1e-12)


def test_calibration_undoes_a_planted_slope_and_shift():
    rng = np.random.default_rng(0)
    z = 4 * rng.normal(size=40_000)
    labels = (rng.random(len(z)) < expit(0.3 * z - 1)).astype(float)
    slope, shift = platt(z, labels, np.ones(len(z)))
    peer = LogisticRegression(C=1e9, tol=1e-10).fit(z[:, None], labels)
    assert [slope, shift] == pytest.approx([peer.coef_[0, 0], peer.intercept_[0]], abs=1e-3)
    assert [slope, shift] == pytest.approx([0.3, -1], abs=0.05)  # 0.05 is 3 standard errors
    assert platt(z[:200], 1 - (z[:200] > 0), np.ones(200))[0] == 0  # never the wrong way up
    assert platt(z[:9], labels[:9], np.ones(9)) == (1.0, 0.0)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_conformal_sets_cover_exactly_over_exchangeable_draws(level):
    # Any of m + 1 equally likely rows is the new one: coverage is rank / (m + 1), exactly.
    rng = np.random.default_rng(0)
    m = 39
    z, truth = rng.normal(size=(m + 1, 1)), rng.random(m + 1) < 0.5
    scores = -(2 * truth[:, None] - 1) * z
    covered = 0
    for new in range(m + 1):
        rest = np.delete(scores, new, axis=0)
        covered += conformal_sets(z[new : new + 1], rest, level)[0, 0, int(truth[new])]
    assert covered == np.ceil((m + 1) * level)


def test_rows_held_out_are_unseen_and_few_of_them_exclude_nothing():
    X, C, y = world()
    model = ConceptBottleneck(random_state=0).fit(X, y, concepts=C)
    assert 20 < len(model.conformal_scores_) < 99  # a fifth of 240, drawn row by row
    peer = plain().fit(X, y, concepts=C)
    assert not np.allclose(peer.concept_coef_, model.concept_coef_)
    assert model.conformal_sets(X, level=0.99).all()  # fewer than 99 rows cannot tell 99 %
    assert not model.conformal_sets(X, level=0.5).all()
