"""SemiNMF, ConvexNMF and the linear methods against their papers and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA

from conceptlab.errors import InputError
from conceptlab.extractors import (
    ConvexNMF,
    ICAConcepts,
    KMeansConcepts,
    PCAConcepts,
    RandomConcepts,
    SemiNMF,
    match_concepts,
    nnls,
    select_rank,
    stability,
)
from conceptlab.extractors.rank import _blocks, _held_out

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def clusters(n=200, p=15, k=4, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(k, p))
    labels = rng.integers(k, size=n)
    A = rng.uniform(0.5, 2, size=(n, 1)) * W[labels] + noise * rng.normal(size=(n, p))
    return A, W, labels


def relative(A, model):
    return np.linalg.norm(A - model.inverse_transform(model.transform(A))) / np.linalg.norm(A)


def ding_semi_nmf(A, k, steps=2000, seed=0):
    """Multiplicative updates of Ding et al. (2010), equations 10 and 11 (X = A', G = U)."""
    U = np.eye(k)[KMeans(k, n_init=4, random_state=seed).fit(A).labels_] + 0.2
    for _ in range(steps):
        F = A.T @ U @ np.linalg.pinv(U.T @ U)
        B, C = A @ F, F.T @ F
        up = np.maximum(B, 0) + U @ np.maximum(-C, 0)
        down = np.maximum(-B, 0) + U @ np.maximum(C, 0)
        U = U * np.sqrt(up / np.maximum(down, 1e-12))
    W = np.linalg.lstsq(U, A, rcond=None)[0]
    return np.linalg.norm(A - nnls(A, W) @ W)


def ding_convex_nmf(A, k, steps=2000, seed=0):
    """Multiplicative updates of Ding et al. (2010), equations 20 and 21 (K = A A')."""
    K = A @ A.T
    up, down = np.maximum(K, 0), np.maximum(-K, 0)
    H = np.eye(k)[KMeans(k, n_init=4, random_state=seed).fit(A).labels_]
    G = H + 0.2
    C = G / H.sum(0)
    for _ in range(steps):
        G = G * np.sqrt((up @ C + G @ C.T @ down @ C) / (down @ C + G @ C.T @ up @ C))
        C = C * np.sqrt((up @ G + down @ C @ G.T @ G) / (down @ G + up @ C @ G.T @ G))
    W = C.T @ A
    return np.linalg.norm(A - nnls(A, W) @ W)


@pytest.mark.parametrize("init", ["kmeans", "svd", "random"])
def test_semi_nmf_is_between_the_papers_updates_and_the_svd(init):
    A = clusters(noise=0.5)[0]
    model = SemiNMF(4, init=init, tol=1e-8, max_iter=2000, random_state=0).fit(A)
    bound = np.sqrt((np.linalg.svd(A, compute_uv=False)[4:] ** 2).sum())
    assert bound <= model.reconstruction_err_ <= 1.01 * ding_semi_nmf(A, 4)
    assert model.transform(A).min() >= 0
    assert model.components_.min() < 0
    U = model.transform(A)
    gradient = U.T @ (U @ model.components_ - A)
    assert abs(gradient).max() < 1e-3 * np.linalg.norm(U) * np.linalg.norm(A), (
        "W is the least-squares answer"
    )


def test_semi_nmf_recovers_directions_of_any_sign():
    A, W, _ = clusters(noise=0.01)
    model = SemiNMF(4, random_state=0).fit(A)
    assert match_concepts(W, model.components_)[1].min() > 0.95, "unique only up to a cone"
    assert relative(A, model) < 0.02


@pytest.mark.parametrize("init", ["kmeans", "furthest", "random"])
def test_convex_nmf_is_no_worse_than_the_papers_updates(init):
    A = clusters(n=80, noise=0.5)[0]
    model = ConvexNMF(4, init=init, random_state=0).fit(A)
    assert model.reconstruction_err_ <= 1.01 * ding_convex_nmf(A, 4)
    C = model.row_weights_
    assert C.min() >= 0
    np.testing.assert_allclose(C.sum(1), 1)
    np.testing.assert_allclose(C @ A, model.components_, atol=1e-12)
    assert (np.diff(model.history_) <= 1e-9 * model.history_[0]).all()


def test_convex_nmf_finds_the_archetypes_of_separable_data():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(4, 12))
    A = np.vstack([W, rng.dirichlet(np.ones(4), size=150) @ W])
    model = ConvexNMF(4, init="furthest", tol=1e-9, random_state=0).fit(A)
    order, cosines = match_concepts(W, model.components_)
    assert cosines.min() > 0.999
    assert (model.row_weights_[order].argmax(1) == np.arange(4)).all()
    unseen = rng.dirichlet(np.ones(4), size=20) @ W
    assert relative(unseen, model) < 1e-3, "rows outside the fit are coded too"


