"""What must hold for any concepts, images and classes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bottlenecks import ConceptMatrixSearch, measure_leakage, split_rows
from bottlenecks.search import NORMALIZATIONS, RULES
from conceptlab import ConceptBank

rules = st.sampled_from(RULES)
norms = st.sampled_from(NORMALIZATIONS)
seeds = st.integers(0, 10**6)


def problem(seed, n, d, M, K):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(M, d)), rng.normal(size=(K, d))


def bank_of(C):
    return ConceptBank(C, [f"c{j}" for j in range(len(C))], space=None)


@given(seeds, rules, norms, st.integers(1, 9), st.integers(1, 12), st.integers(2, 5))
def test_search_compares_the_rows_that_it_shows(seed, rule, normalize, d, M, K):
    """Predictions follow from predict_concepts and class_scores_ alone, for any sizes."""
    X, C, Y = problem(seed, 15, d, M, K)
    model = ConceptMatrixSearch(bank_of(C), Y, rule=rule, normalize=normalize).fit(X)
    V, T = model.predict_concepts(X), model.class_scores_
    if rule == "max":
        scores = T[:, V.argmax(axis=1)].T
    else:
        V, T = (A**3 if rule == "cubed" else A for A in (V, T))
        lengths = np.linalg.norm(V, axis=1)[:, None] * np.linalg.norm(T, axis=1)
        scores = np.divide(V @ T.T, lengths, out=np.zeros((15, K)), where=lengths > 0)
    best = scores.max(axis=1)
    chosen = scores[np.arange(15), model.predict(X)]
    assert (chosen >= best - 1e-7 * np.abs(best)).all()


@given(seeds, rules, norms)
def test_search_does_not_depend_on_the_order_of_concepts_or_images(seed, rule, normalize):
    X, C, Y = problem(seed, 20, 6, 10, 4)
    order = np.random.default_rng(seed).permutation(10)
    one = ConceptMatrixSearch(bank_of(C), Y, rule=rule, normalize=normalize).fit(X)
    two = ConceptMatrixSearch(bank_of(C[order]), Y, rule=rule, normalize=normalize).fit(X[::-1])
    np.testing.assert_allclose(
        one.decision_function(X), two.decision_function(X), rtol=1e-6, atol=1e-9
    )


@given(seeds)
def test_leakage_does_not_depend_on_units_or_names_of_classes(seed):
    rng = np.random.default_rng(seed)
    c = rng.random((60, 3)) < 0.5
    c[:2] = [[True] * 3, [False] * 3]
    c[58:] = [[True] * 3, [False] * 3]
    y = c[:, 0] + 2 * c[:, 1]
    A = c + 0.3 * rng.normal(size=(60, 3))
    options = {"n_permutations": 2, "measures": ["ICL", "OIS"]}
    one = measure_leakage(A, c, y, **options)
    two = measure_leakage(3 * A - 7, c.astype(int), np.array(list("abcd"))[y], **options)
    for name in one:
        np.testing.assert_allclose(one[name].value, two[name].value, atol=1e-9)
        np.testing.assert_allclose(one[name].null, two[name].null, atol=1e-9)


@given(seeds, st.integers(10, 60))
def test_every_row_is_in_one_part(seed, n):
    X = np.random.default_rng(seed).normal(size=(n, 2))
    parts = list(split_rows(X, fractions=(0.5, 0.25, 0.25), random_state=seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
