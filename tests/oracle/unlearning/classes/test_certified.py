"""CertifiedHead: exact by closed form, the bound above the true gradient, the proof's budget."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import RidgeClassifier
from sklearn.utils.estimator_checks import check_estimator

from conceptlab.errors import InputError
from unlearning import CertifiedHead


def world(n=240, d=5, classes=3, seed=0, noise=0.7):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return np.eye(classes, d)[y] + noise * rng.normal(size=(n, d)), y


def ones(X):
    return np.hstack([X, np.ones((len(X), 1))])


def gradient(w, X, y, c, lam, b):
    """By the definition, sample by sample."""
    total = lam * len(X) * w + b
    for x, label in zip(ones(X), y, strict=True):
        s = 1.0 if label == c else -1.0
        total = total - s * x / (1 + math.exp(s * float(x @ w)))
    return total


def test_squared_errors_are_retraining_in_closed_form():
    X, y = world()
    rows = np.r_[0:40, 100]
    head = CertifiedHead(0.05, loss="squared", sigma=0, random_state=0).fit(X, y)
    found = head.remove(rows)
    assert (found.bound, found.epsilon, found.retrained) == (0.0, 0.0, False)
    kept = np.delete(np.arange(240), rows)
    A, n = ones(X[kept]), len(kept)
    for k, c in enumerate(head.classes_):
        s = np.where(y[kept] == c, 1.0, -1.0)
        w = np.linalg.solve(A.T @ A + 0.05 * n * np.eye(6), A.T @ s)
        np.testing.assert_allclose(head.coef_[k], w[:-1], atol=1e-10)
        np.testing.assert_allclose(head.intercept_[k], w[-1], atol=1e-10)
    other = RidgeClassifier(alpha=0.05 * n, fit_intercept=False).fit(A, y[kept])
    np.testing.assert_allclose(head.coef_, other.coef_[:, :-1], atol=1e-8)


def test_the_minimum_is_the_optimisers():
    X, y = world()
    head = CertifiedHead(0.02, sigma=0, random_state=0).fit(X, y)
    for k, c in enumerate(head.classes_):
        s = np.where(y == c, 1.0, -1.0)

        def loss(w, s=s):
            return np.logaddexp(0, -s * (ones(X) @ w)).sum() + 0.02 * len(y) / 2 * w @ w

        best = minimize(loss, np.zeros(6), tol=1e-12)
        np.testing.assert_allclose(np.r_[head.coef_[k], head.intercept_[k]], best.x, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_left_is_below_the_bound(seed):
    """Of samples far from the rest, which move the weights most, and of nearby ones."""
    X, y = world(seed=seed)
    X[:3] *= 6
    head = CertifiedHead(0.05, epsilon=1e9, sigma=2, random_state=seed).fit(X, y)
    total, kept = 0.0, np.ones(len(y), dtype=bool)
    for rows in ([0], [1, 2], list(range(30, 60))):
        found = head.remove(rows)
        kept[rows] = False
        total += found.bound
        assert not found.retrained
        assert 1e-9 < head.residual() <= total
    # What `residual` says is the gradient by the definition, on what is left; its noise is the
    # same at each class, and found as what the first optimum leaves without it.
    first = CertifiedHead(0.05, epsilon=1e9, sigma=2, random_state=seed).fit(X, y)
    found = []
    for k, c in enumerate(first.classes_):
        w = [np.r_[h.coef_[k], h.intercept_[k]] for h in (first, head)]
        b = -gradient(w[0], X, y, c, 0.05, 0)
        found.append(gradient(w[1], X[kept], y[kept], c, 0.05, b))
    assert np.linalg.norm(found) == pytest.approx(head.residual(), rel=1e-3)


def test_epsilon_is_that_of_the_theorem_and_a_spent_budget_trains_anew():
    X, y = world()
    head = CertifiedHead(0.01, epsilon=0.5, delta=1e-3, sigma=1.0, random_state=0).fit(X, y)
    scale = math.sqrt(2 * math.log(1.5 / 1e-3))
    spent, again = 0.0, False
    for i in range(40):
        found = head.remove([i])
        spent += found.bound
        if found.retrained:
            again = True
            assert spent * scale > 0.5
            assert found.epsilon < 1e-6
            break
        assert found.epsilon == pytest.approx(spent * scale, rel=1e-4, abs=1e-6)
        assert found.epsilon <= 0.5
    if not again:  # without noise nothing can be left
        assert CertifiedHead(sigma=0, random_state=0).fit(X, y).remove([0]).retrained


def test_a_whole_class_goes_with_its_head():
    X, y = world()
    head = CertifiedHead(0.05, loss="squared", sigma=0, random_state=0).fit(X, y)
    head.remove(y == 1)
    plain = CertifiedHead(0.05, loss="squared", sigma=0, random_state=0).fit(X[y != 1], y[y != 1])
    assert head.classes_.tolist() == [0, 2]
    np.testing.assert_allclose(head.coef_, plain.coef_, atol=1e-10)
    assert set(head.predict(X)) <= {0, 2}


def test_what_cannot_be_removed_is_told():
    X, y = world()
    head = CertifiedHead(random_state=0).fit(X, y)
    head.remove([3])
    for rows, words in (([3], "removed before"), ([240], "not there"), ([], "at least one")):
        with pytest.raises(InputError, match=words):
            head.remove(rows)
    with pytest.raises(InputError, match="at least two"):
        head.remove(np.flatnonzero((y != 0) & (np.arange(240) != 3)))
    assert len(head.classes_) == 3  # as it was


def test_scikit_learns_contract():
    check_estimator(CertifiedHead(random_state=0))
