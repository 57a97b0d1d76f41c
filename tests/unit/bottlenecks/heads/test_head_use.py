"""Sparse heads by themselves: reasons add up, and setting a column is predicting again."""

import numpy as np
import pandas as pd
import pytest
import torch

from bottlenecks import SparseLinearHead, evaluate
from conceptlab.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 6))
Y = np.array(["ant", "bee", "cat"])[X[:, :3].argmax(axis=1)]
NAMES = ["red", "blue", "round", "flat", "loud", "old"]
HEAD = SparseLinearHead(nec=2).fit(pd.DataFrame(X, columns=NAMES), Y)


def test_contributions_add_up_to_the_logits():
    why = HEAD.explain(pd.DataFrame(X, columns=NAMES))
    sums = why.values.sum(axis=2) + why.bias
    np.testing.assert_allclose(sums, HEAD.decision_function(pd.DataFrame(X, columns=NAMES)))
    assert why.concept_names == NAMES
    pair = SparseLinearHead(nec=2).fit(X, Y == "ant")
    logits = pair.explain(X).logits
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], pair.decision_function(X))
    assert pair.concept_names_[:2] == ["concept0", "concept1"]


@pytest.mark.parametrize("policy", ["uncertainty", "random", "gain", lambda s: -s.activations])
def test_an_intervention_is_a_prediction_on_other_columns(policy):
    rows = pd.DataFrame(X[:20], columns=NAMES)
    changed = rows.assign(red=HEAD.activation_levels_[0, 1], round=0.5)
    found = HEAD.intervene(rows, {"red": True, "round": 0.5}, policy=policy)
    np.testing.assert_allclose(found.activations, changed)
    assert found.predicted.tolist() == HEAD.predict(changed).tolist()
    assert not found.outside.any()
    with pytest.warns(UserWarning, match="outside"):
        assert HEAD.intervene(rows, {"red": 99.0}).outside.sum() == 20
    with pytest.raises(InputError, match=r"concept.*red"):
        HEAD.intervene(rows, {"reed": 1.0})


def test_levels_are_quantiles_also_of_many_rows_and_other_kinds():
    np.testing.assert_allclose(HEAD.activation_levels_, np.quantile(X, (0.05, 0.95), axis=0).T)
    np.testing.assert_array_equal(HEAD.activation_range_, np.stack([X.min(0), X.max(0)], axis=1))
    many = RNG.normal(size=(9000, 2)).astype(np.float32)
    head = SparseLinearHead(lam=0.1, chunk_rows=1000).fit(torch.tensor(many), many[:, 0] > 0)
    np.testing.assert_array_equal(head.activation_range_[:, 1], many.max(axis=0))
    np.testing.assert_allclose(head.activation_levels_, [[-1.64, 1.64]] * 2, atol=0.1)


def test_the_truth_by_hand_gives_the_class():
    truth = X[:, :6] + np.eye(6)[np.searchsorted(["ant", "bee", "cat"], Y)] * 9
    curve = HEAD.intervention_curve(pd.DataFrame(X, columns=NAMES), truth, Y)
    assert curve.accuracy[0] == pytest.approx(HEAD.score(pd.DataFrame(X, columns=NAMES), Y))
    assert curve.accuracy[-1] == 1.0


def test_columns_come_back_and_pictures_are_drawn(tmp_path):
    rows = pd.DataFrame(X, columns=NAMES)
    concepts = SparseLinearHead(nec=2).fit(torch.tensor(X), Y).predict_concepts(torch.tensor(X))
    assert torch.is_tensor(concepts)
    np.testing.assert_array_equal(concepts, X)
    again = SparseLinearHead.load(HEAD.save(tmp_path / "head"))
    np.testing.assert_array_equal(again.activation_levels_, HEAD.activation_levels_)
    assert again.plot("weights").figure is not None
    assert again.plot("waterfall", rows, sample=3).figure is not None
    assert again.plot("intervention", rows, X > 0, Y).figure is not None
    with pytest.raises(InputError, match="needs C and y"):
        again.plot("intervention", rows)
    with pytest.raises(InputError, match="weights"):
        again.plot("weight")


def test_evaluate_takes_a_head():
    rows = pd.DataFrame(X, columns=NAMES)
    report = evaluate(HEAD, rows, Y, {"red": X[:, 0] > 0}, n_random=1, n_permutations=0)
    assert report.nec == 2
    assert report.concept_names == NAMES
    assert report.fidelity.auc.tolist() == [1.0]
