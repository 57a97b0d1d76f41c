"""Concept Matrix Search against the double loop that its paper's code runs, written out."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from bottlenecks import search
from bottlenecks.search import NORMALIZATIONS, RULES, ConceptMatrixSearch
from conceptlab import ConceptBank
from conceptlab.errors import CheckpointError, InputError, SpaceMismatchError

EPS = 1e-8


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(n=120, d=16, M=40, K=7, seed=0, gap=1.0):
    """Images, concepts and classes as unit vectors; `gap` is what all of a kind share."""
    rng = np.random.default_rng(seed)
    X = unit(rng.normal(size=(n, d)) + gap * rng.normal(size=d))
    C = unit(rng.normal(size=(M, d)) + gap * rng.normal(size=d))
    Y = unit(rng.normal(size=(K, d)) + gap * rng.normal(size=d))
    return X, C, Y


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def scores(rows, concepts):
    """Number by number, so that equal concepts and classes have equal scores to the bit."""
    return [[dot(row, concept) for concept in concepts] for row in rows]


def normalized(A, how):
    A = [list(map(float, row)) for row in A]
    columns = list(zip(*A, strict=True))
    if how == "row":
        return [[a / (sum(row) + EPS) for a in row] for row in A]
    if how == "column":
        return [[a / (sum(c) + EPS) for a, c in zip(row, columns, strict=True)] for row in A]
    if how == "center":
        return [[a - sum(c) / len(c) for a, c in zip(row, columns, strict=True)] for row in A]
    return A


def double_loop(V, T, rule):
    """Over images and classes, number by number; the first of equal scores wins."""
    predicted = []
    for v in V:
        best, winner = -np.inf, 0
        strongest = max(range(len(v)), key=lambda j: v[j])  # the first of equal ones
        for c, t in enumerate(T):
            if rule == "max":
                score = t[strongest]
            else:
                a, b = (([x**3 for x in r] if rule == "cubed" else r) for r in (v, t))
                lengths = np.sqrt(dot(a, a)) * np.sqrt(dot(b, b))
                score = dot(a, b) / lengths if lengths > 0 else 0.0
            if score > best:
                best, winner = score, c
        predicted.append(winner)
    return predicted


@pytest.mark.parametrize("gap", [0.0, 1.0])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_every_prediction_is_that_of_the_double_loop(rule, normalize, gap):
    X, C, Y = problem(gap=gap)
    bank = ConceptBank(C, [f"c{j}" for j in range(len(C))], space=None)
    model = ConceptMatrixSearch(bank, Y, rule=rule, normalize=normalize).fit(X)
    V = normalized(X @ C.T, normalize)
    T = normalized(Y @ C.T, normalize)
    expected = double_loop(V, T, rule)
    assert model.predict(X).tolist() == expected
    assert len(set(expected)) > 1
    np.testing.assert_allclose(model.predict_concepts(X), V, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.class_scores_, T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_concepts_with_intercepts_and_few_concepts(rule, normalize):
    """More and fewer concepts than features: the factor of the metric has either shape."""
    for M in (3, 60):
        X, C, Y = problem(M=M, seed=M)
        b = np.random.default_rng(M).normal(size=M)
        bank = ConceptBank(C, [f"c{j}" for j in range(M)], space=None, intercepts=b)
        model = ConceptMatrixSearch(bank, Y, rule=rule, normalize=normalize).fit(X)
        V, T = normalized(X @ C.T + b, normalize), normalized(Y @ C.T + b, normalize)
        assert model.predict(X).tolist() == double_loop(V, T, rule)


@pytest.mark.parametrize("rule", RULES)
def test_scores_are_the_cosines_of_the_loop(rule):
    X, C, Y = problem()
    model = ConceptMatrixSearch(
        ConceptBank(C, list(map(str, range(len(C)))), space=None), Y, rule=rule
    ).fit(X)
    V, T = (np.array(normalized(A @ C.T, "center")) for A in (X, Y))
    if rule == "max":
        expected = T[:, V.argmax(axis=1)].T
    else:
        V, T = (A**3 if rule == "cubed" else A for A in (V, T))
        expected = unit(V) @ unit(T).T
    np.testing.assert_allclose(model.decision_function(X), expected, atol=1e-12)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_ties_go_to_the_first(rule, normalize):
    """Classes come three times, concepts twice; rounding must not choose among them."""
    X, C, Y = problem(n=200, K=3)
    C, Y = np.concatenate([C, C]), np.concatenate([Y, Y, Y])
    bank = ConceptBank(C, list(map(str, range(len(C)))), space=None)
    model = ConceptMatrixSearch(bank, Y, rule=rule, normalize=normalize).fit(X)
    V, T = (normalized(scores(A, C), normalize) for A in (X, Y))
    found = model.predict(X)
    assert found.max() <= 2
    assert found.tolist() == double_loop(V, T, rule)


@pytest.mark.parametrize("rule", RULES)
def test_rows_and_classes_without_any_score(rule):
    X, C, Y = problem()
    X[3], Y[5] = 0.0, 0.0
    bank = ConceptBank(C, list(map(str, range(len(C)))), space=None)
    model = ConceptMatrixSearch(bank, Y, rule=rule, normalize="none").fit()
    expected = double_loop(scores(X, C), scores(Y, C), rule)
    assert model.predict(X).tolist() == expected
    assert np.isfinite(model.decision_function(X)).all()


@pytest.mark.parametrize("rule", RULES)
def test_parts_change_nothing(rule, monkeypatch):
    X, C, Y = problem()
    bank = ConceptBank(C, list(map(str, range(len(C)))), space=None)
    model = ConceptMatrixSearch(bank, Y, rule=rule).fit(X)
    whole = model.decision_function(X)
    monkeypatch.setattr(search, "_CELLS", 7 * len(C))
    np.testing.assert_allclose(model.decision_function(X), whole, rtol=1e-12, atol=1e-14)


def test_the_closed_form_needs_nothing_of_the_size_of_the_concepts():
    """Predictions stay when all M-sized arrays are gone, so no n × M scores can be made."""
    X, C, Y = problem(n=500, d=8, M=3000, K=4)
    bank = ConceptBank(C, list(map(str, range(len(C)))), space=None)
    model = ConceptMatrixSearch(bank, Y).fit(X)
    expected = model.decision_function(X)
    model.concept_maps_ = model.class_scores_ = model.bank = None
    assert np.array_equal(model.decision_function(X), expected)
    arrays = [v for v in vars(model).values() if isinstance(v, np.ndarray) and v is not X]
    assert max(a.size for a in arrays) <= 9 * 9


def test_a_tight_frame_makes_it_plain_zero_shot():
    """CᵀC = αI: the metric is the identity, as the notes derive."""
    rng = np.random.default_rng(0)
    X, _, Y = problem()
    Q, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    C = np.concatenate([Q, -Q])
    bank = ConceptBank(C, list(map(str, range(32))), space=None)
    model = ConceptMatrixSearch(bank, Y, normalize="none").fit()
    np.testing.assert_allclose(model.decision_function(X), unit(X) @ unit(Y).T, atol=1e-12)


def test_centring_helps_across_a_gap():
    """Planted: images are their class plus what all images share."""
    rng = np.random.default_rng(1)
    d, K, n = 32, 8, 400
    Y, C = unit(rng.normal(size=(K, d))), unit(rng.normal(size=(100, d)))
    y = rng.integers(K, size=n)
    X = unit(Y[y] + 0.1 * rng.normal(size=(n, d)) + 4 * rng.normal(size=d) / np.sqrt(d))
    Y = unit(Y + 4 * rng.normal(size=d) / np.sqrt(d))
    bank = ConceptBank(C, list(map(str, range(100))), space=None)
    found = {
        how: ConceptMatrixSearch(bank, Y, normalize=how).fit(X).score(X, y)
        for how in ("none", "center")
    }
    assert found["center"] > 0.95
    assert found["center"] > found["none"] + 0.1


def test_class_means_and_names():
    X, C, Y = problem(n=300, gap=0.0)
    y = np.array(list("gfedcba"))[np.argmax(X @ Y.T, axis=1)]
    bank = ConceptBank(C, [f"c{j}" for j in range(len(C))], space="A")
    by_labels = ConceptMatrixSearch(bank).fit(X, y)
    assert by_labels.classes_.tolist() == list("abcdefg")
    means = np.stack([X[y == label].mean(axis=0) for label in "abcdefg"])
    np.testing.assert_allclose(by_labels.class_vectors_, means, atol=1e-12)
    given = ConceptMatrixSearch(bank, dict(zip("abcdefg", means, strict=True))).fit(X)
    assert given.predict(X).tolist() == by_labels.predict(X).tolist()
    names = ConceptBank(means[::-1], list("gfedcba"), space="A")
    again = ConceptMatrixSearch(bank, names).fit(X)
    assert again.predict(X).tolist() == by_labels.predict(X).tolist()
    with pytest.raises(SpaceMismatchError):
        ConceptMatrixSearch(bank, ConceptBank(means, list("abcdefg"), space="B")).fit(X)


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
def test_like_in_like_out_and_files(kind, tmp_path):
    X, C, Y = problem()
    bank = ConceptBank(C, [f"c{j}" for j in range(len(C))], space=None, meta={"source": "test"})
    for rule in RULES:
        model = ConceptMatrixSearch(bank, Y, rule=rule, normalize="row").fit(X)
        rows = torch.tensor(X).to(getattr(torch, kind))
        scores = model.decision_function(rows)
        assert scores.dtype == rows.dtype
        assert model.predict_concepts(rows).dtype == rows.dtype
        model.save(tmp_path / rule)
        again = ConceptMatrixSearch.load(tmp_path / rule)
        assert torch.equal(again.decision_function(rows), scores)
        assert again.bank == bank
        assert again.get_params().keys() == model.get_params().keys()
        assert np.array_equal(again.fit(X).decision_function(X), model.decision_function(X))


def test_cosine_ignores_length_and_intercepts():
    X, C, Y = problem()
    bank = ConceptBank(3 * C, list(map(str, range(len(C)))), space=None, intercepts=np.ones(len(C)))
    plain = ConceptBank(C, bank.names, space=None)
    one = ConceptMatrixSearch(bank, 2 * Y, similarity="cosine").fit(5 * X)
    two = ConceptMatrixSearch(plain, Y).fit(X)
    np.testing.assert_allclose(one.decision_function(7 * X), two.decision_function(X), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X, C, Y: ConceptMatrixSearch(C, Y).fit(), r"needs the mean score.*fit\(X\)"),
        (lambda X, C, Y: ConceptMatrixSearch(C).fit(X), "requires y to be passed"),
        (lambda X, C, Y: ConceptMatrixSearch(C).fit(X, np.ones(len(X))), "at least two classes"),
        (lambda X, C, Y: ConceptMatrixSearch(C, Y[:1]).fit(X), "at least two classes, got 1"),
        (lambda X, C, Y: ConceptMatrixSearch(C, Y[:, :5]).fit(X), "class vectors have 5 features"),
        (lambda X, C, Y: ConceptMatrixSearch(C, Y[0]).fit(X), r"axes \(classes, features\)"),
        (lambda X, C, Y: ConceptMatrixSearch(C, Y, rule="most").fit(X), "Unknown rule 'most'"),  # type: ignore[arg-type]
        (lambda X, C, Y: ConceptMatrixSearch(C, Y, normalize="centre").fit(X), "'center'"),  # type: ignore[arg-type]
        (lambda X, C, Y: ConceptMatrixSearch(X, Y).fit(X), "bank must be a ConceptBank"),
        (lambda X, C, Y: ConceptMatrixSearch(C, Y).fit(X[:, :9]), "X has 9 features"),
        (lambda X, C, Y: ConceptMatrixSearch(C, Y * np.nan).fit(X), "holds NaN or infinity"),
        (lambda X, C, Y: ConceptMatrixSearch(C, {"a": Y[0], "b": Y[1, :3]}).fit(X), "same length"),
    ],
)
def test_bad_input_is_named(make, message):
    X, C, Y = problem()
    bank = ConceptBank(C, list(map(str, range(len(C)))), space=None)
    with pytest.raises(InputError, match=message):
        make(X, bank, Y)


def test_unfitted_and_wrong_file(tmp_path):
    with pytest.raises(NotFittedError):
        ConceptMatrixSearch().predict(np.ones((2, 2)))
    with pytest.raises(CheckpointError):
        ConceptMatrixSearch.load(tmp_path / "nothing")
