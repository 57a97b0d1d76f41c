"""Importance with the rest of the activations held or as a player, against plain recomputation."""

import numpy as np
import pytest
import torch
from torch import nn

from attribution.faithfulness import faithfulness
from conceptlab.errors import InputError
from conceptlab.extractors import NMFConcepts, PCAConcepts
from conceptlab.importance import HeadOnCoefficients, Importance, SobolImportance, ablate, decision
from conceptlab.models import SplitModel

MODES = ("drop", "hold", "player")


def model(route):
    """A convolution, then a head of the kind that each route is for."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 6, 3), nn.ReLU()]
        if route == "linear-pooled":
            head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
        elif route == "pooled":
            head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.Tanh()]
            head.append(nn.Linear(5, 3))
        elif route == "linear":
            head = [nn.Conv2d(6, 4, 2), nn.Flatten(), nn.Linear(100, 3)]
        else:
            head = [nn.Conv2d(6, 4, 2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
            head.append(nn.Linear(4, 3))
        return nn.Sequential(*body, *head)


def world(route, kind=NMFConcepts):
    """Give (split, head, U, A, W, logits) of seven images."""
    split = SplitModel(model(route), "1")
    X = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        A = split.to_positions(split.g(X)).numpy()
        logits = split.f(X).numpy()
    extractor = kind(2)
    extractor.fit(A.reshape(-1, 6))
    U = np.asarray(extractor.transform(A.reshape(-1, 6))).reshape(*A.shape[:-1], -1)
    head = HeadOnCoefficients.from_extractor(split, extractor)
    return split, head, U, A, np.asarray(extractor.components_), logits


def plain(split, U_i, A_i, W, offset, mode, masks):
    """Compute y(m) from the definition, mask by mask."""
    rest = A_i - U_i @ W
    rows = []
    for m in masks:
        decoded = (U_i * m[:2]) @ W
        decoded += {"drop": offset, "hold": rest, "player": rest * m[-1]}[mode]
        rows.append(decoded)
    activations = torch.from_numpy(np.stack(rows).astype(np.float32))
    with torch.no_grad():
        return split.h(split.from_positions(activations)).numpy().astype(np.float64)


@pytest.mark.parametrize("kind", [NMFConcepts, PCAConcepts])
@pytest.mark.parametrize("route", ["linear-pooled", "pooled", "linear", "general"])
@pytest.mark.parametrize("mode", MODES)
def test_indices_are_those_of_the_definition(route, mode, kind):
    split, head, U, A, W, _ = world(route, kind)
    offset = 0 if head.offset is None else head.offset.numpy()
    found = SobolImportance(n_design=1024, n_bootstrap=0, random_state=0, remainder=mode)(
        head, U, target=1, activations=A
    )
    assert found.route == route
    assert found.remainder == mode
    rng = np.random.default_rng(1)
    masks, others = rng.random((2, 4000, 2 + (mode == "player")))
    for image in (0, 4):
        y = plain(split, U[image], A[image], W, offset, mode, masks)[:, 1]
        values = [*found.values[image], *([] if found.rest is None else [found.rest[image]])]
        for j, value in enumerate(values):
            mixed = masks.copy()
            mixed[:, j] = others[:, j]
            moved = plain(split, U[image], A[image], W, offset, mode, mixed)[:, 1]
            assert value == pytest.approx(((y - moved) ** 2).mean() / 2 / y.var(), abs=0.05)


@pytest.mark.parametrize("route", ["linear-pooled", "pooled", "linear", "general"])
def test_with_the_rest_held_all_masks_at_one_are_the_model(route):
    for kind in (NMFConcepts, PCAConcepts):
        _, head, U, A, _, logits = world(route, kind)
        with torch.no_grad():
            found = head(U, rest=head.rest(U, A)).numpy()
        np.testing.assert_allclose(found, logits, atol=1e-5)


def test_a_linear_head_has_the_same_indices_with_the_rest_held():
    _, head, U, A, _, _ = world("linear-pooled")
    drop, hold, player = (
        SobolImportance(random_state=0, remainder=mode)(head, U, target=1, activations=A)
        for mode in MODES
    )
    np.testing.assert_allclose(hold.values, drop.values, atol=1e-6)
    # As one player more it takes its share from all others alike: ST_i = c_i^2 / sum of c^2.
    share = 1 - player.rest[:, None]
    np.testing.assert_allclose(player.values, drop.values * share, atol=1e-5)
    assert player.rest_interval[0] <= player.rest.mean() <= player.rest_interval[1]


@pytest.mark.parametrize("route", ["pooled", "general"])
@pytest.mark.parametrize("mode", MODES)
def test_ablation_takes_out_one_part_at_a_time(route, mode):
    split, head, U, A, W, _ = world(route)
    found = ablate(head, U, target=0, remainder=mode, activations=A, random_state=0)
    k = 2 + (mode == "player")
    eye = np.eye(k)
    y = plain(split, U[3], A[3], W, 0, mode, np.concatenate([np.ones((1, k)), 1 - eye]))[:, 0]
    np.testing.assert_allclose(found.drop[3], y[0] - y[1:], atol=1e-5)


def test_curves_of_all_extractors_have_the_same_ends_with_the_rest_as_a_player():
    ends = []
    for kind in (NMFConcepts, PCAConcepts):
        split, head, U, A, _, logits = world("general", kind)
        scores = SobolImportance(random_state=0, remainder="player")(
            head, U, target=1, activations=A
        )
        report = faithfulness(
            head, U, scores, target=1, logits=logits, activations=A, remainder="player"
        )
        curve = report.curve("deletion", "logit").importance
        ends.append((curve[0], curve[-1]))
        assert len(curve) == 4
        with torch.no_grad():
            nothing = split.h(split.from_positions(torch.zeros(1, *A.shape[1:])))
        assert curve[0] == pytest.approx(logits[:, 1].mean(), abs=1e-5)
        assert curve[-1] == pytest.approx(float(nothing[0, 1]), abs=1e-5)
        assert report.kl > 1e-6  # of h(UW), not of f with itself
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)


def test_the_p_value_of_curves_reaches_one_in_a_hundred():
    weights = torch.tensor([[32.0, 16.0, 8.0, 4.0, 2.0, 1.0], [0.0] * 6]).T
    report = faithfulness(
        lambda u: u @ weights, torch.ones(4, 6), 2.0 ** np.arange(6)[::-1], target=0, random_state=0
    )
    assert report.n_random == 100
    assert report.curves["deletion"]["logit"].random.shape == (100, 7)
    assert report.p_value("deletion", "logit") < 0.02
    # Each order stands beside its reverse, so that the mean of the areas is known.
    assert report.curve("deletion", "logit").auc("random") == pytest.approx(63 / 2)


def test_both_figures_are_those_of_the_definition():
    split, head, U, A, W, logits = world("general")
    found = decision(head, U, A)
    with torch.no_grad():
        outputs = [
            split.h(split.from_positions(torch.from_numpy(part.astype(np.float32)))).numpy()
            for part in (U @ W, A - U @ W, A.mean(0, keepdims=True))
        ]
    answer = logits.argmax(1)
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (logits, outputs[1]))
    rows = np.arange(len(answer))
    assert found.sufficient == pytest.approx((outputs[0].argmax(1) == answer).mean())
    assert found.rest_agrees == pytest.approx((outputs[1].argmax(1) == answer).mean())
    assert found.necessary == pytest.approx((p[rows, answer] - q[rows, answer]).mean(), abs=1e-6)
    assert found.mean_activation == pytest.approx((outputs[2].argmax() == answer).mean())
    assert found.commonest == pytest.approx(np.bincount(answer).max() / 7)
    assert found.error == pytest.approx(np.linalg.norm(A - U @ W) / np.linalg.norm(A), rel=1e-5)


def test_the_rest_survives_a_file(tmp_path):
    _, head, U, A, _, _ = world("pooled")
    found = SobolImportance(random_state=0, remainder="player")(head, U, target=1, activations=A)
    found.save(tmp_path / "importance")
    back = Importance.load(tmp_path / "importance")
    assert back.remainder == "player"
    assert back.rest.tobytes() == found.rest.tobytes()


@pytest.mark.parametrize("mode", ["hold", "player"])
def test_bad_input(mode):
    _, head, U, A, _, _ = world("pooled")
    estimator = SobolImportance(random_state=0, remainder=mode)
    with pytest.raises(InputError, match="needs activations=.*not given"):
        estimator(head, U, target=1)
    with pytest.raises(InputError, match="knows its bank"):
        estimator(lambda u: head(u), U, target=1, activations=A)
    with pytest.raises(InputError, match="positions"):
        estimator(head, U, target=1, activations=A[:, :2])
    with pytest.raises(InputError, match="Did you mean 'hold'"):
        estimator.set_params(remainder="hodl")(head, U, target=1, activations=A)
    with pytest.raises(InputError, match="needs activations="):
        ablate(head, U, target=1, remainder=mode)
    with pytest.raises(InputError, match="needs activations="):
        faithfulness(head, U, [1.0, 2.0], target=1, remainder=mode)
