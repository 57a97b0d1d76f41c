"""Weights are repeated rows, and other targets than classes, against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, LogisticRegression

from bottlenecks import ConceptBottleneck, LabelFreeCBM, PostHocCBM, SparseCBM, SparseLinearHead
from bottlenecks.heads.losses import LOSSES
from conceptlab.errors import InputError

N, M = 90, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, M)) @ RNG.normal(size=(M, M))
X = (X - X.mean(0)) / X.std(0)
Y = np.argmax(X[:, :3] + 0.5 * RNG.normal(size=(N, 3)), axis=1)
BITS = (X[:, 2:5] + RNG.normal(size=(N, 3)) > 0).astype(int)
NUMBERS = X[:, :2] @ [[3.0, 0], [1, -2]] + RNG.normal(size=(N, 2)) + 5
W = RNG.integers(0, 4, N)
TARGETS = {"classes": Y, "labels": BITS, "values": NUMBERS}
LAM = 0.02

MODELS = {
    "head": lambda kind: SparseLinearHead(LAM, target=kind, tol=1e-9),
    "head by nec": lambda kind: SparseLinearHead(nec=2, target=kind, tol=1e-6),
    "PostHocCBM": lambda kind: PostHocCBM(lam=LAM, target=kind),
    "PostHocCBM with a residual": lambda kind: PostHocCBM(lam=LAM, target=kind, residual=True),
    "LabelFreeCBM": lambda kind: LabelFreeCBM(
        lam=LAM, target=kind, validation_fraction=0, min_similarity=None, random_state=0
    ),
    "SparseCBM": lambda kind: SparseCBM(
        mode="l1", head="dense", max_epochs=2, target=kind, random_state=0
    ),
    "ConceptBottleneck": lambda kind: ConceptBottleneck(target=kind, random_state=0),
}


def said(model, X):
    return model.decision_function(X)


@pytest.mark.filterwarnings("ignore:ConceptBottleneck was given no")
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_a_weight_is_as_many_rows_and_no_weight_is_no_row(name, kind):
    y, make = TARGETS[kind], MODELS[name]
    weighted = make(kind).fit(X, y, W)
    absent = make(kind).fit(X[W > 0], y[W > 0], W[W > 0])
    np.testing.assert_allclose(said(weighted, X), said(absent, X), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(weighted.activation_levels_, absent.activation_levels_)
    if name == "SparseCBM":  # repeated rows make other batches
        return
    repeated = make(kind).fit(np.repeat(X, W, axis=0), np.repeat(y, W, axis=0))
    np.testing.assert_allclose(said(weighted, X), said(repeated, X), rtol=1e-4, atol=1e-4)
    even = make(kind).fit(X, y)
    assert not np.allclose(said(weighted, X), said(even, X), rtol=1e-2, atol=1e-2)


def test_weighted_classes_are_those_of_saga():
    head = SparseLinearHead(LAM, alpha=0.5, refit=False, standardize=False, tol=1e-7)
    head.fit(X, Y, W)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = LogisticRegression(
            C=1 / (W.sum() * LAM), l1_ratio=0.5, solver="saga", tol=1e-10, max_iter=20_000
        ).fit(X, Y, W)
    np.testing.assert_allclose(head.coef_, peer.coef_, atol=1e-5)
    np.testing.assert_array_equal(head.coef_ != 0, np.abs(peer.coef_) > 1e-9)


def test_class_weights_are_those_of_saga():
    rare = Y * (np.arange(N) % 3 == 0)
    head = SparseLinearHead(
        LAM, alpha=0.5, refit=False, standardize=False, tol=1e-7, class_weight="balanced"
    ).fit(X, rare)
    peer = LogisticRegression(
        C=1 / (N * LAM), l1_ratio=0.5, solver="saga", tol=1e-10, max_iter=20_000,
        class_weight="balanced",
    ).fit(X, rare)  # fmt: skip
    np.testing.assert_allclose(head.coef_, peer.coef_, atol=1e-5)


def test_labels_are_one_logistic_regression_each():
    head = SparseLinearHead(
        LAM, target="labels", alpha=0.5, refit=False, standardize=False, tol=1e-8
    ).fit(X, BITS, W)
    for j in range(3):
        peer = LogisticRegression(
            C=1 / (W.sum() * LAM), l1_ratio=0.5, solver="saga", tol=1e-10, max_iter=20_000
        ).fit(X, BITS[:, j], W)
        np.testing.assert_allclose(head.coef_[j], peer.coef_[0], atol=1e-5)
        np.testing.assert_allclose(
            head.predict_proba(X)[:, j], peer.predict_proba(X)[:, 1], atol=1e-5
        )


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_numbers_are_an_elastic_net_each_in_any_units(scale):
    head = SparseLinearHead(
        0.3 * scale, target="values", alpha=0.5, refit=False, standardize=False, tol=1e-8
    ).fit(X, NUMBERS * scale, W)
    for j in range(2):
        # The ridge of ours is 0.15 scale whatever the units of y; that of ElasticNet too.
        peer = ElasticNet(0.3 * scale, l1_ratio=0.5, tol=1e-12, max_iter=100_000)
        peer.fit(X, NUMBERS[:, j] * scale, W)
        np.testing.assert_allclose(head.coef_[j], peer.coef_, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", LOSSES)
def test_divergence_and_curvature_are_those_of_the_loss(kind):
    import torch

    loss, rng = LOSSES[kind], np.random.default_rng(1)
    Z = torch.from_numpy(rng.normal(size=(7, 3)))
    T = torch.from_numpy(rng.integers(0, 3, 7) if kind == "classes" else rng.random((7, 3)))
    P = loss.mean(Z)
    for size in (1e-3, 2.0):  # the series, and the whole
        U = size * torch.from_numpy(rng.normal(size=(7, 3)))
        slope = (loss.residual(P, T) * U).sum(1)
        exact = loss.value(Z + U, T) - loss.value(Z, T) - slope
        torch.testing.assert_close(loss.divergence(P, U.clone()), exact, rtol=2e-3, atol=1e-12)
    second = 2 * loss.divergence(P, 1e-3 * U) / 1e-6
    torch.testing.assert_close(loss.curvature(P, U), second, rtol=1e-2, atol=1e-9)
    torch.testing.assert_close(loss.mean(loss.logits_of(P)), P)


def test_a_memory_map_with_rows_of_no_weight(tmp_path):
    np.save(tmp_path / "X.npy", X)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")
    found = SparseLinearHead(LAM).fit(on_disk, Y, W)
    peer = SparseLinearHead(LAM).fit(X[W > 0], Y[W > 0], W[W > 0])
    np.testing.assert_allclose(found.coef_, peer.coef_, atol=1e-6)


def test_a_class_of_no_weight_is_no_class():
    head = SparseLinearHead(LAM).fit(X, Y, Y != 2)
    assert head.classes_.tolist() == [0, 1]
    with pytest.raises(InputError, match="at least two classes"):
        SparseLinearHead(LAM).fit(X, Y, Y == 2)
    with pytest.raises(InputError, match="not every weight zero"):
        SparseLinearHead(LAM).fit(X, Y, 0 * Y)
    with pytest.raises(InputError, match="sample_weight must be one number for each"):
        SparseLinearHead(LAM).fit(X, Y, W[:5])
