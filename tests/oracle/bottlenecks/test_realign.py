"""Concepts that follow one that is set: the conditional mean of a Gaussian, groups and costs."""

import numpy as np
import pytest

from bottlenecks import ConceptBottleneck, PostHocCBM, SparseLinearHead
from bottlenecks.realign import Realigner, residual_covariance
from bottlenecks.targets import Target
from conceptlab.errors import InputError

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(5, 5))
COV = ROOT @ ROOT.T + 0.1 * np.eye(5)


def test_any_order_ends_at_the_conditional_mean():
    coef, A = RNG.normal(size=(3, 5)), RNG.normal(size=(4, 5))
    start, L = A.copy(), A @ coef.T
    orders = np.array([[0, 3, 1], [3, 0, 1], [1, 0, 3], [4, 2, 0]])
    values = RNG.normal(size=(4, 5))
    follow = Realigner(coef, COV)
    for j in orders.T:
        follow.set(A, L, np.arange(4), j, values[np.arange(4), j])
    for row, chosen in enumerate(orders):
        rest = [j for j in range(5) if j not in chosen]
        delta = values[row, chosen] - start[row, chosen]
        moved = COV[np.ix_(rest, chosen)] @ np.linalg.solve(COV[np.ix_(chosen, chosen)], delta)
        np.testing.assert_allclose(A[row, rest], start[row, rest] + moved, atol=1e-10)
        np.testing.assert_allclose(A[row, chosen], values[row, chosen])
    np.testing.assert_allclose(L, A @ coef.T, atol=1e-10)


def test_concepts_that_are_one_do_not_break_it():
    A = np.zeros((2, 3))
    follow = Realigner(np.eye(3), np.ones((3, 3)))
    for j in range(3):
        follow.set(A, np.zeros((2, 3)), np.arange(2), np.full(2, j), np.full(2, float(j == 0)))
    np.testing.assert_array_equal(A, [[1, 0, 0]] * 2)


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_errors_are_told_from_what_differs_between_classes(kind):
    n = 20_000
    y = RNG.integers(0, 3, n)
    E = RNG.multivariate_normal(np.zeros(5), COV, n)
    A = RNG.normal(size=(3, 5))[y] * 10 + E
    values = {"classes": y, "labels": np.eye(3)[y], "values": np.eye(3)[y]}[kind]
    found = residual_covariance(A, Target(kind, values, np.arange(3), False))
    np.testing.assert_allclose(found, COV, atol=0.06 * np.trace(COV))


def test_weights_of_the_errors_are_rows():
    y, A = RNG.integers(0, 2, 60), RNG.normal(size=(60, 5))
    w = RNG.integers(1, 4, 60)
    one = residual_covariance(A, Target.of_columns(y, 2), w)
    many = residual_covariance(np.repeat(A, w, 0), Target.of_columns(np.repeat(y, w), 2))
    np.testing.assert_allclose(np.diag(one), np.diag(many))  # shrinkage counts rows, not weights


def shared_error(n=900, seed=0):
    """Two concepts read with one error between them; the class is in their difference."""
    rng = np.random.default_rng(seed)
    C = rng.random((n, 2)) < 0.5
    X = C + 3 * rng.normal(size=(n, 1)) + 0.1 * rng.normal(size=(n, 2))
    return X, C, C[:, 0] * 1 - C[:, 1]


def test_a_true_concept_helps_only_if_the_other_follows():
    X, C, y = shared_error()
    model = PostHocCBM(lam=1e-3).fit(X[:400], y[:400])
    test = (X[400:], C[400:], y[400:])
    follows, stays = (model.intervention_curve(*test, realign=r) for r in (True, False))
    assert follows.accuracy[0] == stays.accuracy[0] > 0.9
    assert stays.accuracy[1] < 0.7  # the difference of a true and a misread concept
    assert follows.accuracy[1] > 0.9
    auto = model.intervention_curve(*test)
    np.testing.assert_array_equal(auto.accuracy, follows.accuracy)
    plain = model.intervene(X[:3], {"concept0": 1.0})
    np.testing.assert_array_equal(plain.activations[:, 1], plain.activations_before[:, 1])
    moved = model.intervene(X[:3], {"concept0": 1.0}, realign=True)
    S = model.activation_covariance_
    step = moved.activations[:, 0] - moved.activations_before[:, 0]
    np.testing.assert_allclose(
        moved.activations[:, 1] - moved.activations_before[:, 1], S[0, 1] / S[0, 0] * step
    )


def test_groups_are_set_together_and_costs_choose():
    rng = np.random.default_rng(1)
    C = rng.random((400, 4)) < 0.5
    X, y = C + 0.5 * rng.normal(size=C.shape), C[:, 0] + 2 * C[:, 1]
    names = ["a", "b", "c", "d"]
    head = SparseLinearHead(nec=3).fit(X[:200], y[:200])
    names = head.concept_names_
    groups = {"pair": [names[0], names[2]]}
    done = head.intervene(X[200:], C[200:], budget=1, groups=groups)
    pair = np.isin(done.order, [0, 2]).any(axis=1)
    assert 0 < pair.sum() < len(pair)
    assert (np.sort(done.order[pair], axis=1) == [0, 2]).all()
    curve = head.intervention_curve(
        X[200:], C[200:], y[200:], groups=groups, costs={"pair": 5.0, names[1]: 0.5}
    )
    assert curve.steps.tolist() == [0, 1, 2, 3]
    assert curve.costs[0] == 0
    assert curve.costs[-1] == pytest.approx(5 + 0.5 + 1)
    cheap = head.intervene(X[200:], C[200:], groups=groups, costs={"pair": 5.0}, budget=2)
    assert not np.isin(cheap.order, [0, 2]).any()
    with pytest.raises(InputError, match="Unknown group or concept 'pear'"):
        head.intervene(X, C, groups=groups, costs={"pear": 1.0})
    with pytest.raises(InputError, match="each concept at most once"):
        head.intervene(X, C, groups={"p": names[:2], "q": names[1:]})
    with pytest.raises(InputError, match="above 0"):
        head.intervene(X, C, costs={names[0]: 0})


def test_rows_of_the_fit_are_known_again(tmp_path):
    X, C, y = shared_error()
    for model in (PostHocCBM(lam=0.01).fit(X[:400], y[:400]), SparseLinearHead(lam=0.01)):
        if not hasattr(model, "coef_"):
            model.fit(X[:400], y[:400])
        again = type(model).load(model.save(tmp_path / type(model).__name__))
        with pytest.warns(UserWarning, match="were in the fit"):
            again.intervention_curve(X[:400].astype(np.float32), C[:400], y[:400])
        np.testing.assert_array_equal(again.activation_covariance_, model.activation_covariance_)


@pytest.mark.filterwarnings("error")
def test_new_rows_and_rows_that_repeat_anyway_do_not_warn():
    X, C, y = shared_error()
    PostHocCBM(lam=0.01).fit(X[:400], y[:400]).intervention_curve(X[400:], C[400:], y[400:])
    bits = C.astype(float)
    SparseLinearHead(lam=0.01).fit(bits, y).intervention_curve(bits, C, y, realign=False)


def test_what_cannot_be_done_is_told():
    X, C, y = shared_error()
    model = ConceptBottleneck(target="values", random_state=0).fit(X, y * 1.0, concepts=C)
    with pytest.raises(InputError, match="fitted with target='values'"):
        model.intervention_curve(X, C, y)
    assert model.intervene(X, C).logits.shape == (900, 1)
    del model.activation_covariance_
    with pytest.raises(InputError, match="realign=True needs the covariance"):
        model.intervene(X, C, realign=True)
