"""The sparse head against scikit-learn, SciPy and its optimality conditions in NumPy."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from bottlenecks.heads import (
    SparseLinearHead,
    number_of_effective_concepts,
    sparse_softmax_path,
)


def draw(n, M, K, *, factors=None, seed=0, planted=3, size=2.0):
    """Give correlated scores, labels from planted weights, and those weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, M))
    if factors:
        X = 0.4 * X + rng.standard_normal((n, factors)) @ rng.standard_normal((factors, M))
    X = (X - X.mean(0)) / X.std(0)
    W = np.zeros((K, M))
    for c in range(K):
        W[c, rng.choice(M, planted, replace=False)] = size * rng.choice([-1.0, 1.0], planted)
    logits = X @ W.T
    return X, (logits + rng.gumbel(size=logits.shape)).argmax(1), W


def objective(X, y, W, b, lam, alpha):
    loss = -log_softmax(X @ W.T + b, axis=1)[np.arange(len(y)), y].mean()
    return loss + lam * (alpha * np.abs(W).sum() + 0.5 * (1 - alpha) * (W**2).sum())


def gradient(X, y, W, b):
    residual = softmax(X @ W.T + b, axis=1) - np.eye(len(b))[y]
    return residual.T @ X / len(X), residual.mean(0)


def saga(X, y, lam, alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(
            C=1 / (len(X) * lam),
            l1_ratio=alpha,
            solver="saga",
            tol=1e-9,
            max_iter=3000,
            random_state=0,
        ).fit(X, y)


PROBLEMS = {
    "independent": ({"n": 400, "M": 20, "K": 4}, 0.99, 0.1),
    "correlated": ({"n": 300, "M": 30, "K": 6, "factors": 5, "seed": 1}, 0.99, 0.05),
    "half ridge": ({"n": 250, "M": 15, "K": 3, "factors": 4, "seed": 2}, 0.5, 0.02),
    "more concepts than rows": ({"n": 60, "M": 90, "K": 3, "seed": 3}, 0.99, 0.1),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_same_objective_as_scikit_learn_s_saga(name):
    sizes, alpha, share = PROBLEMS[name]
    X, y, _ = draw(**sizes)
    lam = share * SparseLinearHead(alpha=alpha).fit(X, y).lam_max_
    head = SparseLinearHead(lam, alpha=alpha, refit=False, tol=1e-7).fit(X, y)
    peer = saga(X, y, lam, alpha)
    ours = objective(X, y, head.coef_, head.intercept_, lam, alpha)
    theirs = objective(X, y, peer.coef_, peer.intercept_, lam, alpha)
    assert head.converged_
    assert head.objective_ == pytest.approx(ours, rel=1e-10)
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours <= theirs * (1 + 1e-9)
    np.testing.assert_allclose(head.coef_, peer.coef_, atol=2e-3)


def test_two_classes_are_the_binary_problem_with_the_penalty_shared():
    """Rows +w/2 and -w/2: the same absolute values, half the squares."""
    X, y, _ = draw(300, 12, 2, seed=4)
    alpha, lam = 0.9, 0.02
    head = SparseLinearHead(lam, alpha=alpha, refit=False, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(head.coef_[0], -head.coef_[1], atol=1e-7)
    w, l1, l2 = head.coef_[1] - head.coef_[0], lam * alpha, lam * (1 - alpha) / 2
    peer = LogisticRegression(
        C=1 / (len(X) * (l1 + l2)),
        l1_ratio=l1 / (l1 + l2),
        solver="saga",
        tol=1e-10,
        max_iter=5000,
    ).fit(X, y)
    np.testing.assert_allclose(w, peer.coef_[0], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certificate_is_the_residual_of_the_conditions(dtype):
    X, y, _ = draw(500, 40, 5, factors=8)
    head = SparseLinearHead(0.01, refit=False).fit(X.astype(dtype), y)
    W, l1 = head.coef_, head.lam_ * head.alpha
    gW, gb = gradient(X, y, W, head.intercept_)
    g = gW + head.lam_ * (1 - head.alpha) * W
    off = np.where(W == 0, np.maximum(np.abs(g) - l1, 0), np.abs(g + l1 * np.sign(W)))
    found = max(off.max(), np.abs(gb).max()) / l1
    assert head.kkt_ <= head.tol
    assert found == pytest.approx(head.kkt_, abs=1e-4)
    assert 0 < np.count_nonzero(W) < W.size


def test_an_unfinished_fit_says_so():
    X, y, _ = draw(500, 40, 5, factors=8)
    with pytest.warns(ConvergenceWarning, match="stopped at a residual"):
        head = SparseLinearHead(0.001, max_iter=2).fit(X, y)
    assert not head.converged_
    assert head.kkt_ > head.tol


def test_lam_max_is_the_edge_of_all_zeros():
    X, y, _ = draw(300, 20, 4)
    head = SparseLinearHead().fit(X, y)
    prior = np.bincount(y) / len(y)
    expected = np.abs((np.tile(prior, (len(y), 1)) - np.eye(4)[y]).T @ X).max() / len(y) / 0.99
    assert head.lam_max_ == pytest.approx(expected, rel=1e-10)
    for lam in (head.lam_max_, 3.0):
        empty = SparseLinearHead(lam).fit(X, y)
        assert not empty.coef_.any()
        assert empty.nec_ == 0
        np.testing.assert_allclose(softmax(empty.intercept_), prior, atol=1e-7)
    assert SparseLinearHead(0.99 * head.lam_max_).fit(X, y).coef_.any()


@pytest.mark.parametrize("nec", [0, 1, 2.5, 6])
def test_number_of_effective_concepts_is_exact(nec):
    X, y, _ = draw(600, 30, 6, factors=10)
    head = SparseLinearHead(nec=nec).fit(X, y)
    assert np.count_nonzero(head.coef_) == round(nec * 6)
    assert head.nec_ == number_of_effective_concepts(head.coef_) == round(nec * 6) / 6
    assert head.n_dropped_ == 0
    assert head.converged_
    assert sum(map(len, head.active_concepts_)) == round(nec * 6)
    # The count belongs to a strength: the fit at that strength has it too.
    again = SparseLinearHead(head.lam_, refit=False, tol=1e-5).fit(X, y)
    assert np.array_equal(again.coef_ != 0, head.coef_ != 0)


def test_weights_that_leave_zero_together_are_cut():
    """Two classes have mirrored rows, so an odd count has no strength."""
    X, y, _ = draw(300, 12, 2, seed=4)
    head = SparseLinearHead(nec=2.5).fit(X, y)
    assert np.count_nonzero(head.coef_) == 5
    assert head.n_dropped_ == 1


def test_refit_is_the_optimum_on_the_support():
    X, y, _ = draw(500, 25, 5, factors=8)
    head = SparseLinearHead(nec=3, refit_l2=0.01).fit(X, y)
    gW, gb = gradient(X, y, head.coef_, head.intercept_)
    support = head.coef_ != 0
    assert np.array_equal(support, head.shrunken_coef_ != 0)
    assert np.abs(gW + 0.01 * head.coef_)[support].max() < 1e-5
    assert np.abs(gb).max() < 1e-5
    assert np.abs(head.coef_).sum() > np.abs(head.shrunken_coef_).sum()
    plain = SparseLinearHead(head.lam_, refit=False).fit(X, y)
    np.testing.assert_allclose(plain.coef_, head.shrunken_coef_, atol=1e-3)


def test_positive_weights_against_a_bounded_minimiser():
    X, y, _ = draw(200, 10, 3, seed=5)
    lam, alpha = 0.03, 0.8
    head = SparseLinearHead(lam, alpha=alpha, positive=True, refit=False, tol=1e-8).fit(X, y)

    def value(v):
        W, b = v[:30].reshape(3, 10), v[30:]
        gW, gb = gradient(X, y, W, b)
        slope = gW + lam * alpha + lam * (1 - alpha) * W
        return objective(X, y, W, b, lam, alpha), np.concatenate([slope.ravel(), gb])

    bounds = [(0, None)] * 30 + [(None, None)] * 3
    peer = minimize(
        value,
        np.zeros(33),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 0, "gtol": 1e-9, "maxiter": 5000},
    )
    assert head.coef_.min() >= 0
    assert head.objective_ == pytest.approx(peer.fun, rel=1e-9)
    np.testing.assert_allclose(head.coef_, peer.x[:30].reshape(3, 10), atol=1e-5)


@pytest.mark.parametrize("seed", [2, 3, 10])
def test_positive_weights_that_a_refit_zeroes_are_replaced(seed):
    """Correlated activations: there the refit alone leaves 23 or 24 of 25 weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 25)) + 0.2 * rng.normal(size=(200, 25))
    X = np.maximum(X - X.mean(), 0)
    y = (X[:, :5] + rng.gumbel(size=(200, 5))).argmax(1)
    head = SparseLinearHead(nec=5, positive=True).fit(X, y)
    assert head.n_added_ > 0
    assert np.count_nonzero(head.coef_) == 25
    assert head.coef_.min() == 0
    W = head.coef_ * X.std(0)
    gW, gb = gradient((X - X.mean(0)) / X.std(0), y, W, head.intercept_ + head.coef_ @ X.mean(0))
    assert np.abs(gW + W / 200)[W > 0].max() < 1e-5
    assert np.abs(gb).max() < 1e-5


def test_more_positive_weights_than_help_are_not_made_up():
    X, y, _ = draw(200, 6, 2, seed=5)
    head = SparseLinearHead(nec=6, positive=True).fit(X, y)
    assert head.nec_ < 6
    W = head.coef_ * X.std(0)
    gW, _ = gradient((X - X.mean(0)) / X.std(0), y, W, head.intercept_ + head.coef_ @ X.mean(0))
    assert gW[W == 0].min() > -1e-5  # no further one would lower the loss


def test_planted_weights_are_found():
    X, y, W = draw(4000, 60, 8, planted=4, size=1.5)
    head = SparseLinearHead(nec=4).fit(X, y)
    planted, found = W != 0, head.coef_ != 0
    assert found[planted].mean() >= 0.95
    assert (np.sign(head.coef_) == np.sign(W))[planted & found].all()
    error = np.abs((head.coef_ - W)[planted & found]).mean()
    assert error < 0.15 * 1.5


def test_path_holds_the_separate_fits():
    X, y, _ = draw(300, 20, 4, factors=6)
    path = sparse_softmax_path(X, y, n_lambdas=4, ratio=0.05, tol=1e-6)
    assert path.nec[0] == 0
    assert (np.diff(path.lams) < 0).all()
    assert (np.diff(path.objective) < 0).all()
    assert path.kkt.max() <= 1e-6
    for lam, W, b in zip(path.lams[1:], path.coefs[1:], path.intercepts[1:], strict=True):
        head = SparseLinearHead(lam, refit=False, tol=1e-6).fit(X, y)
        np.testing.assert_allclose(W, head.coef_, atol=1e-4)
        np.testing.assert_allclose(b, head.intercept_, atol=1e-4)


@pytest.mark.parametrize("how", ["memmap", "chunks", "float32", "bfloat16", "not standardised"])
def test_all_ways_to_read_rows_agree(how, tmp_path):
    X, y, _ = draw(700, 24, 4, factors=8)
    X = X * np.linspace(0.1, 30, 24) + 5
    options = {"lam": 0.02, "refit": False, "tol": 1e-6}
    expected = SparseLinearHead(**options).fit(X, y)
    given, atol = X, 1e-5
    if how == "memmap":
        given = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", X.dtype, X.shape)
        given[:] = X
        given = np.load(tmp_path / "X.npy", mmap_mode="r")
        options["chunk_rows"] = 256
    elif how == "chunks":
        options["chunk_rows"] = 97
    elif how in ("float32", "bfloat16"):
        options |= {"dtype": how, "tol": 1e-4}
        atol = 1e-3
    else:
        mean, scale = X.mean(0), X.std(0)
        head = SparseLinearHead(standardize=False, **options).fit((X - mean) / scale, y)
        np.testing.assert_allclose(head.coef_ / scale, expected.coef_, atol=1e-5)
        return
    head = SparseLinearHead(**options).fit(given, y)
    assert head.converged_
    np.testing.assert_allclose(head.coef_ * X.std(0), expected.coef_ * X.std(0), atol=atol)


def test_scores_far_from_zero_lose_nothing():
    """Cosines of one encoder differ in the third digit; in float32 that must be enough."""
    X, y, _ = draw(500, 20, 4)
    far = (X * 1e-3 + 10).astype(np.float32)
    exact = SparseLinearHead(0.02, refit=False).fit(far.astype(np.float64), y)
    head = SparseLinearHead(0.02, refit=False).fit(far, y)
    np.testing.assert_allclose(head.coef_ * 1e-3, exact.coef_ * 1e-3, atol=1e-3)


def test_matrix_form_of_glm_saga_reaches_the_same_optimum():
    import torch

    from bottlenecks.bench.sparse_head import glm_saga
    from bottlenecks.heads.data import HeadData
    from bottlenecks.targets import Target

    X, y, _ = draw(400, 10, 3)
    head = SparseLinearHead(0.05, refit=False, tol=1e-7).fit(X, y)
    data = HeadData(
        X,
        Target.of_columns(y, 3),
        standardize=True,
        device=torch.device("cpu"),
        dtype=torch.float64,
        chunk_rows=100,
    )
    W, b = glm_saga(data, 0.05, 0.99, epochs=400)
    assert objective(X, y, W.numpy(), b.numpy(), 0.05, 0.99) == pytest.approx(
        head.objective_, rel=1e-5
    )


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_a_stochastic_start_ends_at_the_same_optimum(kind, tmp_path):
    X, y, _ = draw(4200, 8, 3, factors=3, seed=4)
    target = {"classes": y, "labels": np.eye(3)[y], "values": X[:, :2] + y[:, None]}[kind]
    np.save(tmp_path / "X.npy", X)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")  # is read in order, along a path
    begun, followed = (
        SparseLinearHead(lam=0.02, target=kind, refit=False, tol=1e-7).fit(rows, target)
        for rows in (X, on_disk)
    )
    assert len(begun.path_.lams) == 1 < len(followed.path_.lams)
    assert begun.objective_ == pytest.approx(followed.objective_, rel=1e-9)
    np.testing.assert_allclose(begun.coef_, followed.coef_, atol=1e-5)
