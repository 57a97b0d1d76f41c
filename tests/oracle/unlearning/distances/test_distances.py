"""Distances of feature sets against closed forms, dense references and other libraries."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from conceptlab.errors import InputError
from unlearning.distances.ids import leave_one_out
from unlearning.distances.statistics import auc, frechet_replicates, resample_counts
from unlearning.removal import (
    FeatureStatistics,
    cmmd,
    concept_fid,
    frechet,
    frechet_distance,
    kid,
    null_bias,
    p_ids,
    psnr,
    ssim,
    u_ids,
)


def spectrum_data(n, d, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.7
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * scale) @ turn + shift


def dense(X, Y):
    """The textbook formula with a square root of the product."""
    C, D = np.cov(X.T), np.cov(Y.T)
    root = np.real(np.trace(sqrtm(C @ D)))
    return float(np.square(X.mean(0) - Y.mean(0)).sum() + np.trace(C) + np.trace(D) - 2 * root)


@pytest.mark.parametrize(
    ("n", "m", "route"),
    [(200, 150, "cholesky"), (30, 25, "cross-gram"), (30, 200, "mixed"), (200, 30, "mixed")],
)
def test_every_route_gives_the_formula(n, m, route):
    X, Y = spectrum_data(n, 40, 0), spectrum_data(m, 40, 1, shift=0.05)
    found = frechet(X, Y)
    assert found.route == route
    # sqrtm of a singular product is good to half the digits
    tolerance = 1e-10 if route == "cholesky" else 1e-6
    assert found.distance == pytest.approx(dense(X, Y), rel=tolerance)
    assert found.distance == pytest.approx(found.mean_term + found.covariance_term, rel=1e-12)


def test_commuting_covariances_have_a_closed_form():
    # rows ± s_i e_i have exactly the covariance 2 s² / (2d - 1)
    d = 30
    a, b = np.linspace(1, 5, d), np.linspace(4, 2, d)
    X, Y = (np.concatenate([np.diag(s), -np.diag(s)]) for s in (a, b))
    expected = 2 / (2 * d - 1) * np.square(a - b).sum() + 0.25 * d
    assert frechet_distance(X, Y + 0.5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("condition", [1e6, 1e10])
def test_ill_conditioned_spectra_keep_their_digits(condition):
    d = 64
    a = np.logspace(0, -np.log10(condition) / 2, d)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    X = np.concatenate([np.diag(a), -np.diag(a)]) @ turn
    expected = 2 / (2 * d - 1) * np.square(a - 2 * a).sum()
    assert frechet_distance(X, 2 * X) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 20])
def test_rank_deficient_covariances_take_the_factor_route(rank):
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(rank, 40))
    X, Y = rng.normal(size=(300, rank)) @ basis, rng.normal(size=(300, rank)) @ basis + 0.1
    found = frechet(X, Y)
    assert found.route == "factors"
    # the same in coordinates of the subspace, where nothing is singular
    q = np.linalg.qr(basis.T)[0]
    shift = np.square((X.mean(0) - Y.mean(0)) - (X.mean(0) - Y.mean(0)) @ q @ q.T).sum()
    expected = frechet_distance(X @ q, Y @ q) + shift
    assert found.distance == pytest.approx(expected, rel=1e-7)


def test_constant_features_and_equal_sets():
    X = spectrum_data(300, 10, 0)
    X[:, 3] = 7.0
    Y = spectrum_data(300, 10, 1)
    Y[:, 3] = 9.0
    without = frechet_distance(np.delete(X, 3, axis=1), np.delete(Y, 3, axis=1))
    assert frechet_distance(X, Y) == pytest.approx(without + 4.0, rel=1e-12)
    assert frechet_distance(np.ones((9, 4)), np.zeros((5, 4))) == pytest.approx(4.0)
    for n in (20, 300):
        assert 0 <= frechet_distance(X[:n], X[:n]) < 1e-12 * n


def test_streaming_with_a_large_mean_loses_nothing():
    X, Y = spectrum_data(500, 16, 0), spectrum_data(400, 16, 1)
    expected = frechet_distance(X, Y)
    streamed = [FeatureStatistics(), FeatureStatistics()]
    for statistics, rows in zip(streamed, (X, Y), strict=True):
        for start in range(0, len(rows), 7):
            statistics.update(rows[start : start + 7] + 1e7)
    assert frechet_distance(*streamed) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(streamed[0].covariance, np.cov(X.T), rtol=1e-6, atol=1e-9)


def test_merged_parts_are_the_whole(tmp_path):
    X = spectrum_data(90, 20, 0, shift=100.0)
    whole = FeatureStatistics().update(X)
    for cut in (5, 15, 45, 80):  # rows with rows, rows with sums, sums with sums
        joined = FeatureStatistics().update(X[:cut]).merge(FeatureStatistics().update(X[cut:]))
        assert joined.n == 90
        np.testing.assert_allclose(joined.mean, whole.mean, rtol=1e-13)
        np.testing.assert_allclose(joined.covariance, whole.covariance, rtol=1e-9, atol=1e-12)
    for part in (whole, FeatureStatistics().update(X[:9])):
        loaded = FeatureStatistics.load(part.save(tmp_path / f"s{part.n}"))
        np.testing.assert_array_equal(loaded.covariance, part.covariance)


def test_null_bias_is_what_two_samples_of_one_law_show():
    assert null_bias(np.ones(128), 5000, 5000) == pytest.approx(1.702, abs=2e-3)
    scale = np.arange(1, 33) ** -0.5
    found, plugged = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        result = frechet(rng.normal(size=(400, 32)) * scale, rng.normal(size=(300, 32)) * scale)
        found.append(result.distance)
        plugged.append(result.null_bias)
    expected = null_bias(scale**2, 400, 300)
    assert np.mean(found) == pytest.approx(expected, rel=0.03)
    assert np.mean(plugged) == pytest.approx(expected, rel=0.05)


def test_debiased_distance_is_nearer_to_the_truth():
    scale = np.arange(1, 65) ** -0.5
    truth = np.square(0.1 * scale).sum() + 0.02  # spread times 1.1, and a shift
    raw, debiased = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(600, 64)) * scale
        Y = rng.normal(size=(600, 64)) * scale * 1.1
        Y[:, 0] += np.sqrt(0.02)
        found = frechet(X, Y)
        raw.append(found.distance)
        debiased.append(found.debiased)
    assert np.mean(raw) > 3 * truth
    assert np.mean(debiased) == pytest.approx(truth, abs=0.25 * truth)


def peers():
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    image = pytest.importorskip("torchmetrics.image.fid")
    del fidelity, image
    from unlearning.bench.frechet import fidelity as one
    from unlearning.bench.frechet import metrics as other

    return one, other


def check_peers(n, d):
    from unlearning.bench.frechet import features, fidelity_exact_means

    # torch-fidelity averages in the input's precision, which in float32 costs it the sixth digit
    X, Y = (features(n, d, seed).astype(np.float64) + 0.01 * seed for seed in (0, 1))
    ours = frechet_distance(X, Y)
    for peer in peers():
        assert peer(X, Y) == pytest.approx(ours, rel=2e-6)
    short = [F.astype(np.float32) for F in (X, Y)]
    assert fidelity_exact_means(*short) == pytest.approx(frechet_distance(*short), rel=2e-6)


def test_agrees_with_torch_fidelity_and_torchmetrics():
    check_peers(1000, 128)


@pytest.mark.slow
def test_agrees_with_torch_fidelity_and_torchmetrics_at_full_size():
    check_peers(5000, 2048)


def test_kid_is_the_u_statistic_and_torchmetrics_on_one_subset():
    X, Y = spectrum_data(60, 8, 0), spectrum_data(50, 8, 1, shift=0.3)

    def k(a, b):
        return (a @ b.T / 8 + 1) ** 3

    xx, yy = k(X, X), k(Y, Y)
    np.fill_diagonal(xx, 0)
    np.fill_diagonal(yy, 0)
    expected = xx.sum() / (60 * 59) + yy.sum() / (50 * 49) - 2 * k(X, Y).mean()
    assert kid(X, Y) == pytest.approx(expected, rel=1e-10)
    peer = pytest.importorskip("torchmetrics.image.kid")
    theirs = peer.poly_mmd(torch.tensor(X[:50]), torch.tensor(Y), degree=3, gamma=None, coef=1.0)
    assert kid(X[:50], Y) == pytest.approx(float(theirs), rel=1e-9)


def test_kid_is_unbiased_for_few_rows():
    found = [kid(*np.split(np.random.default_rng(s).normal(size=(12, 6)), 2)) for s in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


def test_cmmd_by_its_definition_and_by_the_means():
    X, Y = spectrum_data(80, 12, 0, 0.2), spectrum_data(70, 12, 1)
    A, B = (F / np.linalg.norm(F, axis=1, keepdims=True) for F in (X, Y))

    def k(a, b):
        return np.exp(-np.square(a[:, None] - b[None]).sum(-1) / 200)

    expected = 1000 * (k(A, A).mean() + k(B, B).mean() - 2 * k(A, B).mean())
    assert cmmd(X, Y) == pytest.approx(expected, rel=1e-8)
    assert cmmd(X, Y) == pytest.approx(10 * np.square(A.mean(0) - B.mean(0)).sum(), rel=0.02)
    assert cmmd(X, Y, unbiased=True) < cmmd(X, Y)


# -- U-IDS and P-IDS ------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_leave_one_out_is_what_refits_give(n, d, weighted):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)) + 2
    y = np.where(np.arange(n) < n // 3, 1.0, -1.0)
    s = np.where(y > 0, 3.0, 1.5) * n / 2 / (n - n // 3) if weighted else np.ones(n)
    ridge = 0.1
    middle = s @ X / s.sum()
    strength = ridge * (s @ np.square(X - middle)).sum() / d  # of the whole set, as documented
    expected, margins = [], []
    for i in range(n):
        rows = np.arange(n) != i
        w = s[rows, None]
        mean, label = (w * X[rows]).sum(0) / w.sum(), s[rows] @ y[rows] / w.sum()
        A, b = X[rows] - mean, y[rows] - label
        slope = np.linalg.solve(A.T @ (w * A) + strength * np.eye(d), A.T @ (w[:, 0] * b))
        margins.append((X[i] - mean) @ slope)
        expected.append(margins[-1] + label)
    found = leave_one_out(
        torch.tensor(X),
        torch.tensor(y),
        ridge=ridge,
        weights=torch.tensor(s) if weighted else None,
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found[1], margins, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("n", "d"), [(20, 6), (8, 30)])
def test_left_out_pairs_are_what_refits_give(n, d):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    X = np.concatenate([X, X + 0.3 * rng.normal(size=(n, d))])
    y = np.r_[np.ones(n), -np.ones(n)]
    strength = 0.1 * np.square(X - X.mean(0)).sum() / d
    expected = np.empty(2 * n)
    for i in range(n):
        rows = ~np.isin(np.arange(2 * n), [i, i + n])
        A, b = X[rows] - X[rows].mean(0), y[rows] - y[rows].mean()
        w = np.linalg.solve(A.T @ A + strength * np.eye(d), A.T @ b)
        expected[[i, i + n]] = (X[[i, i + n]] - X[rows].mean(0)) @ w
    found = leave_one_out(torch.tensor(X), torch.tensor(y), pairs=True, ridge=0.1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found[1], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
def test_equal_pairs_cannot_be_told_apart(n, d):
    X = np.random.default_rng(0).normal(size=(n, d))
    assert u_ids(X, X) == 1.0  # each row's twin has the other label
    assert u_ids(X, X, paired=True) == 0.5
    assert u_ids(X, X + 5, paired=True) == 0.0
    with pytest.raises(InputError, match="Pairs are compared"):
        u_ids(X, X[1:], paired=True)


def test_in_sample_is_the_published_score():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(120, 10)), rng.normal(size=(120, 10)) + 0.4
    inputs, labels = np.concatenate([X, Y]), np.r_[np.ones(120), np.zeros(120)]
    machine = LinearSVC(dual=False).fit(inputs, labels)
    assert u_ids(X, Y, method="in-sample") == pytest.approx(1 - machine.score(inputs, labels))
    expected = np.mean(machine.decision_function(Y) > machine.decision_function(X))
    assert p_ids(X, Y, method="in-sample", ties=0.0) == pytest.approx(expected)


@pytest.mark.parametrize("ratio", [0.5, 1, 4])
def test_null_is_one_half_left_out_and_far_below_in_sample(ratio):
    d = 64
    n = int(ratio * d)
    left_out, in_sample = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, Y = rng.normal(size=(n, d)), rng.normal(size=(n, d))
        left_out.append(u_ids(X, Y))
        in_sample.append(u_ids(X, Y, method="in-sample"))
    assert np.mean(left_out) == pytest.approx(0.5, abs=0.05)
    assert np.mean(in_sample) < 0.36
    if ratio == 0.5:
        assert np.mean(in_sample) == 0


@pytest.mark.parametrize(("shift", "bayes"), [(0.5, 0.4013), (1, 0.3085), (2, 0.1587)])
def test_left_out_error_is_bayes_error(shift, bayes):
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(3000, 24)), rng.normal(size=(3000, 24))
    Y[:, 0] += shift
    assert u_ids(X, Y) == pytest.approx(bayes, abs=0.02)
    assert u_ids(X[:500], Y[:500], method="cv") == pytest.approx(bayes, abs=0.05)


def test_pairs_without_a_difference_count_one_half():
    X = np.random.default_rng(0).normal(size=(60, 5))
    assert p_ids(X, X) == 0.5
    assert p_ids(X, X, method="in-sample") == 0.5
    assert p_ids(X, X, method="in-sample", ties=0.0) == 0.0


@pytest.mark.parametrize("sizes", [(100, 1000), (1000, 100)])
@pytest.mark.parametrize(("shift", "bayes"), [(0.0, 0.5), (2.0, 0.1587)])
def test_sets_of_other_sizes_weigh_alike(sizes, shift, bayes):
    found = {"loo": [], "cv": []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, Y = (rng.normal(size=(n, 8)) for n in sizes)
        Y[:, 0] += shift
        for method, values in found.items():
            values.append(u_ids(X, Y, method=method))
    for values in found.values():
        assert np.mean(values) == pytest.approx(bayes, abs=0.04)


@pytest.mark.parametrize("method", ["loo", "cv", "in-sample"])
def test_constant_features_cannot_be_told_apart(method):
    assert u_ids(np.ones((10, 3)), np.ones((10, 3)), method=method) == 0.5
    assert u_ids(np.ones((10, 3)), np.ones((25, 3)), method=method) == 0.5


def test_few_rows_without_a_difference_are_at_one_half():
    rng = np.random.default_rng(0)
    found = [u_ids(*rng.normal(size=(2, 12, 1))) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


# -- paired scores and concepts ----------------------------------------------------------


def test_psnr_and_ssim_are_those_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.functional.image")
    rng = np.random.default_rng(0)
    truth = rng.random((3, 3, 32, 24))
    images = np.clip(truth + 0.1 * rng.normal(size=truth.shape), 0, 1)
    A, B = torch.tensor(images).float().double(), torch.tensor(truth).float().double()
    theirs = image.structural_similarity_index_measure(A, B, data_range=1.0, reduction="none")
    np.testing.assert_allclose(ssim(images, truth), theirs.numpy(), rtol=1e-6)
    for i in range(3):
        theirs = image.peak_signal_noise_ratio(A[i], B[i], data_range=1.0)
        assert psnr(images, truth)[i] == pytest.approx(float(theirs), rel=1e-6)
    mask = np.zeros((3, 1, 32, 24), dtype=bool)
    mask[..., 4:9, 3:20] = True
    inside = np.square(images - truth)[..., 4:9, 3:20].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(psnr(images, truth, mask), -10 * np.log10(inside), rtol=1e-5)


def test_lpips_is_that_of_torchmetrics_with_the_same_weights():
    peer = pytest.importorskip("torchmetrics.functional.image.lpips")
    from torchvision.models import alexnet

    from unlearning.removal import Lpips

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = peer._LPIPS(pretrained=False, net="alex", pnet_rand=True).eval()
        ours_net = alexnet(weights=None).features
        A, B = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    weights = [lin.model[1].weight.abs() for lin in theirs.lins]
    for lin, weight in zip(theirs.lins, weights, strict=True):
        lin.model[1].weight.data = weight
    slices = [getattr(theirs.net, f"slice{i}") for i in range(1, 6)]
    state = {k: v for part in slices for k, v in part.state_dict().items()}
    ours_net.load_state_dict(state)
    ours = Lpips(ours_net, weights, net="alex")
    with torch.no_grad():
        expected = theirs(A, B, normalize=True).flatten()
        found = ours(A, B)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    theirs.spatial = True
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    masks[0, :, 10:30, 5:20] = True
    with torch.no_grad():
        local = theirs(A, B, normalize=True)
        found = ours.inside(A, B, masks)
    assert float(found[0]) == pytest.approx(float(local[0][masks[0]].mean()), rel=1e-4)
    assert bool(found[1].isnan())


def test_concept_fid_splits_exactly_and_is_a_frechet_distance():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(5, 5))
    Y = rng.normal(size=(300, 5)) @ mix
    X = rng.normal(size=(250, 5)) @ mix.T + np.array([0, 0, 1.0, 0, 0])
    names = ["a", "b", "c", "d", "e"]
    found = concept_fid(X, Y, names, target="c", standardize=False)
    assert found.distance == pytest.approx(frechet_distance(X, Y), rel=1e-10)
    assert found.contributions.sum() == pytest.approx(found.distance, rel=1e-12)
    assert (found.contributions >= 0).all()
    np.testing.assert_allclose(np.square(found.shift).sum(), frechet(X, Y).mean_term)
    rest = [0, 1, 3, 4]
    assert found.collateral == pytest.approx(frechet_distance(X[:, rest], Y[:, rest]), rel=1e-10)
    assert found.removal == pytest.approx(frechet_distance(X[:, [2]], Y[:, [2]]), rel=1e-10)
    # concepts that only copy others make covariances singular
    wide = concept_fid(X[:, [0, 0, 1]], Y[:, [0, 0, 1]], ["a", "a2", "b"], standardize=False)
    assert wide.distance == pytest.approx(frechet_distance(X[:, [0, 0, 1]], Y[:, [0, 0, 1]]))


def test_each_contribution_is_an_expected_square_of_the_coupling():
    """Independent coordinates couple one by one."""
    rng = np.random.default_rng(0)
    d = 4
    a, b = np.array([1.0, 2, 3, 1]), np.array([2.0, 2, 1, 1])
    base = np.concatenate([np.eye(d), -np.eye(d)])
    shift = rng.normal(size=d)
    found = concept_fid(base * a, base * b + shift, list("abcd"), standardize=False)
    expected = shift**2 + 2 / (2 * d - 1) * np.square(a - b)
    np.testing.assert_allclose(found.contributions, expected, rtol=1e-12, atol=1e-14)


def test_auc_is_scikit_learn_s_also_with_counts():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    labels = np.r_[np.ones(40), np.zeros(30)]
    assert auc(a, b) == pytest.approx(roc_auc_score(labels, np.r_[a, b]))
    V, W = resample_counts(40, 3, 0), resample_counts(30, 3, 1)
    for i, value in enumerate(auc(a, b, V, W)):
        weights = np.r_[V[i], W[i]]
        assert value == pytest.approx(roc_auc_score(labels, np.r_[a, b], sample_weight=weights))


@pytest.mark.parametrize("d", [6, 80])
def test_replicates_are_distances_of_repeated_rows(d):
    X, Y = spectrum_data(60, d, 0), spectrum_data(50, d, 1, shift=0.1)
    V, W = resample_counts(60, 3, 0), resample_counts(50, 3, 1)
    found = frechet_replicates([X, 2 * X], Y, V, W)
    for b in range(3):
        rows = np.repeat(X, V[b].astype(int), axis=0), np.repeat(Y, W[b].astype(int), axis=0)
        assert found[0, b] == pytest.approx(frechet_distance(*rows), rel=1e-6)
        assert found[1, b] == pytest.approx(frechet_distance(2 * rows[0], rows[1]), rel=1e-6)


def test_kid_of_more_rows_than_a_block_is_the_dense_statistic():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(1500, 4)), rng.normal(size=(60, 4))
    xx, yy, xy = ((a @ b.T / 4 + 1) ** 3 for a, b in ((X, X), (Y, Y), (X, Y)))
    own = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    assert kid(X, Y) == pytest.approx(sum(own) - 2 * xy.mean(), rel=1e-9)


def test_directions_without_spread_add_no_null_bias():
    assert null_bias(np.array([1.0, 0.0, 0.0]), 10, 10) == null_bias(np.ones(1), 10, 10) > 0
