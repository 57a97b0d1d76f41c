"""Measures of unlearning, against SciPy, torch and tables worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import roc_auc_score
from torch import nn

from conceptlab.errors import InputError
from unlearning.audit import (
    RelearnCurve,
    Thresholds,
    activation_distance,
    adaptive_unlearning_score,
    agreement,
    anamnesis_index,
    average_gap,
    class_probe,
    concept_auc,
    concept_surrogate,
    js_divergence,
    judge,
    loss_attack,
    member_share,
    modified_entropy,
    non_member_share,
    quantise,
    quantised_copy,
    tug_of_war,
    zero_retrain_forgetting,
)
from unlearning.audit.concept_level import donors, find_class_concepts
from unlearning.audit.divergence import probabilities
from unlearning.audit.encoding import few_shot_recall, linearly_kept
from unlearning.audit.membership import _logistic, entropy, machine_attack

RNG = np.random.default_rng(0)
P, Q = (RNG.dirichlet(np.full(7, 0.3), 50) for _ in range(2))


# -- divergence
def test_js_is_scipy_s_distance_squared():
    expected = jensenshannon(P, Q, axis=1, base=np.e) ** 2
    np.testing.assert_allclose(js_divergence(P, Q), expected, rtol=1e-9, atol=1e-12)


def test_js_knows_zeros_and_its_limits():
    eye = np.eye(3)
    np.testing.assert_allclose(js_divergence(eye, eye), 0)
    np.testing.assert_allclose(js_divergence(eye, eye[[1, 2, 0]]), np.log(2))
    np.testing.assert_allclose(js_divergence(P, Q), js_divergence(Q, P))
    assert zero_retrain_forgetting(P, P) == 1
    assert zero_retrain_forgetting(P, Q) == pytest.approx(1 - js_divergence(P, Q).mean())


def test_distance_and_agreement_by_hand():
    p, q = [[0.6, 0.4], [0.9, 0.1]], [[0.0, 1.0], [0.9, 0.1]]
    assert activation_distance(p, q) == pytest.approx(0.6 * np.sqrt(2) / 2)
    assert agreement(p, q) == 0.5
    with pytest.raises(InputError, match="rows >= 0 that add up to 1"):
        js_divergence([[2.0, 1.0]], [[0.5, 0.5]])
    with pytest.raises(InputError, match="same samples and classes"):
        js_divergence([[0.5, 0.5]], [[0.2, 0.3, 0.5]])


def test_probabilities_take_minus_infinity_and_no_nan():
    np.testing.assert_allclose(probabilities([[-np.inf, 0.0, 0.0]]), [[0, 0.5, 0.5]])
    np.testing.assert_allclose(probabilities([[1e4, 0.0]]), [[1, 0]])
    with pytest.raises(InputError, match="contains NaN"):
        probabilities([[np.nan, 0.0]])


# -- scores
def test_scores_by_hand():
    u = {"forget": 0.1, "retain": 0.9, "test": 0.8}
    r = {"forget": 0.0, "retain": 1.0, "test": 0.9}
    assert tug_of_war(u, r) == pytest.approx(0.9 * 0.9 * 0.9)
    assert average_gap(
        {"ua": 0.9, "ra": 0.9, "ta": 0.8, "mia": 0.5}, {"ua": 1.0, "ra": 1.0, "ta": 0.9, "mia": 1.0}
    ) == pytest.approx(100 * (0.1 + 0.1 + 0.1 + 0.5) / 4)
    assert adaptive_unlearning_score(0.9, 0.8, 0.25) == pytest.approx(0.9 / 1.25)
    with pytest.raises(InputError, match="'test' is missing"):
        tug_of_war({"forget": 0, "retain": 0}, r)


# -- membership
def test_modified_entropy_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    first = -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9)
    second = -0.8 * np.log(0.2) - 0.7 * np.log(0.3) - 0.1 * np.log(0.9)
    found = modified_entropy(p, [0, 1, 0])
    np.testing.assert_allclose(found[:2], [first, second], rtol=1e-12)
    assert found[2] == 0
    assert modified_entropy(p, [0, 1, 1])[2] > 60  # surely wrong
    assert entropy([[0.25] * 4])[0] == pytest.approx(np.log(4))


def test_attacks_find_planted_members():
    """Members have confidences near 1, others near 0.3: an attack must see where a set belongs."""
    rng = np.random.default_rng(1)
    members, others = rng.uniform(0.9, 1, 300), rng.uniform(0.1, 0.5, 200)
    half = np.concatenate([rng.uniform(0.9, 1, 30), rng.uniform(0.1, 0.5, 90)])
    assert non_member_share(members, others, half) == pytest.approx(0.75)
    assert member_share(members, others, half) == pytest.approx(0.25)
    assert machine_attack(members, others, half, max_samples=100, random_state=0)[1] == 1.0
    same = np.ones(200)  # nothing to tell apart: the attack says so
    assert machine_attack(same, same, same, max_samples=100, random_state=0)[1] == 0.5


def test_loss_attack_is_blind_to_equal_losses_and_to_sizes():
    rng = np.random.default_rng(2)
    assert loss_attack(rng.normal(size=400), rng.normal(size=150)) < 0.08
    assert loss_attack(rng.normal(size=400), rng.normal(size=150) + 8) > 0.49
    assert np.isnan(loss_attack([1.0, 2.0], [1.0, 2.0]))


def test_the_logistic_of_one_column_is_scikit_learn_s():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(6)
    for shift in (0.0, 0.5, 6.0):
        y = np.repeat([1, 0], 40)
        x = rng.normal(size=80) + shift * y
        slope, offset = _logistic(x, y)
        expected = LogisticRegression(tol=1e-8).fit(x[:, None], y)
        np.testing.assert_allclose(slope, expected.coef_[0, 0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(offset, expected.intercept_[0], rtol=1e-4, atol=1e-5)


# -- quantising
def test_quantise_by_hand_and_against_torch():
    # One scale a row: 0.7 / 7 = 0.1 and 1.4 / 7 = 0.2; the halves round to even.
    weight = torch.tensor([[0.7, -0.26, 0.05, 0.15], [1.4, -1.4, 0.3, 0.0]])
    expected = torch.tensor([[0.7, -0.3, 0.0, 0.2], [1.4, -1.4, 0.4, 0.0]])
    torch.testing.assert_close(quantise(weight, 4), expected, atol=1e-6, rtol=0)
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().amax(dim=(1, 2, 3)) / 127
    torch.testing.assert_close(
        quantise(weight, 8),
        torch.fake_quantize_per_channel_affine(
            weight, scale, torch.zeros(6, dtype=torch.int32), 0, -127, 127
        ),
    )
    turned = quantise(weight.transpose(0, 1).contiguous(), 8, axis=1)
    torch.testing.assert_close(turned.transpose(0, 1), quantise(weight, 8))
    assert quantise(torch.zeros(2, 2), 8).abs().sum() == 0


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_quantise_moves_no_weight_by_more_than_half_a_step(bits, seed):
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed))
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    found = quantise(weight, bits)
    assert bool(((found - weight).abs() <= step / 2 + 1e-6).all())
    levels = torch.unique(torch.round(found / step))
    assert len(levels) <= 2**bits - 1


def test_quantised_copy_leaves_the_model_and_its_biases():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    twin = quantised_copy(model, 4)
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(twin[0].bias, model[0].bias)
    torch.testing.assert_close(twin[3].weight, quantise(model[3].weight, 4))
    assert not torch.equal(twin[0].weight, model[0].weight)


# -- features and concepts
def test_probe_and_auc_on_planted_features():
    rng = np.random.default_rng(3)
    y = rng.integers(3, size=300)
    clean = np.eye(3)[y] + 0.05 * rng.normal(size=(300, 3))
    noise = rng.normal(size=(300, 3))
    good = class_probe(clean[:200], y[:200], clean[200:], y[200:], [1])
    bad = class_probe(noise[:200], y[:200], noise[200:], y[200:], [1])
    assert good.recall == good.auc == 1
    assert abs(bad.auc - 0.5) < 0.15
    assert bad.recall < 0.6
    shown = np.stack([y == 0, rng.random(300) < 0.5, np.zeros(300, bool)], axis=1)
    found = concept_auc(clean, shown)
    assert found[0] == 1
    assert abs(found[1] - 0.5) < 0.12
    assert np.isnan(found[2])
    with pytest.raises(InputError, match="must be among the training samples"):
        class_probe(clean[:200], y[:200], clean[200:], y[200:], [7])


def test_what_a_linear_map_finds_again():
    """R² by scikit-learn's least squares, on other samples than the map was fitted on."""
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(5)
    old, held = rng.normal(size=(200, 6)) + 1, rng.normal(size=(30, 6)) + 2
    new, seen = (np.tanh(x @ rng.normal(size=(6, 9))) for x in (old, held))
    fitted = LinearRegression().fit(new, old)
    rest = ((fitted.predict(seen) - held) ** 2).sum()
    expected = 1 - rest / ((held - old.mean(0)) ** 2).sum()
    assert linearly_kept(new, old, seen, held) == pytest.approx(expected, abs=1e-9)
    # In other units, of another width, with units that are always zero: nothing moves.
    mixed = rng.normal(size=(9, 9)) * np.geomspace(1e-3, 1e3, 9)
    wide = [np.c_[x @ mixed, np.zeros((len(x), 2))] for x in (new, seen)]
    assert linearly_kept(wide[0], old, wide[1], held) == pytest.approx(expected, abs=1e-6)
    assert linearly_kept(old @ rng.normal(size=(6, 6)), old, held @ np.eye(6), held) < 1


