"""Post-hoc and label-free bottlenecks against their formulas."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bottlenecks import (
    Bottleneck,
    LabelFreeCBM,
    PostHocCBM,
    SparseLinearHead,
    cos_cubed_similarity,
    fit_projection,
)
from bottlenecks.posthoc import fit_residual
from bottlenecks.targets import Target
from conceptlab import ConceptBank
from conceptlab.errors import InputError, SpaceMismatchError


def problem(n=500, d=8, seed=0):
    """Classes by four directions, of which the bank knows two."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * np.linspace(0.5, 3, d) + 1
    y = np.argmax((X[:, :4] - 1) / np.linspace(0.5, 3, d)[:4], axis=1)
    bank = ConceptBank(np.eye(d)[[0, 1, 6]], ["red", "round", "loud"], space="A")
    return X, np.array(["ant", "bee", "cow", "dog"])[y], bank


def softmax(F):
    E = np.exp(F - F.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------ PCBM
def test_logits_are_those_of_the_formula():
    """Equation 1: a sparse head on the (standardised) scores; W s + b written out."""
    X, y, bank = problem()
    model = PostHocCBM(bank, nec=2).fit(X, y)
    S = X[:, [0, 1, 6]]
    A = (S - S.mean(0)) / S.std(0)
    np.testing.assert_allclose(model.predict_concepts(X), A, atol=1e-10)
    np.testing.assert_allclose(
        model.decision_function(X), A @ model.coef_.T + model.intercept_, atol=1e-10
    )
    head = SparseLinearHead(nec=2).fit(A, y)
    np.testing.assert_allclose(model.coef_, head.coef_, atol=1e-8)
    assert model.nec_ == 2.0


def test_hybrid_is_the_formula_and_its_residual_is_the_optimum():
    """Equation 2: the frozen head plus R x + r, CE + l2 mean(R²), against torch from zeros."""
    X, y, bank = problem()
    model = PostHocCBM(bank, nec=2, residual=True, residual_l2=0.05).fit(X, y)
    plain = PostHocCBM(bank, nec=2).fit(X, y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    through = model.predict_concepts(X) @ model.coef_.T + model.intercept_
    F = through + X @ model.residual_coef_.T + model.residual_intercept_
    np.testing.assert_allclose(model.decision_function(X), F, atol=1e-9)

    codes = torch.tensor(np.unique(y, return_inverse=True)[1])
    R = torch.zeros(4, 8, dtype=torch.float64, requires_grad=True)
    r = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [R, r],
        max_iter=3000,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    inputs, base = torch.tensor(X), torch.tensor(through)

    def loss():
        cross = torch.nn.functional.cross_entropy(base + inputs @ R.T + r, codes)
        return cross + 0.05 * (R**2).mean()

    def closure():
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)
    with torch.no_grad():
        best = float(loss())
        R.copy_(torch.tensor(model.residual_coef_))
        r.copy_(torch.tensor(model.residual_intercept_))
        ours = float(loss())
    assert ours <= best + 1e-9
    assert model.residual_gradient_ < 1e-6
    assert model.score(X, y) > plain.score(X, y) + 0.05
    assert model.concept_accuracy(X, y) == pytest.approx(plain.score(X, y))


def test_share_of_the_residual_is_the_formula():
    X, y, bank = problem()
    model = PostHocCBM(bank, nec=2, residual=True).fit(X, y)
    c = model.predict_concepts(X) @ model.coef_.T + model.intercept_
    r = X @ model.residual_coef_.T + model.residual_intercept_
    c, r = (np.abs(v - v.mean(axis=1, keepdims=True)).sum(axis=1) for v in (c, r))
    np.testing.assert_allclose(model.residual_share(X), r / (r + c), rtol=1e-8)
    assert model.residual_share_ == pytest.approx((r / (r + c)).mean())
    rng = np.random.default_rng(1)
    noisy = np.where(rng.random(500) < 0.2, rng.permutation(y), y)  # the optimum is finite
    everything = ConceptBank(np.eye(8), [f"c{j}" for j in range(8)], space=None)
    none_left, much_left = (
        PostHocCBM(b, lam=lam, residual=True).fit(X, noisy).residual_share_
        for b, lam in ((everything, 1e-4), (bank, None))
    )
    assert none_left < 0.1
    assert much_left > 0.4
    assert PostHocCBM(bank).fit(X, y).residual_share(X).tolist() == [0.0] * len(X)


def test_without_concepts_the_residual_is_a_logistic_regression():
    X, y, _ = problem()
    Z = (X - X.mean(0)) / X.std(0)
    codes = np.unique(y, return_inverse=True)[1]
    R, r, gradient = fit_residual(Z, np.zeros((500, 4)), Target.of_columns(codes, 4), 0.1, 2000)
    # C ½|W|² over n C is l2 |W|² / (K d).
    C = 4 * 8 / (2 * 0.1 * 500)
    peer = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(Z, codes)
    np.testing.assert_allclose(softmax(Z @ R.T + r), peer.predict_proba(Z), atol=1e-5)
    assert gradient < 1e-6


def test_explanations_add_up_with_the_residual_and_files_keep_the_bits(tmp_path):
    X, y, bank = problem()
    for model in (PostHocCBM(bank, nec=2, residual=True), PostHocCBM(bank, lam=0.01)):
        model.fit(X, y)
        frame = model.explain(X[:1]).to_frame()
        assert ("(residual)" in set(frame["concept"])) == model.residual
        model.save(tmp_path / "model")
        for loader in (PostHocCBM, Bottleneck):
            again = loader.load(tmp_path / "model")
            assert np.array_equal(again.decision_function(X), model.decision_function(X))
        assert again.residual_share_ == model.residual_share_
        rows = torch.tensor(X, dtype=torch.float32)
        assert again.predict_proba(rows).dtype == torch.float32
    model.set_params(residual=True).fit(X, y)
    assert hasattr(model.set_params(residual=False).fit(X, y), "coef_")
    assert not hasattr(model, "residual_coef_")


def test_quality_of_directions_from_examples_is_reported():
    X, y, _ = problem()
    ant = y == "ant"
    bank = ConceptBank.from_examples(None, {"ant-like": (X[ant], X[~ant])}, random_state=0)
    model = PostHocCBM(bank).fit(X, y)
    assert 0.8 < model.concept_quality_["ant-like"] <= 1
    assert bank.meta["method"] == "shrunken"


# ------------------------------------------------------------------------ label-free
def two_spaces(n=600, seed=0):
    """A backbone, and an encoder that sees five concepts of which one is not in the backbone."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, 5))
    X = np.hstack([Z[:, :4], rng.normal(size=(n, 3))]) @ rng.normal(size=(7, 7))
    E = np.hstack([Z, rng.normal(size=(n, 2))]) + 0.1 * rng.normal(size=(n, 7))
    bank = ConceptBank(np.eye(7)[:5], list("abcde"), space="clip")
    return X, E, bank, np.argmax(Z[:, :3], axis=1)


def test_steps_are_those_of_the_paper():
    X, E, bank, y = two_spaces()
    model = LabelFreeCBM(bank, nec=2, random_state=0).fit(X, y, encoder_features=E)
    assert model.concept_names_ == list("abcd")
    assert model.filter_report_.reason("e").startswith("similarity on rows held out")
    found = fit_projection(X, E[:, :5], random_state=0)
    np.testing.assert_allclose(model.projection_coef_, found.coef[:4], atol=1e-9)
    assert (model.similarity_ > 0.45).all()
    S = X @ model.projection_coef_.T + model.projection_intercept_
    A = (S - S.mean(0)) / S.std(0)
    np.testing.assert_allclose(model.predict_concepts(X), A, atol=1e-8)
    np.testing.assert_allclose(
        model.decision_function(X), A @ model.coef_.T + model.intercept_, atol=1e-8
    )
    assert (cos_cubed_similarity(A, E[:, :4]) > 0.8).all()
    assert model.score(X, y) > 0.85


def test_concepts_that_no_image_shows_are_dropped_first():
    X, E, bank, y = two_spaces()
    E[:, 1] = 0.01 * E[:, 1]
    model = LabelFreeCBM(bank, min_activation=0.25, random_state=0).fit(X, y, encoder_features=E)
    assert [row[:2] for row in model.filter_report_.dropped] == [
        ("b", "activated"),
        ("e", "projected"),
    ]


def test_scores_without_a_bank_take_their_names_from_a_frame(tmp_path):
    X, E, _, y = two_spaces()
    frame = pd.DataFrame(E[:, :5], columns=["long", "wide", "tall", "deep", "hidden"])
    model = LabelFreeCBM(random_state=0).fit(X, y, encoder_features=frame)
    assert model.concept_names_ == ["long", "wide", "tall", "deep"]
    model.save(tmp_path / "model")
    again = LabelFreeCBM.load(tmp_path / "model")
    assert np.array_equal(again.decision_function(X), model.decision_function(X))
    assert repr(again.filter_report_) == repr(model.filter_report_)
    with pytest.warns(UserWarning, match="outside"):
        again.intervene(X[:3], {"long": 9e9})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda X, E, b, y: PostHocCBM(b, residual_l2=0.0).fit(E, y),
            "residual_l2 must be a number",
        ),
        (lambda X, E, b, y: PostHocCBM(b, nec=99).fit(E, y), "nec"),
        (lambda X, E, b, y: PostHocCBM(b, lam=-1.0).fit(E, y), "lam"),
        (lambda X, E, b, y: PostHocCBM(b).fit(E, 0 * y), "at least two classes"),
        (lambda X, E, b, y: PostHocCBM(b).fit(E[:, :3], y), "3 features"),
        (lambda X, E, b, y: LabelFreeCBM(b).fit(X, y, encoder_features=E[:9]), "a row for each"),
        (
            lambda X, E, b, y: LabelFreeCBM(b, min_similarity=1.0).fit(X, y, encoder_features=E),
            "No concept is left after the filter 'projected'",
        ),
        (
            lambda X, E, b, y: LabelFreeCBM(b, min_activation=99.0).fit(X, y, encoder_features=E),
            "No concept is left after the filter 'activated'",
        ),
        (lambda X, E, b, y: LabelFreeCBM(b).fit(X), "requires y"),
        (lambda X, E, b, y: LabelFreeCBM("clip").fit(X, y), "bank must be a ConceptBank"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_named(call, message):
    X, E, bank, y = two_spaces(200)
    with pytest.raises(InputError, match=message):
        call(X, E, bank, y)


def test_a_bank_of_another_encoder():
    X, E, bank, y = two_spaces(100)
    with pytest.raises(SpaceMismatchError):
        LabelFreeCBM(bank).fit(X, y, encoder_features=E, space="other")
    with pytest.raises(SpaceMismatchError):
        PostHocCBM(bank).fit(E, y, space="other")