def test_convex_nmf_makes_nothing_of_n_by_n():
    import tracemalloc

    A = np.random.default_rng(0).random((4000, 8))
    tracemalloc.start()
    ConvexNMF(3, init="furthest", max_iter=3, random_state=0).fit(A)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 4000
    assert ConvexNMF(3, init="furthest", max_iter=3).fit(A).row_weights_.shape == (3, 4000)


def test_pca_equals_scikit_learns_with_its_mean():
    A = clusters()[0] + 3
    peer = PCA(4).fit(A)
    model = PCAConcepts(4).fit(A)
    np.testing.assert_allclose(model.transform(A), peer.transform(A), atol=1e-10)
    back = model.inverse_transform(model.transform(A))
    np.testing.assert_allclose(back, peer.inverse_transform(peer.transform(A)), atol=1e-10)
    assert 0 < model.explained_variance_ratio_.sum() <= 1


def test_ica_equals_scikit_learns_and_keeps_the_mean():
    rng = np.random.default_rng(0)
    sources = rng.uniform(-1, 1, size=(500, 3))
    A = sources @ rng.normal(size=(3, 8)) + 5
    peer = FastICA(3, whiten="unit-variance", max_iter=500, random_state=0).fit(A)
    model = ICAConcepts(3, random_state=0).fit(A)
    np.testing.assert_allclose(model.transform(A), peer.transform(A), atol=1e-8)
    np.testing.assert_allclose(model.inverse_transform(model.transform(A)), A, atol=1e-8)
    similarity = abs(np.corrcoef(sources.T, model.transform(A).T)[:3, 3:])
    rows, columns = linear_sum_assignment(-similarity)
    assert similarity[rows, columns].min() > 0.98


def test_kmeans_decodes_to_centres():
    A, _, labels = clusters(noise=0.05)
    model = KMeansConcepts(4, random_state=0).fit(A)
    codes = model.transform(A)
    assert set(np.unique(codes)) == {0, 1}
    np.testing.assert_array_equal(codes.sum(1), 1)
    nearest = ((A[:, None] - model.components_) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(model.inverse_transform(codes), model.components_[nearest])
    assert (np.diff(codes.sum(0)) <= 0).all(), "the largest cluster comes first"
    assert model.inertia_ == pytest.approx(
        np.square(A - model.inverse_transform(codes)).sum(), rel=1e-6
    )
    assert all(len(set(labels[codes[:, j] == 1])) == 1 for j in range(4)), "one cluster each"
    far = model.as_module()
    far.centres += 1e6
    shifted = far(torch.from_numpy(A + 1e6)).numpy()
    np.testing.assert_array_equal(shifted, codes, err_msg="a common mean costs no digits")


def test_soft_kmeans_is_the_posterior_of_a_spherical_mixture():
    A = clusters()[0]
    model = KMeansConcepts(4, assignment="soft", temperature=0.7, random_state=0).fit(A)
    distance = ((A[:, None] - model.components_) ** 2).sum(-1)
    weight = np.exp(-(distance - distance.min(1, keepdims=True)) / 1.4)
    expected = weight / weight.sum(1, keepdims=True)
    np.testing.assert_allclose(model.transform(A), expected, atol=1e-10)
    auto = KMeansConcepts(4, assignment="soft", random_state=0).fit(A)
    assert auto.temperature_ == pytest.approx(auto.inertia_ / A.size)


def test_random_concepts_are_orthonormal_and_uniform():
    A = clusters(p=6)[0]
    model = RandomConcepts(3, random_state=0).fit(A)
    np.testing.assert_allclose(model.components_ @ model.components_.T, np.eye(3), atol=1e-12)
    drawn = np.stack([RandomConcepts(3, random_state=s).fit(A).components_ for s in range(300)])
    assert abs(drawn.mean(0)).max() < 4 / np.sqrt(6 * 300)


def test_matching_undoes_a_permutation_and_signs():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(6, 20))
    permutation = rng.permutation(6)
    order, cosines = match_concepts(W, 3 * W[permutation])
    np.testing.assert_array_equal(permutation[order], np.arange(6))
    np.testing.assert_allclose(cosines, 1)
    order, cosines = match_concepts(W, -W[permutation], signed=False)
    np.testing.assert_array_equal(permutation[order], np.arange(6))
    np.testing.assert_allclose(cosines, 1)
    order, cosines = match_concepts(W, np.vstack([W[2], np.zeros(20)]))
    assert order[2] == 0
    assert (order >= 0).sum() == 2
    assert cosines.sum() == pytest.approx(1.0)