def test_few_shot_recall_is_linear_discriminant_analysis():
    """With all samples of the class: the nearest mean by the covariance within retained ones."""
    rng = np.random.default_rng(6)
    mix = rng.normal(size=(4, 4))
    y, truth = rng.integers(3, size=240), rng.integers(3, size=90)
    places = 1.5 * np.eye(4)[:3]
    X, T = (((places[c] + rng.normal(size=(len(c), 4))) @ mix) for c in (y, truth))
    means = np.stack([X[y == c].mean(0) for c in range(3)])
    kept = np.concatenate([X[y == c] - means[c] for c in (0, 1)])
    inverse = np.linalg.inv(kept.T @ kept / len(kept))
    away = np.stack([np.einsum("nd,de,ne->n", T - m, inverse, T - m) for m in means])
    away -= np.array([[4 / (y == c).sum()] for c in range(3)])
    expected = np.mean(away.argmin(axis=0)[truth == 2] == 2)
    found = few_shot_recall(X, y, T, truth, [2], shots=[3, 240], n_draws=5)
    assert found[1] == pytest.approx(expected, abs=1e-9)
    assert 0 < found[0] <= 1


def test_surrogate_finds_planted_effects_and_is_complete():
    """Logits are linear in concepts: attributions are effect times difference of rates."""
    rng = np.random.default_rng(4)
    y = np.repeat([0, 1, 2], 100)
    rates = np.array([[0.95, 0.6, 0.3], [0.05, 0.6, 0.3], [0.05, 0.1, 0.3]])
    S = (rng.random((300, 3)) < rates[y]).astype(float)
    effects = np.array([[4.0, 1.0, 0.0], [-1.0, 2.0, 0.0], [1.0, -2.0, 0.0]])
    Z = S @ effects.T
    found = concept_surrogate(S, Z, y, [0], l2=0.0)
    shift = S[y == 0].mean(axis=0) - S[y != 0].mean(axis=0)
    centred = effects - effects[1:].mean(axis=0)
    np.testing.assert_allclose(found.attributions, centred * shift, atol=1e-9)
    np.testing.assert_allclose(found.r2, 1, atol=1e-9)
    whole = Z - Z[:, 1:].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(  # completeness of integrated gradients
        found.attributions.sum(axis=1), whole[y == 0].mean(0) - whole[y != 0].mean(0), atol=1e-9
    )


