"""The cos-cubed projection against its formula, autograd, and a general optimiser."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bottlenecks import projection
from bottlenecks.projection import cos_cubed_similarity, fit_projection
from conceptlab.errors import InputError


def problem(n=400, D=10, M=6, seed=0):
    """Concept scores that are no linear function of the features."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) @ rng.normal(size=(D, D)) + rng.normal(size=D)
    S = X @ rng.normal(size=(D, M)) / D
    return X, np.maximum(S, 0.5) + 0.3 * rng.normal(size=(n, M))


def formula(q, p):
    """Number by number, as the paper prints it."""
    q, p = ([v - sum(r) / len(r) for v in r] for r in (q.tolist(), p.tolist()))
    dots = sum(a**3 * b**3 for a, b in zip(q, p, strict=True))
    return dots / np.sqrt(sum(a**6 for a in q)) / np.sqrt(sum(b**6 for b in p))


def test_similarity_is_the_formula():
    rng = np.random.default_rng(0)
    Q, P = rng.normal(size=(2, 50, 4))
    expected = [formula(Q[:, j], P[:, j]) for j in range(4)]
    np.testing.assert_allclose(cos_cubed_similarity(Q, P), expected, rtol=1e-12)
    np.testing.assert_allclose(cos_cubed_similarity(1e80 * Q + 5, P), expected, rtol=1e-9)
    assert cos_cubed_similarity(np.ones((50, 4)), P).tolist() == [0.0] * 4
    tensors = cos_cubed_similarity(torch.tensor(Q), torch.tensor(P))
    np.testing.assert_allclose(tensors, expected)


def test_gradient_is_autograd_s():
    rng = np.random.default_rng(0)
    Z = torch.tensor(rng.normal(size=(60, 5)))
    Z = Z - Z.mean(dim=0)
    share = torch.full((60,), 1 / 60, dtype=torch.float64)
    G = projection._cubes(torch.tensor(rng.normal(size=(60, 3))), share)
    theta = torch.tensor(rng.normal(size=(3, 5)), requires_grad=True)
    loss, gradient = projection._gradient(Z, G, theta.detach())
    expected = -(projection._cubes(Z @ theta.T, share) * G).sum()
    (auto,) = torch.autograd.grad(expected, theta)
    torch.testing.assert_close(gradient, auto)
    assert loss.sum().item() == pytest.approx(expected.item())


def test_on_linear_scores_the_start_is_the_optimum():
    X, _ = problem()
    P = X @ np.random.default_rng(1).normal(size=(10, 4)) + 3
    found = fit_projection(X, P, ridge=1e-10, validation_fraction=0.0)
    np.testing.assert_allclose(found.start_similarity, 1.0, atol=1e-9)
    assert found.n_iter.max() == 0
    Q = found(X)
    np.testing.assert_allclose(Q, (P - P.mean(0)) / P.std(0), atol=1e-5)
    np.testing.assert_allclose(cos_cubed_similarity(Q, P), found.similarity)


def test_reaches_what_a_general_optimiser_reaches():
    """The best of scipy's L-BFGS-B from the same start and from five random ones."""
    X, P = problem()
    found = fit_projection(X, P, validation_fraction=0.0, max_iter=50)
    assert (found.similarity >= found.start_similarity - 1e-12).all()
    assert (found.similarity > found.start_similarity + 0.005).any()
    assert found.gradient.max() < 1e-4
    Xc = torch.tensor(X - X.mean(0))
    share = torch.full((len(X),), 1 / len(X), dtype=torch.float64)
    rng = np.random.default_rng(0)
    for j in range(P.shape[1]):
        target = projection._cubes(torch.tensor(P[:, [j]]), share)

        def loss(w, target=target):
            w = torch.tensor(w, requires_grad=True)
            value = -(projection._cubes(Xc @ w[:, None], share) * target).sum()
            return value.item(), torch.autograd.grad(value, w)[0].numpy()

        starts = [found.coef[j], *rng.normal(size=(5, 10))]
        best = max(-minimize(loss, w, jac=True, method="L-BFGS-B").fun for w in starts)
        assert found.similarity[j] >= best - 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_rows_held_out_stop_the_search(seed):
    """Few rows, many features: the end of the search fits noise, and new rows show it."""
    X, P = problem(n=4300, D=60, seed=seed)
    few, fresh = slice(0, 300), slice(300, None)
    kept = fit_projection(X[few], P[few], validation_fraction=0.2)
    end = fit_projection(X[few], P[few], validation_fraction=0.0)
    assert kept.n_iter.sum() < end.n_iter.sum()
    measured = [cos_cubed_similarity(f(X[fresh]), P[fresh]).mean() for f in (kept, end)]
    assert measured[0] > measured[1] + 0.05
    assert end.similarity.mean() > measured[1] + 0.3


def test_outputs_are_standardised_and_invariant_to_units_of_the_scores():
    X, P = problem()
    found = fit_projection(X, P, validation_fraction=0.0)
    Q = found(X)
    np.testing.assert_allclose(Q.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(Q.std(0), 1, atol=1e-9)
    again = fit_projection(X, 1e6 * P - 4, validation_fraction=0.0)
    np.testing.assert_allclose(again.similarity, found.similarity, atol=1e-7)
    rows = torch.tensor(X, dtype=torch.float32)
    assert found(rows).dtype == torch.float32
    redundant = fit_projection(np.hstack([X, X, np.ones((400, 1))]), P, validation_fraction=0.0)
    np.testing.assert_allclose(redundant.similarity, found.similarity, atol=1e-3)


def test_parts_change_nothing(monkeypatch):
    X, P = problem()
    whole = fit_projection(X, P)
    monkeypatch.setattr(projection, "_CELLS", 2 * len(X))
    parts = fit_projection(X, P)
    np.testing.assert_allclose(parts.coef, whole.coef, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, P: (X[:9], P, {}), "9 rows and scores 400"),
        (lambda X, P: (X * np.nan, P, {}), "NaN"),
        (lambda X, P: (X, np.ones_like(P), {}), "same score in all rows"),
        (lambda X, P: (np.ones_like(X), P, {}), "All features are the same"),
        (lambda X, P: (X, P[:, 0], {}), "must be a matrix"),
        (lambda X, P: (X, P, {"ridge": 0.0}), "ridge must be a number above 0"),
        (lambda X, P: (X, P, {"max_iter": -1}), "max_iter"),
        (
            lambda X, P: (X, P, {"validation_fraction": 1.0}),
            "must be .* below 1, got 1.0",
        ),
        (lambda X, P: (X[:3], P[:3], {"validation_fraction": 0.5}), "leaves too few"),
        (lambda X, P: (X, P.astype(str), {}), "must hold real numbers"),
    ],
)
def test_bad_input_is_named(change, message):
    X, P, options = change(*problem())
    with pytest.raises(InputError, match=message):
        fit_projection(X, P, **options)
