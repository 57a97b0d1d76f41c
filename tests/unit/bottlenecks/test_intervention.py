"""Contributions, interventions and their curve, on any fitted bottleneck."""

import numpy as np
import pytest
import torch
from planted_concepts import planted

from bottlenecks import LabelFreeCBM, PostHocCBM, SparseCBM
from bottlenecks.explaining import Contributions
from conceptlab.errors import InputError

S, Y, TRUTH, TABLE = planted()
MODEL = SparseCBM(nec=2, max_epochs=8, random_state=0).fit(S, Y)
PAIR = SparseCBM(nec=2, max_epochs=8, random_state=0).fit(S, Y > 2)


# ------------------------------------------------------------------ contributions
def test_contributions_add_up_to_the_logits():
    for model in (MODEL, PAIR):
        why = model.explain(S)
        sums = why.values.sum(axis=-1) + why.bias
        np.testing.assert_allclose(why.logits, sums, rtol=1e-13, atol=1e-13)
        decided = sums[:, 1] - sums[:, 0] if model is PAIR else sums
        np.testing.assert_allclose(model.decision_function(S), decided, rtol=1e-12, atol=1e-12)
        assert (why.predicted == model.predict(S)).all()


def test_table_of_a_row_sums_to_its_logit():
    why = MODEL.explain(S[:6])
    frame = why.to_frame()
    totals = frame.groupby("sample")["contribution"].sum()
    np.testing.assert_allclose(totals, why.logits.max(axis=1))
    assert (frame["concept"] != "(residual)").all()
    one = why.to_frame(2, target=4, top=1)
    assert set(one["class"]) == {4}
    assert len(one) <= 2


def test_residual_is_part_of_the_sum_and_its_share_is_told():
    why = Contributions(
        np.array([[2.0]]),
        np.array([[1.0], [0.0]]),
        np.zeros(2),
        np.array([[6.0, 1.0]]),
        ["a"],
        np.array([0, 1]),
    )
    assert why.logits.tolist() == [[8.0, 1.0]]
    assert why.residual_share.tolist() == [0.75]
    assert why.to_frame(0)["contribution"].tolist() == [2.0, 0.0, 6.0]
    assert why.plot(0).get_yticklabels()[-2].get_text() == "residual"


def test_views_of_contributions_are_escaped():
    bad = Contributions(
        np.ones((1, 1)), np.ones((2, 1)), np.zeros(2), None, ["<script>"], np.array(["<b>", "c"])
    )
    assert "<script>" not in bad._repr_html_()
    assert "<b>&" not in bad._repr_html_()
    with pytest.raises(InputError, match="There is no row 7; 1 were explained"):
        bad.of(7)
    with pytest.raises(InputError, match="Unknown class 'd'"):
        bad.of(0, "d")


# ------------------------------------------------------------------ interventions
@pytest.mark.parametrize("policy", ["uncertainty", "random", "gain", lambda s: -s.activations])
@pytest.mark.parametrize("model", [MODEL, PAIR], ids=["classes", "binary"])
def test_rank_one_updates_are_the_head_on_the_changed_activations(model, policy):
    values = {f"concept{j}": np.linspace(0, 1, len(S)) for j in range(6)}
    for budget in (0, 1, 4, 6, 50, None):
        found = model.intervene(S, values, policy=policy, budget=budget)
        expected = found.activations @ model.coef_.T + model.intercept_
        np.testing.assert_allclose(found.logits, expected, atol=1e-10)
        m = 6 if budget is None else min(budget, 6)
        assert found.order.shape == (len(S), m)
        assert all(len(set(row)) == m for row in found.order.tolist())
        kept = np.ones(S.shape, dtype=bool)
        np.put_along_axis(kept, found.order, False, axis=1)
        assert (found.activations == found.activations_before)[kept].all()


@pytest.mark.parametrize("residual", [False, True])
def test_a_residual_stays_where_it_is(residual):
    model = PostHocCBM(residual=residual, nec=2).fit(S, Y)
    why = model.explain(S)
    assert (why.residual is None) == (not residual)
    np.testing.assert_allclose(why.logits, model.decision_function(S), rtol=1e-9, atol=1e-9)
    found = model.intervene(S, {"concept0": True, "concept4": False}, policy="gain")
    through = found.activations @ model.coef_.T + model.intercept_
    expected = through + why.residual if residual else through
    np.testing.assert_allclose(found.logits, expected, atol=1e-9)
    levels = np.quantile(found.activations_before, (0.05, 0.95), axis=0)
    np.testing.assert_allclose(found.activations[:, 0], levels[1, 0])
    np.testing.assert_allclose(found.activations[:, 4], levels[0, 4])