def test_class_concepts_are_found_by_their_rates():
    y = np.repeat([0, 1, 2], 50)
    shown = np.zeros((150, 4), dtype=bool)
    shown[y == 0, 0] = True  # its own
    shown[y <= 1, 1] = True  # shared with class 1
    shown[::2, 2] = True  # everywhere
    shown[y == 2, 3] = True  # another's
    found = find_class_concepts(shown, y, [0])
    assert (found.concepts, found.exclusive) == ((0, 1), (0,))
    np.testing.assert_allclose(found.rates[:2], [[1, 0], [1, 1]])
    named = find_class_concepts(shown, y, [0], names="abcd", concepts=["d"], exclusive=["a"])
    assert (named.concepts, named.exclusive) == ((3,), (0,))
    with pytest.raises(InputError, match="Unknown concept 'x'"):
        find_class_concepts(shown, y, [0], names="abcd", concepts=["x"])


def test_donor_probability_leaves_the_forgotten_classes_out():
    donor, mean = donors([[0.9, 0.06, 0.04], [0.2, 0.3, 0.5]], [0])
    assert donor == pytest.approx((0.06 + 0.5) / 2)
    np.testing.assert_allclose(mean, [0.55, 0.18, 0.27])


# -- relearning and the verdict, from figures alone
def curve(reached, broken=False):
    return RelearnCurve(np.arange(3), np.zeros(3), np.zeros(3), 0.9, reached, 80, broken)


