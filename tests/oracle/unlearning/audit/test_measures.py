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
from unlearning.audit.membership import _logistic, entropy, machine_attack
from unlearning.audit.probing import features_kept

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


def test_features_kept():
    b = RNG.normal(size=(40, 5))
    assert features_kept(b, b) == 1
    assert features_kept(b, RNG.normal(size=(40, 5))) == 0
    assert features_kept(b, RNG.normal(size=(40, 6))) == 0
    moved = b + 0.1 * RNG.normal(size=b.shape)
    expected = 1 - ((moved - b) ** 2).sum() / ((b - b.mean(0)) ** 2).sum()
    assert features_kept(b, moved) == pytest.approx(expected)


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
    "ain": 1.0,
    "relearn_steps": 40.0,
    "concept_auc": 0.8,
    "js": 0.0,
    "fa_int4": 0.0,
    "fa_recovered": 0.0,
    "donor": 0.5,
    "mia_confidence": 1.0,
}
AGAIN = RETRAINED | {"js": 0.12, "probe_recall": 0.83, "ain": 1.1}
SIZES = {"forget": 400, "forget_test": 200, "test": 1000, "concept": 200, "no_concept": 800}


def verdict(changes, reference=RETRAINED, second=AGAIN, **limits):
    return judge(
        RETRAINED | {"js": 0.11} | changes,
        before=ORIGINAL,
        mask={"relearn_steps": 20.0},
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
        ({"ain": 0.3}, "suppressed", "ain"),
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
    noisy = AGAIN | {"ain": 0.4}
    assert verdict({"ain": 0.35}, second=noisy).word == "removed"
    assert verdict({"ain": 0.35}, second=noisy, relearn=0.95).word == "suppressed"


def test_verdict_without_reference():
    alone = {"reference": None, "second": None}
    assert verdict({"features_kept": 0.99}, **alone).word == "suppressed"
    assert verdict({"fa_train": 0.5}, **alone).word == "not forgotten"
    assert verdict({}, **alone).word == "removed"  # moved, lower, slower than the mask
    assert verdict({"relearn_steps": 15.0}, **alone).word == "undecided"
    assert verdict({"probe_recall": 0.97, "concept_auc": 0.99}, **alone).word == "undecided"
    unknown = judge(RETRAINED, before=RETRAINED, mask={})
    assert unknown.word == "undecided"
    assert "hardly knew" in unknown.summary


def test_auc_of_the_probe_is_scikit_learn_s():
    rng = np.random.default_rng(5)
    X, shown = rng.normal(size=(60, 2)), rng.random((60, 1)) < 0.4
    X[:, 0] += shown[:, 0]
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    areas = []
    for train, test in StratifiedKFold(2, shuffle=True, random_state=9).split(X, shown[:, 0]):
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-3))
        scores = model.fit(X[train], shown[train, 0]).decision_function(X[test])
        areas.append(roc_auc_score(shown[test, 0], scores))
    np.testing.assert_allclose(concept_auc(X, shown, random_state=9), np.mean(areas), atol=1e-6)
