"""Concept Matrix Search: reasons add up, and setting concepts is scoring again."""

import numpy as np
import pytest

from bottlenecks import ConceptMatrixSearch
from conceptlab import ConceptBank
from conceptlab.errors import InputError

RULES = ("similarity", "cubed", "max")
NORMALIZATIONS = ("none", "row", "column", "center")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)) + 0.4
    y = np.array(["ant", "bee", "cat"])[X[:, :3].argmax(axis=1)]
    bank = ConceptBank(rng.normal(size=(9, 6)), [f"c{j}" for j in range(9)], space=None)
    return X, y, bank


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_contributions_add_up_to_the_score(data, rule, normalize):
    X, y, bank = data
    model = ConceptMatrixSearch(bank, rule=rule, normalize=normalize).fit(X, y)
    why = model.explain(X)
    scores = model.decision_function(X)
    np.testing.assert_allclose(why.logits, scores, atol=1e-12)
    np.testing.assert_allclose(why.values.sum(axis=2), scores, atol=1e-12)
    assert why.predicted.tolist() == model.predict(X).tolist()


@pytest.mark.parametrize("rule", ["similarity", "cubed"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_an_intervention_is_the_search_on_other_scores(data, rule, normalize):
    X, y, bank = data
    model = ConceptMatrixSearch(bank, rule=rule, normalize=normalize).fit(X, y)
    V = model.predict_concepts(X)
    wanted = V.copy()
    beyond = 1.5 * np.abs(model.class_scores_[:, 2]).max()
    wanted[:, 2], wanted[:, 5] = beyond, model.class_scores_[:, 5].max()
    with pytest.warns(UserWarning, match="outside"):
        found = model.intervene(X, {"c2": beyond, "c5": True})
    assert found.outside[:, 2].all()
    assert not found.outside[:, 5].any()
    np.testing.assert_allclose(found.activations_before, V, atol=1e-12)
    np.testing.assert_allclose(found.activations, wanted, atol=1e-12)
    power = 3 if rule == "cubed" else 1
    left, right = wanted**power, model.class_scores_**power
    cosines = (left @ right.T) / np.outer(
        np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    )
    assert found.predicted.tolist() == model.classes_[cosines.argmax(axis=1)].tolist()
    assert found.predicted_before.tolist() == model.predict(X).tolist()


def test_the_truth_by_hand_gives_the_class(data):
    X, y, bank = data
    model = ConceptMatrixSearch(bank).fit(X, y)
    truth = model.class_scores_[np.searchsorted(model.classes_, y)]
    curve = model.intervention_curve(X, truth, y)
    assert curve.accuracy[0] == pytest.approx(model.score(X, y))
    assert curve.accuracy[-1] == 1.0


def test_the_strongest_concept_cannot_be_set(data):
    X, y, bank = data
    model = ConceptMatrixSearch(bank, rule="max").fit(X, y)
    with pytest.raises(InputError, match="strongest concept alone decides"):
        model.intervene(X, {"c2": 1.0})
    with pytest.raises(InputError, match="c2"):
        ConceptMatrixSearch(bank).fit(X, y).intervene(X, {"c22": 1.0})


def test_plots(data):
    X, y, bank = data
    model = ConceptMatrixSearch(bank).fit(X, y)
    for kind in ("weights", "waterfall"):
        assert model.plot(kind, X).figure is not None
    assert model.plot("intervention", X, np.ones((40, 9), dtype=bool), y) is not None
    with pytest.raises(InputError, match="needs X"):
        model.plot("waterfall")
    with pytest.raises(InputError, match="weights"):
        model.plot("weight")