def test_anamnesis_index_with_ends_that_were_not_reached():
    assert anamnesis_index(curve(10), curve(40)) == 0.25
    assert anamnesis_index(curve(None), curve(40)) == 2
    assert anamnesis_index(curve(0), curve(40)) == 0
    assert np.isnan(anamnesis_index(curve(None, broken=True), curve(40)))


ORIGINAL = {
    "fa_train": 1.0,
    "fa_test": 0.98,
    "ra": 1.0,
    "ta": 0.95,
    "probe_recall": 0.98,
    "features_kept": 1.0,
    "concept_auc": 0.99,
}
RETRAINED = ORIGINAL | {
    "fa_train": 0.0,
    "fa_test": 0.0,
    "probe_recall": 0.8,
    "features_kept": 0.05,
    "features_kept_middle": 0.6,
    "probe_20": 0.75,
    "js_mask": 0.3,
    "ain": 1.0,
    "relearn_steps": 40.0,
    "concept_auc": 0.8,
    "js": 0.0,
    "fa_int4": 0.0,
    "fa_recovered": 0.0,
    "donor": 0.5,
    "mia_confidence": 1.0,
}
MASK = ORIGINAL | {
    "fa_train": 0.0,
    "fa_test": 0.0,
    "features_kept_middle": 1.0,
    "probe_20": 0.97,
    "js_mask": 0.0,
    "js": 0.3,
    "relearn_steps": 20.0,
}
AGAIN = RETRAINED | {"js": 0.12, "probe_recall": 0.83, "ain": 1.1}
SIZES = {"forget": 400, "forget_test": 200, "test": 1000, "concept": 200, "no_concept": 800}


def verdict(changes, reference=RETRAINED, second=AGAIN, **limits):
    return judge(
        RETRAINED | {"js": 0.11} | changes,
        before=ORIGINAL,
        mask=MASK,
        reference=reference,
        second=second,
        sizes=SIZES,
        thresholds=Thresholds(**limits),
    )


@pytest.mark.parametrize(
    ("changes", "word", "figure"),
    [
        ({}, "removed", ""),
        ({"fa_train": 0.2}, "not forgotten", "fa_train"),
        ({"fa_test": 0.2}, "not forgotten", "fa_test"),
        ({"ta": 0.8}, "damaged", "ta"),
        ({"features_kept": 0.97}, "suppressed", "features_kept"),
        ({"probe_recall": 0.96}, "suppressed", "probe_recall"),
        ({"concept_auc": 0.95}, "suppressed", "concept_auc"),
        ({"features_kept_middle": 0.97}, "suppressed", "features_kept_middle"),
        ({"probe_20": 0.97}, "suppressed", "probe_20"),
        ({"js_mask": 0.02}, "suppressed", "js_mask"),
        ({"fa_int4": 0.3}, "suppressed", "fa_int4"),
        ({"fa_recovered": 0.5}, "suppressed", "fa_recovered"),
        ({"js": 0.4}, "undecided", "js"),
        ({"donor": 0.95}, "undecided", "donor"),
        ({"mia_confidence": 0.3}, "undecided", "mia_confidence"),
    ],
)
def test_each_rule_alone_turns_the_verdict(changes, word, figure):
    found = verdict(changes)
    assert found.word == word
    turned = [e.figure for e in found.evidence if e.side not in ("removed", "note")]
    assert turned == ([figure] if figure else [])


def test_verdict_takes_noise_into_account():
    assert verdict({"probe_recall": 0.86}).word == "removed"  # within two standard errors
    assert verdict({"js": 0.2}).word == "removed"  # the floor is 0.12
    assert verdict({"js": 0.2}, second=None).word == "removed"
    assert verdict({"mia_confidence": 0.0, "mia_accuracy": 0.5}).word == "removed"
    # Half of the way from the retrained model to the mask, where the mask has power.
    assert verdict({"probe_20": 0.85}).word == "removed"
    assert verdict({"probe_20": 0.87}).word == "suppressed"


def test_relearning_is_told_and_decides_nothing():
    quick = verdict({"relearn_steps": 3.0, "ain": 0.1})
    assert quick.word == "removed"
    (told,) = (e for e in quick.evidence if e.figure == "relearn_steps")
    assert told.side == "note"
    assert "in 3 steps; a logit mask 20; a retrained model 40: quick" in told.text
    ended = verdict({"relearn_steps": 60.0, "relearn_ended": 1.0})
    (told,) = (e for e in ended.evidence if e.figure == "relearn_steps")
    assert told.text.endswith("so this says nothing.")