def test_a_concept_without_labels_can_be_put_right_and_drawn():
    model = LabelFreeCBM(nec=3, random_state=0).fit(S, Y)
    name = model.concept_names_[0]
    found = model.intervene(S, {name: True}, policy="uncertainty", budget=1)
    through = found.activations @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(found.logits, through, atol=1e-9)
    top = np.quantile(found.activations_before[:, 0], 0.95)
    np.testing.assert_allclose(found.activations[:, 0], top)
    np.testing.assert_allclose(
        model.explain(S).values.sum(axis=-1) + model.intercept_, model.decision_function(S)
    )
    curve = model.intervention_curve(S, TRUTH[:, : len(model.concept_names_)], Y, policy="random")
    assert curve.accuracy[0] == model.score(S, Y)
    assert model.plot("weights") is not None


def test_no_intervention_is_the_prediction():
    found = MODEL.intervene(S, {"concept0": True}, budget=0)
    np.testing.assert_allclose(found.proba, MODEL.predict_proba(S), atol=1e-12)
    assert not found.changed.any()


def test_true_and_false_are_the_levels():
    found = MODEL.intervene(S, {"concept0": True, "concept1": np.zeros(len(S), dtype=bool)})
    A = MODEL.predict_concepts(S)
    assert (found.activations[:, 0] == np.median(A[:, 0][A[:, 0] > 0])).all()
    assert (found.activations[:, 1] == 0).all()
    assert not found.outside.any()


def test_outside_of_what_was_seen_is_allowed_and_flagged():
    with pytest.warns(UserWarning, match=r"3 value\(s\) lie outside .*\['concept1'\]"):
        found = MODEL.intervene(S[:3], {"concept0": 0.5, "concept1": 99.0})
    assert found.outside.sum() == 3
    assert found.outside[:, 1].all()
    assert (found.activations[:, 1] == 99).all()
    assert found.to_frame().query("outside")["concept"].unique().tolist() == ["concept1"]


def test_policies_choose_what_they_say():
    values = dict.fromkeys(MODEL.concept_names_, False)
    margin = np.abs((S - MODEL.score_mean_) / MODEL.score_scale_ - MODEL.threshold_)
    used = (MODEL.coef_ != 0).any(axis=0)
    first = MODEL.intervene(S, values, policy="uncertainty", budget=1).order[:, 0]
    assert (first == np.where(used, margin, np.inf).argmin(axis=1)).all()
    chosen = MODEL.intervene(S, values, policy=lambda s: np.arange(12) * np.ones((len(S), 1)))
    assert (chosen.order == np.arange(12)[::-1]).all()
    never = MODEL.intervene(S, values, policy=lambda s: np.full(s.activations.shape, -np.inf))
    unknown = MODEL.intervene(S, values, policy=lambda s: np.full(s.activations.shape, np.nan))
    assert (never.order == np.arange(12)).all()
    assert (unknown.order == np.arange(12)).all()
    a, b, c = (
        MODEL.intervene(S, values, policy="random", random_state=seed).order for seed in (0, 0, 1)
    )
    assert (a == b).all()
    assert (a != c).any()


def test_gain_is_the_brute_force_over_single_interventions():
    from scipy.special import log_softmax, softmax

    X, y = S[:20], Y[:20]
    values = {name: TRUTH[:20, j] for j, name in enumerate(MODEL.concept_names_)}
    A = MODEL.predict_concepts(X)

    def entropy(A):
        p = softmax(A @ MODEL.coef_.T + MODEL.intercept_, axis=1)
        return -(p * np.log(p)).sum(axis=1)

    def loss(A):
        return -log_softmax(A @ MODEL.coef_.T + MODEL.intercept_, axis=1)[np.arange(20), y]

    expected, hindsight = np.zeros((2, 20, 12))
    for j in range(12):
        low, high = MODEL.activation_levels_[j]
        p = np.clip((A[:, j] - low) / (high - low), 0.02, 0.98)
        for value, weight in ((low, 1 - p), (high, p)):
            changed = A.copy()
            changed[:, j] = value
            expected[:, j] -= weight * entropy(changed)
        changed = A.copy()
        changed[:, j] = np.where(TRUTH[:20, j], high, low)
        hindsight[:, j] = -loss(changed)
    best = MODEL.intervene(X, values, policy="gain", budget=1).order[:, 0]
    rows = np.arange(20)
    np.testing.assert_allclose(expected[rows, best], expected.max(axis=1), atol=1e-12)
    best = MODEL.intervene(X, values, policy="gain", budget=1, y=y).order[:, 0]
    np.testing.assert_allclose(hindsight[rows, best], hindsight.max(axis=1), atol=1e-12)


