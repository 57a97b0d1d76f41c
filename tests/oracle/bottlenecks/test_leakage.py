"""Leakage and measures against closed forms, and against their definitions written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score, roc_auc_score

from bottlenecks.information import mutual_information
from bottlenecks.leakage import (
    concept_task_leakage,
    interconcept_leakage,
    measure_leakage,
    niche_impurity,
    oracle_impurity,
)
from bottlenecks.measures import (
    auc_matrix,
    completeness,
    name_fidelity,
    number_of_contributing_concepts,
)
from conceptlab.errors import InputError


def planted(n=1500, k=4, seed=0):
    """Independent concepts, a class made of two of them, pure noisy outputs."""
    rng = np.random.default_rng(seed)
    c = rng.random((n, k)) < [0.5, 0.4, 0.3, 0.6][:k]
    y = c[:, 0] + 2 * c[:, 1]
    return c + 0.4 * rng.normal(size=(n, k)), c, y


# ------------------------------------------------------------------ mutual information
def test_discrete_information_is_that_of_the_table():
    table = np.array([[30, 10], [5, 55], [20, 20]])
    a = np.repeat([0, 0, 1, 1, 2, 2], table.ravel())
    b = np.repeat([0, 1, 0, 1, 0, 1], table.ravel())
    p = table / table.sum()
    expected = sum(
        p[i, j] * np.log(p[i, j] / (p[i].sum() * p[:, j].sum())) for i in range(3) for j in range(2)
    )
    assert mutual_information(a, b) == pytest.approx(expected, rel=1e-12)
    words = np.array(["x", "y", "z"])[a]
    assert mutual_information(words, b) == pytest.approx(mutual_info_score(a, b), rel=1e-9)
    assert mutual_information(a, a) == pytest.approx(-(p.sum(1) * np.log(p.sum(1))).sum())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60))
def test_discrete_information_agrees_with_scikit_learn_on_any_counts(pairs):
    a, b = np.array(pairs).T
    assert mutual_information(a, b) == pytest.approx(mutual_info_score(a, b), abs=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_two_gaussians(rho):
    """I = -1/2 log(1 - ρ²), Cover and Thomas, example 8.5.1."""
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(2, 4000))
    found = mutual_information(x, rho * x + np.sqrt(1 - rho**2) * z)
    assert found == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.04)


def test_gaussian_and_a_bit():
    """x ~ N(±m, 1) by a fair bit: I = h(x) - h(x | bit), by quadrature."""
    m = 1.2
    density = lambda x: 0.5 * (norm.pdf(x - m) + norm.pdf(x + m))  # noqa: E731
    entropy = quad(lambda x: -density(x) * np.log(density(x)), -12, 12)[0]
    expected = entropy - 0.5 * np.log(2 * np.pi * np.e)
    rng = np.random.default_rng(2)
    bit = rng.integers(2, size=4000)
    x = rng.normal(size=4000) + m * (2 * bit - 1)
    assert mutual_information(x, bit) == pytest.approx(expected, abs=0.03)
    assert mutual_information(bit, x) == mutual_information(x, bit)


# ----------------------------------------------------------------------- the four measures
def test_nothing_leaks_when_outputs_are_the_concepts():
    _, c, y = planted()
    assert concept_task_leakage(c, c, y).tolist() == [0.0] * 4
    assert not interconcept_leakage(c, c).any()
    assert oracle_impurity(c, c) == 0.0
    assert niche_impurity(c, c) == pytest.approx(0.5, abs=0.03)
    assert niche_impurity(c[:, :1], c[:, :1]) == pytest.approx(0.5, abs=0.03)


def test_task_leakage_of_an_output_that_holds_the_class():
    """ĉ = (c, y) as one code: I(ĉ; y) = H(y), so the leakage is 1 - I(c; y) / H(y)."""
    _, c, y = planted()
    found = concept_task_leakage(10 * c + y[:, None], c, y)
    entropy = mutual_info_score(y, y)
    expected = [1 - mutual_info_score(c[:, j], y) / entropy for j in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    labels = np.array(["a", "b", "c", "d"])[y]
    np.testing.assert_allclose(concept_task_leakage(10 * c + y[:, None], c, labels), expected)


def test_leakage_between_concepts_is_the_double_loop():
    _, c, y = planted()
    codes = 2 * c + (y[:, None] > 1)
    found = interconcept_leakage(codes, c)
    for i in range(4):
        for j in range(4):
            both = [
                normalized_mutual_info_score(v[:, i], v[:, j], average_method="geometric")
                for v in (codes, c)
            ]
            expected = 0.0 if i == j else max(0.0, both[0] - both[1])
            assert found[i, j] == pytest.approx(expected, abs=1e-9)
    assert found.max() > 0.1


def test_continuous_outputs_are_cut_into_bins_of_equal_size():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 1))
    c = rng.random((800, 2)) < 0.5
    found = interconcept_leakage(np.hstack([x, np.exp(x)]), c, n_bins=4)
    assert found[0, 1] == pytest.approx(1.0, abs=0.01)  # a monotone map has the same bins


def test_oracle_impurity_is_the_formula():
    A, c, _ = planted()
    A = A + 0.7 * A[:, [1, 0, 3, 2]]
    pi, pi_hat = np.empty((4, 4)), np.empty((4, 4))
    for i in range(4):
        for j in range(4):
            a, b = roc_auc_score(c[:, j], A[:, i]), roc_auc_score(c[:, j], c[:, i])
            pi_hat[i, j], pi[i, j] = max(a, 1 - a), max(b, 1 - b)
    expected = 2 / 4 * np.sqrt(((pi_hat - pi) ** 2).sum())
    assert oracle_impurity(A, c) == pytest.approx(expected, rel=1e-12)
    assert oracle_impurity(-A, c) == pytest.approx(expected, rel=1e-12)


def test_niche_impurity_is_the_definition():
    A, c, _ = planted(600)
    A = A + 0.7 * A[:, [1, 0, 3, 2]]
    order = np.random.default_rng(3).permutation(600)
    fit, test = order[:300], order[300:]
    Z = (A - A.mean(0)) / A.std(0)
    probe = Ridge(alpha=1e-3 * 300, fit_intercept=False).fit(Z[fit], c[fit] - c[fit].mean(0))
    areas = []
    for beta in np.arange(0.025, 1, 0.05):
        for j in range(4):
            rows = Z[test].copy()
            for i in range(4):
                if abs(np.corrcoef(A[:, i], c[:, j])[0, 1]) > beta:
                    rows[:, i] = 0.0
            areas.append(roc_auc_score(c[test][:, j], probe.predict(rows)[:, j]))
    assert niche_impurity(A, c, random_state=3) == pytest.approx(np.mean(areas), rel=1e-9)


def test_niches_see_a_concept_that_hides_in_other_outputs():
    """Output 0 carries concept 0 faintly, outputs 1 and 2 their own and half of it each."""
    pure, c, _ = planted(seed=4)
    mixed = pure.copy()
    mixed[:, 1:3] += c[:, :1]
    mixed[:, 0] += 2 * np.random.default_rng(0).normal(size=len(c))
    assert niche_impurity(mixed, c) > niche_impurity(pure, c) + 0.05
    network = niche_impurity(mixed[:400], c[:400], probe="mlp", n_thresholds=5)
    assert network > niche_impurity(pure[:400], c[:400], probe="mlp", n_thresholds=5) + 0.03


# --------------------------------------------------------------------------- baseline
def test_baseline_tells_noise_from_leakage():
    pure, c, y = planted(500)
    given = {"n_permutations": 7, "measures": ("CTL", "ICL", "OIS", "NIS")}
    scores = measure_leakage(pure, c, y, concept_names=list("abcd"), **given)
    assert list(scores) == ["CTL", "ICL", "OIS", "NIS"]
    for score in scores.values():
        assert abs(score.excess) < 0.04, score.name
        assert score.p_value > 0.05
    leaking = pure + 0.5 * y[:, None]
    scores = measure_leakage(leaking, c, y, **given)
    for name in ("CTL", "ICL", "OIS"):
        assert scores[name].excess > 0.05, name
        assert scores[name].p_value == pytest.approx(1 / 8)
    assert scores["CTL"].by_concept.shape == (4,)
    assert scores["CTL"].by_concept.mean() == pytest.approx(scores["CTL"].value)
    frame = scores.to_frame()
    assert list(frame.columns) == ["value", "baseline", "baseline_sd", "excess", "p_value"]
    assert "CTL" in repr(scores)
    with pytest.raises(InputError, match="Did you mean 'CTL'"):
        scores["CTLL"]


def test_same_seed_same_numbers_and_tensors():
    pure, c, y = planted(200)
    one = measure_leakage(pure, c, y, n_permutations=3, random_state=5).to_frame()
    assert list(one.index) == ["CTL", "ICL", "OIS", "NIS", "JTL"]
    two = measure_leakage(
        torch.tensor(pure), torch.tensor(c), torch.tensor(y), n_permutations=3, random_state=5
    )
    assert one.equals(two.to_frame())
    none = measure_leakage(pure, c, y, n_permutations=0, measures=["OIS"])
    assert np.isnan(none["OIS"].p_value)


# --------------------------------------------------------------------------- measures
@given(st.integers(0, 10_000))
def test_areas_agree_with_scikit_learn_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    S = rng.integers(0, 5, size=(30, 3)).astype(float)
    c = rng.random((30, 2)) < 0.5
    c[0], c[1] = True, False
    found = auc_matrix(S, c)
    for i in range(3):
        for j in range(2):
            assert found[i, j] == pytest.approx(roc_auc_score(c[:, j], S[:, i]), abs=1e-12)
    np.testing.assert_allclose(name_fidelity(S[:, :2], c), np.diag(found[:2]), atol=1e-15)


def test_contributing_concepts_by_a_loop():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(20, 7))
    W = rng.normal(size=(3, 7)) * (rng.random((3, 7)) < 0.6)
    counts = []
    for a in A:
        for w in W:
            parts = sorted(np.abs(w * a), reverse=True)
            m = 0
            while m < 7 and sum(parts[:m]) < 0.95 * sum(parts):
                m += 1
            counts.append(m)
    assert number_of_contributing_concepts(A, W) == pytest.approx(np.mean(counts))
    assert number_of_contributing_concepts(A, W, share=1.0) == pytest.approx(
        (W != 0).sum(axis=1).mean()
    )
    assert number_of_contributing_concepts(A, 0 * W) == 0


def test_completeness_is_relative_to_chance():
    assert completeness(0.9, 0.9, 0.1) == 1.0
    assert completeness(0.1, 0.9, 0.1) == 0.0
    assert np.isnan(completeness(0.5, 0.1, 0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A, c, y: concept_task_leakage(A, c[:9], y), "shape"),
        (lambda A, c, y: concept_task_leakage(A, c, 0 * y), "of one class"),
        (lambda A, c, y: measure_leakage(A, c, y[:5]), "5 labels for 200"),
        (lambda A, c, y: measure_leakage(A, c, y, measures=["XYZ"]), "Unknown measure"),
        (lambda A, c, y: measure_leakage(A, c, y, n_permutations=-1), "n_permutations"),
        (lambda A, c, y: measure_leakage(A, A, y), "expected two, absent and present"),
        (lambda A, c, y: oracle_impurity(A, c & False), "the same in all 200 samples"),
        (lambda A, c, y: oracle_impurity(A * np.nan, c), "NaN"),
        (lambda A, c, y: niche_impurity(A, c, probe="tree"), "Unknown probe"),  # type: ignore[arg-type]
        (lambda A, c, y: niche_impurity(A[:4], c[:4]), "8 samples"),
        (lambda A, c, y: interconcept_leakage(A, c, n_bins=1), "n_bins"),
        (lambda A, c, y: auc_matrix(A[0], c), "must be a matrix"),
        (lambda A, c, y: name_fidelity(A[:, :2], c), "one column a concept"),
        (lambda A, c, y: number_of_contributing_concepts(A, c[:, :2]), "2 columns for 4"),
        (lambda A, c, y: number_of_contributing_concepts(A, c, share=0.0), "share"),
        (lambda A, c, y: mutual_information(A[:, 0], y[:3]), "equally many"),
        (lambda A, c, y: mutual_information(A, y), "one value a sample"),
    ],
)
def test_bad_input_is_named(call, message):
    A, c, y = planted(200)
    with pytest.raises(InputError, match=message):
        call(A, c, y)


def test_interconcept_leakage_of_a_model_is_the_mean_over_pairs():
    A, c, y = planted(200)
    k = A.shape[1]
    found = measure_leakage(A, c, y, measures=["ICL"], n_permutations=0)["ICL"].value
    assert found == pytest.approx(interconcept_leakage(A, c).sum() / (k * (k - 1)))