def test_evidence_that_a_mask_gives_too_has_no_power():
    power = {e.figure: e.power for e in verdict({}).evidence}
    assert power["fa_train"] is False
    assert power["fa_int4"] is False
    assert power["features_kept"] is True
    assert power["features_kept_middle"] is True
    assert power["probe_20"] is True
    # The retrained models' features and probes are the mask's own: nothing can tell.
    alike = {
        "features_kept": 0.999,
        "features_kept_middle": 0.999,
        "probe_recall": 0.98,
        "probe_20": 0.97,
        "concept_auc": 0.99,
        "js_mask": 0.01,
        "js": 0.0,
    }
    found = verdict(alike, RETRAINED | alike, None)
    assert found.word == "undecided"
    assert "passing them proves nothing" in found.summary


def test_the_line_of_features_lies_where_the_references_put_it():
    near = RETRAINED | {"features_kept": 0.85}
    assert verdict({"features_kept": 0.92}, near, None).word == "removed"
    assert verdict({"features_kept": 0.93}, near, None).word == "suppressed"
    assert verdict({"features_kept": 0.93}, near, None, kept=0.4).word == "removed"
    # Of two references the nearer one counts.
    assert verdict({"features_kept": 0.93}, near, AGAIN | {"features_kept": 0.9}).word == "removed"


def test_little_left_unexplained_is_still_a_matter_of_shares():
    """Where retrained models leave 0.6 %, a model that leaves 0.2 % still holds the class."""
    near = RETRAINED | {"features_kept_middle": 0.994}
    assert verdict({"features_kept_middle": 0.998}, near, None).word == "suppressed"
    assert verdict({"features_kept_middle": 0.995}, near, None).word == "removed"


def test_what_the_original_never_could_is_no_damage():
    """Fewer classes are told apart more easily, so retrained models may be better than it was."""
    better = RETRAINED | {"ta": 0.99}
    assert (
        judge(
            RETRAINED | {"ta": 0.84, "js": 0.1},
            before=ORIGINAL | {"ta": 0.85},
            mask=MASK,
            reference=better,
            sizes=SIZES,
        ).word
        == "removed"
    )
    assert verdict({"ta": 0.85}, better, None).word == "damaged"
    assert verdict({"ta": 0.85}, RETRAINED | {"ta": 0.86}, None).word == "removed"


def test_a_report_s_own_figures_give_its_verdict_again():
    """Everything that decides is a figure, so it is kept in reports."""
    from unlearning.audit.figures import FIGURES

    for changes in ({"mia_accuracy": 0.5, "mia_confidence": 0.0}, {"relearn_broken": 1.0}):
        own = RETRAINED | {"js": 0.11} | changes
        kept = {key: value for key, value in own.items() if key in FIGURES}
        given = {"before": ORIGINAL, "mask": MASK, "reference": RETRAINED, "sizes": SIZES}
        assert judge(kept, **given).word == judge(own, **given).word == "removed"


def test_verdict_without_reference():
    alone = {"reference": None, "second": None}
    assert verdict({"features_kept": 0.996}, **alone).word == "suppressed"
    assert verdict({"fa_train": 0.5}, **alone).word == "not forgotten"
    assert verdict({}, **alone).word == "removed"  # gone, and harder to read
    assert verdict({"js_mask": 0.0}, **alone).word == "suppressed"
    assert verdict({"features_kept": 0.7}, **alone).word == "undecided"
    assert verdict({"probe_recall": 0.97, "concept_auc": 0.99}, **alone).word == "undecided"
    unknown = judge(RETRAINED, before=RETRAINED, mask={})
    assert unknown.word == "undecided"
    assert "hardly knew" in unknown.summary


def test_auc_of_the_probe_is_scikit_learn_s():
    rng = np.random.default_rng(5)
    X, shown = rng.normal(size=(60, 2)), rng.random((60, 1)) < 0.4
    X[:, 0] += shown[:, 0]
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    areas = []
    for train, test in StratifiedKFold(2, shuffle=True, random_state=9).split(X, shown[:, 0]):
        white = PCA(whiten=True).fit(X[train])
        bias = np.sqrt(len(train) / (len(train) - 1))  # PCA divides by n - 1
        model = LogisticRegression(tol=1e-3)
        model.fit(bias * white.transform(X[train]), shown[train, 0])
        scores = model.decision_function(bias * white.transform(X[test]))
        areas.append(roc_auc_score(shown[test, 0], scores))
    np.testing.assert_allclose(concept_auc(X, shown, random_state=9), np.mean(areas), atol=1e-4)