def test_curve_starts_at_the_accuracy_and_ends_at_the_truth():
    test, y, truth, _ = planted(noise=0.8, seed=5)
    plain = {"levels": "fit", "realign": False}
    curves = {
        p: MODEL.intervention_curve(test, truth, y, policy=p, **plain) for p in ("random", "gain")
    }
    for curve in curves.values():
        assert curve.accuracy[0] == MODEL.score(test, y)
        full = np.where(truth, *MODEL.activation_levels_.T[::-1]) @ MODEL.coef_.T
        best = (MODEL.classes_[(full + MODEL.intercept_).argmax(axis=1)] == y).mean()
        assert curve.accuracy[-1] == pytest.approx(best)
        assert curve.accuracy[-1] > curve.accuracy[0] + 0.1
        assert curve.steps.tolist() == list(range(13))
    hindsight = MODEL.intervention_curve(test, truth, y, policy="gain", hindsight=True, **plain)
    assert hindsight.log_loss[1] < curves["gain"].log_loss[1]
    easy, y, truth, _ = planted(seed=5)
    first = {
        p: MODEL.intervention_curve(easy, truth, y, policy=p, budget=3, **plain).mean_accuracy
        for p in ("random", "gain")
    }
    assert first["gain"] > first["random"] + 0.02
    cut = MODEL.intervention_curve(test, {"concept0": truth[:, 0]}, y, budget=5)
    assert len(cut.to_frame()) == 2


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        ({"concpt3": 1.0}, {}, "Unknown concept 'concpt3'. Did you mean 'concept3'"),
        ({"concept3": [1.0, 2.0]}, {}, "must be one number or 600, one for each row"),
        ({"concept3": float("nan")}, {}, "contains NaN or infinity"),
        ({"concept3": "high"}, {}, "must be numbers or booleans"),
        (np.zeros((3, 3)), {}, r"array of shape \(600, 12\)"),
        ({}, {}, "No concept is given a value"),
        ({"concept3": 1.0}, {"policy": "uncertain"}, "Unknown policy 'uncertain'. Did you mean"),
        ({"concept3": 1.0}, {"budget": -1}, "budget must be a whole number of at least 0, got -1"),
        ({"concept3": 1.0}, {"policy": lambda s: np.zeros(3)}, "priorities of shape"),
    ],
)
def test_bad_interventions(values, options, text):
    with pytest.raises(InputError, match=text):
        MODEL.intervene(S, values, **options)


def test_bad_curves():
    with pytest.raises(InputError, match="integers other than 0 and 1"):
        MODEL.intervention_curve(S, 2 * TRUTH.astype(int), Y)
    with pytest.raises(InputError, match="Label 9 is no class"):
        MODEL.intervention_curve(S, TRUTH, np.full(len(S), 9))


def test_tensors_are_taken_and_reports_are_numpy():
    found = MODEL.intervene(torch.tensor(S), {"concept0": torch.tensor(True)})
    assert isinstance(found.logits, np.ndarray)
    assert "600 rows" in repr(found)
    assert "<table>" in found._repr_html_()


# ------------------------------------------------------------------ plots
def test_plots_return_axes():
    ax = MODEL.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == list("01234")
    assert len(ax.get_xticklabels()) == len(MODEL.active_concepts_)
    assert len(MODEL.plot("waterfall", S, sample=3, top=1).patches) <= 4
    ax = MODEL.plot("intervention", S[:50], TRUTH[:50], Y[:50])
    assert ax.get_ylabel() == "accuracy"
    with pytest.raises(InputError, match="Unknown kind of plot 'weight'"):
        MODEL.plot("weight")
    with pytest.raises(InputError, match=r"plot\('intervention'\) needs C and y"):
        MODEL.plot("intervention", S)