def test_matching_is_the_best_assignment_not_the_greedy_one():
    W1 = np.array([[1.0, 0], [np.cos(0.3), np.sin(0.3)]])
    W2 = np.array([[np.cos(0.2), np.sin(0.2)], [np.cos(-0.8), np.sin(-0.8)]])
    order, _ = match_concepts(W1, W2)
    assert order.tolist() == [1, 0], "greedy would give the first row its nearest"


def test_stability():
    rng = np.random.default_rng(0)
    W = rng.random((4, 10))
    assert stability([W, W[::-1], 2 * W]) == pytest.approx(1)
    assert stability([np.eye(4), -np.eye(4)]) <= 0
    assert stability([np.eye(4), -np.eye(4)], signed=False) == pytest.approx(1)
    for call, message in (
        (lambda: stability([W]), "at least 2 are needed"),
        (lambda: match_concepts(W, W[:, :5]), "W1 has 10 features and W2 has 5"),
        (lambda: match_concepts(W[0], W), "must be a matrix"),
        (lambda: match_concepts(W * np.nan, W), "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def planted(k, noise, seed, n=240, p=60):
    rng = np.random.default_rng(seed)
    A = rng.gamma(0.4, size=(n, k)) @ rng.gamma(0.4, size=(k, p))
    return np.maximum(0, A + noise * A.std() * rng.normal(size=A.shape))


@pytest.mark.parametrize(("k", "noise"), [(3, 0.02), (4, 0.3), (7, 0.1)])
def test_rank_selection_recovers_the_planted_rank(k, noise):
    selection = select_rank(planted(k, noise, seed=k), range(2, 10), random_state=0)
    assert selection.n_concepts == k
    table = selection.table
    assert list(table["n_concepts"]) == list(range(2, 10))
    assert table.loc[table["chosen"], "n_concepts"].tolist() == [k]
    assert table.loc[table["chosen"], "stability"].item() > 0.95
    assert "stability" in selection._repr_html_()


def test_held_out_error_rises_with_too_many_concepts_and_the_training_error_does_not():
    A = torch.from_numpy(planted(3, 0.5, seed=0))
    blocks = _blocks(*A.shape, 4, np.random.default_rng(0))
    errors = [_held_out(A, blocks, rank, 0).mean() for rank in (1, 3, 12)]
    assert errors[1] < errors[0]
    assert errors[1] < errors[2]
    for fitted, held, seen, unseen in blocks:
        assert not set(fitted.tolist()) & set(held.tolist())
        assert not set(seen.tolist()) & set(unseen.tolist())


def test_rank_selection_is_seeded_takes_a_sample_and_tells_bad_input():
    A = planted(3, 0.1, seed=0)
    one, two = (select_rank(A, [2, 3], random_state=5, max_rows=100) for _ in range(2))
    np.testing.assert_array_equal(one.error, two.error)
    assert one.settings["n_rows"] == 100
    for call, message in (
        (lambda: select_rank(A, [31]), "ranks must lie in 1..30"),
        (lambda: select_rank(A, []), "ranks must lie in"),
        (lambda: select_rank(-A), "must be non-negative"),
        (lambda: select_rank(A[:3]), "at least 4 rows"),
        (lambda: select_rank(A[0]), "Expected 2D array"),
        (lambda: select_rank(A * 0), "entries of A are zero"),
        (lambda: select_rank(A, n_blocks=1), "n_blocks and n_fits must be at least 2"),
        (lambda: select_rank(np.where(A > 1, np.nan, A)), "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            call()
