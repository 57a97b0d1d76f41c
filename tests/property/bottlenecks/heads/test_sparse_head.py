"""What any sparse head keeps, whatever the data."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bottlenecks.heads import SparseLinearHead


def draw(seed, n=80, M=7, K=3):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, M)) @ (np.eye(M) + 0.3 * rng.normal(size=(M, M)))
    y = (X[:, :K] + rng.gumbel(size=(n, K))).argmax(1)
    y[:K] = np.arange(K)
    return X, y


seeds = st.integers(0, 10_000)
shares = st.floats(0.05, 0.9)


def at(share, X, y, **options):
    lam = share * SparseLinearHead(tol=0.5, refit=False).fit(X, y).lam_max_
    return SparseLinearHead(lam, refit=False, tol=1e-6, **options).fit(X, y)


@settings(max_examples=10)
@given(seeds, shares, st.floats(0.01, 100), st.floats(-50, 50))
def test_units_of_a_column_do_not_matter(seed, share, scale, shift):
    X, y = draw(seed)
    other = X.copy()
    other[:, 0] = scale * X[:, 0] + shift
    first, second = at(share, X, y), at(share, other, y)
    np.testing.assert_allclose(first.predict_proba(X), second.predict_proba(other), atol=1e-4)
    assert np.isclose(first.lam_max_, second.lam_max_, rtol=1e-8)


@settings(max_examples=10)
@given(seeds, shares, st.permutations(range(7)), st.permutations(range(3)))
def test_order_of_columns_and_classes_does_not_matter(seed, share, columns, classes):
    X, y = draw(seed)
    first = at(share, X, y)
    second = at(share, X[:, columns], np.array(classes)[y])
    np.testing.assert_allclose(second.coef_[classes], first.coef_[:, columns], atol=1e-3)


@settings(max_examples=10)
@given(seeds, shares, st.floats(0.3, 0.95))
def test_a_weaker_penalty_costs_less_and_fits_better(seed, share, factor):
    X, y = draw(seed)
    strong, weak = at(share, X, y), at(share * factor, X, y)
    assert weak.objective_ <= strong.objective_ + 1e-9
    assert np.abs(weak.coef_ * X.std(0)).sum() >= np.abs(strong.coef_ * X.std(0)).sum() - 1e-3
    rows = np.arange(len(X))
    loss = [-head.predict_log_proba(X)[rows, y].mean() for head in (strong, weak)]
    assert loss[1] <= loss[0] + 1e-6


@settings(max_examples=12)
@given(seeds, st.integers(0, 21))
def test_the_count_is_exact(seed, count):
    X, y = draw(seed)
    head = SparseLinearHead(nec=count / 3).fit(X, y)
    assert np.count_nonzero(head.coef_) == count
    assert head.nec_ == count / 3
    assert head.kkt_ <= 1e-4


@settings(max_examples=10)
@given(seeds, shares)
def test_no_other_weights_do_better(seed, share):
    """The objective is convex, so a look around the optimum is enough to refute one."""
    X, y = draw(seed)
    head = at(share, X, y)
    scaled = (X - X.mean(0)) / X.std(0)
    W, b = head.coef_ * X.std(0), head.intercept_ + head.coef_ @ X.mean(0)
    rng = np.random.default_rng(seed)

    def objective(W, b):
        logits = scaled @ W.T + b
        loss = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]
        penalty = head.alpha * np.abs(W).sum() + 0.5 * (1 - head.alpha) * (W**2).sum()
        return loss.mean() + head.lam_ * penalty

    best = objective(W, b)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(5):
            step = size * rng.normal(size=W.shape) * (rng.random(W.shape) < 0.3)
            assert objective(W + step, b + size * rng.normal(size=3)) >= best - 1e-9
