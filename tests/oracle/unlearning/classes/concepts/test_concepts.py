"""Labels, donors, concepts and places of ConceptPoisoning against derivations of their own."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import nn

from conceptlab import ConceptBank
from conceptlab.errors import InputError
from unlearning.classes.concepts import labels
from unlearning.classes.concepts.locating import (
    best_window,
    concept_position_maps,
    find_position_layer,
    occlusion_window_maps,
)
from unlearning.classes.concepts.model_concepts import (
    concept_attributions,
    find_model_concepts,
    select_concepts,
)
from unlearning.classes.concepts.poisons import blur, mask_windows, paste_windows
from unlearning.classes.concepts.retained_head import (
    choose_layer,
    parameters_behind,
    pool_layer,
    retained_probabilities,
)


# -- labels ------------------------------------------------------------------------------
@given(st.integers(0, 10_000), st.integers(3, 8), st.floats(0.2, 5))
def test_soft_labels_are_the_formula_and_never_forgotten(seed, n_classes, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(6, n_classes, generator=generator, dtype=torch.float64)
    c = seed % n_classes
    retained = [j for j in range(n_classes) if j != c]
    t = labels.soft_probabilities(logits, retained, temperature)
    f = (logits / temperature).softmax(1)[:, retained]
    torch.testing.assert_close(t[:, retained], f / f.sum(1, keepdim=True))  # the sum is 1 - f_c
    torch.testing.assert_close(t.sum(1), torch.ones(6, dtype=torch.float64))
    assert not t[:, c].any()


def test_soft_labels_hold_where_the_class_has_all_probability():
    t = labels.soft_probabilities(torch.tensor([[500.0, 1.0, 0.0]]), [1, 2])
    torch.testing.assert_close(t, torch.tensor([[0.0, 0.731058, 0.268941]]))


@given(st.integers(0, 10_000))
def test_random_labels_are_never_forgotten_and_use_every_other_class(seed):
    t = labels.random_targets(400, 5, [0, 2, 4], torch.Generator().manual_seed(seed))
    assert torch.equal(t.sum(1), torch.ones(400))
    assert not t[:, [1, 3]].any()
    assert (t.sum(0)[[0, 2, 4]] > 80).all()  # 133 on average, 5 sd away


def test_each_sample_gets_its_own_strongest_retained_class():
    logits = torch.tensor([[9.0, 1.0, 2.0], [9.0, 3.0, 2.0]])
    assert labels.targeted_per_sample(logits, [1, 2]).argmax(1).tolist() == [2, 1]


def _donor_by_hand(W, c, rule, top=5):
    others = [j for j in range(len(W)) if j != c]
    ranked = sorted(range(W.shape[1]), key=lambda k: -W[c, k])
    if rule == "confusion":
        for k in ranked[:top]:
            own_first = [j for j in others if all(W[j, k] >= W[j, m] for m in range(W.shape[1]))]
            if own_first and W[c, k] > 0:
                return max(own_first, key=lambda j: W[j, k])
    return max(others, key=lambda j: W[j, ranked[0]])


@pytest.mark.parametrize("rule", labels.DONOR_RULES)
@given(seed=st.integers(0, 10_000))
def test_the_donor_follows_the_written_rule(rule, seed):
    W = np.random.default_rng(seed).normal(size=(5, 7))
    others = [0, 1, 3, 4]
    assert labels.donor_class(W, 2, others, rule=rule)[0] == _donor_by_hand(W, 2, rule)


def test_confusion_falls_back_on_the_shared_concept():
    W = np.array([[5.0, 1.0, 0.0], [2.0, 0.0, 9.0], [1.0, 0.0, 9.0]])
    assert labels.donor_class(W, 0, [1, 2], top=2) == (1, 0, "shared")
    assert labels.donor_class(W, 0, [2], top=2)[0] == 2  # class 1 is no longer retained


# -- concepts ----------------------------------------------------------------------------
def test_linear_attributions_are_complete_and_equal_captum():
    rng = np.random.default_rng(0)
    W, b, A, start = (
        rng.normal(size=(3, 4)),
        rng.normal(size=3),
        rng.normal(size=(9, 4)),
        np.ones(4),
    )
    found, error = concept_attributions((W, b), A, start, 2)
    change = (A @ W.T + b)[:, 2] - (start @ W.T + b)[2]
    np.testing.assert_allclose(found.sum(1), change, atol=1e-12)
    assert error < 1e-12
    linear = nn.Linear(4, 3).double()
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(W))
        linear.bias.copy_(torch.from_numpy(b))
    theirs = IntegratedGradients(linear).attribute(
        torch.from_numpy(A), torch.from_numpy(start)[None].expand(9, 4), target=2, n_steps=8
    )
    np.testing.assert_allclose(found, theirs.numpy(), atol=1e-10)


def test_a_network_head_is_integrated():
    net = nn.Sequential(nn.Linear(3, 16), nn.Softplus(), nn.Linear(16, 2))
    A = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    found, error = concept_attributions(net, A, np.zeros(3, np.float32), 1, n_steps=64)
    assert error < 1e-4
    assert found.shape == (5, 3)


@given(st.integers(0, 10_000), st.floats(0.1, 1.0))
def test_the_selected_set_is_the_smallest_that_holds_the_mass(seed, mass):
    contrast = np.random.default_rng(seed).normal(size=8)
    positive = np.maximum(contrast, 0)
    chosen = select_concepts(contrast, mass, 8)
    held = positive[chosen].sum()
    assert held >= mass * positive.sum() - 1e-9
    if len(chosen) > 1:  # one less would not do, whichever it is
        assert np.sort(positive)[::-1][: len(chosen) - 1].sum() < mass * positive.sum()
    assert len(select_concepts(contrast, mass, 2)) <= 2


def _planted(seed=0, n=90):
    """Three classes of four planted directions: each its own, all share the last."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    A = np.eye(4)[y] + 0.6 * np.eye(4)[[3]] + 0.1 * rng.random((n, 4))
    mix = np.linalg.qr(rng.normal(size=(6, 6)))[0][:4]
    X = torch.from_numpy(A @ mix).float()
    logits = torch.from_numpy(8 * A[:, :3]).float()
    bank = ConceptBank(mix, ["stripes", "wings", "wheels", "sky"], space=None)
    return X, logits, torch.from_numpy(y), bank


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_planted_concepts_are_found_and_the_shared_one_is_not(head):
    X, logits, y, bank = _planted()
    found = find_model_concepts(
        X, logits, y, [1], bank=bank, head=head, numpy=np.random.default_rng(0)
    )
    assert not found["refused"]
    assert found["fidelity"] > 0.95
    assert found.chosen(1)[0] == "wings"
    assert "sky" not in found.chosen(1)
    assert found["frequency"][0][1] > 0.95
    assert found["completeness"] < (1e-9 if head == "linear" else 0.05)


def test_an_unfaithful_bottleneck_is_refused_in_words():
    X, logits, y, bank = _planted()
    blind = bank[["sky"]]  # all classes have it
    found = find_model_concepts(X, logits, y, [1], bank=blind, numpy=np.random.default_rng(0))
    assert found["refused"]
    assert "nothing is claimed" in found["reason"]
    assert found.chosen(1) == []
    assert "no concept claim" in found.headline()
    assert not found.to_frame()["selected"].any()


def test_a_bank_of_other_features_is_an_error():
    X, logits, y, _ = _planted()
    with pytest.raises(InputError, match="penultimate"):
        find_model_concepts(X, logits, y, [1], bank=ConceptBank(np.eye(3), list("abc"), space=None))


def test_a_model_that_answers_one_class_only_is_told():
    X, logits, y, _ = _planted()
    with pytest.raises(InputError, match="answers class 2 for every sample"):
        find_model_concepts(X, 0 * logits + torch.eye(logits.shape[1])[2], y, [1])


# -- places ------------------------------------------------------------------------------
def _bright(n=4, side=12):
    images = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0)) * 0.1
    corners = torch.tensor([[0, 0], [3, 7], [8, 2], [5, 5]])
    for image, (top, left) in zip(images, corners.tolist(), strict=True):
        image[:, top : top + 4, left : left + 4] = 1.0
    return images, corners


def test_the_window_is_where_the_map_is_largest():
    images, corners = _bright()
    assert torch.equal(best_window(images[:, 0], (4, 4)), corners)
    maps = occlusion_window_maps(
        lambda x: (x > 0.5).float().sum((1, 2, 3)), images, (4, 4), 1, torch.zeros(1)
    )
    assert ((best_window(maps, (4, 4)) - corners).abs() <= 1).all()


def test_position_maps_add_up_to_the_concept_score():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 2),
        )
    images, _ = _bright()
    assert find_position_layer(net, images, "4") == "1"
    direction = torch.tensor([1.0, -2, 0, 3, 1])
    maps = concept_position_maps(net, images, "1", direction)
    with torch.no_grad():
        torch.testing.assert_close(maps.mean((1, 2)), net[:4](images) @ direction)
    assert find_position_layer(nn.Sequential(nn.Flatten(), nn.Linear(144, 2)), images, "1") is None


def test_masks_and_patches_change_the_window_and_nothing_else():
    images, corners = _bright()
    inside = torch.zeros_like(images, dtype=torch.bool)
    for row, (top, left) in zip(inside, corners.tolist(), strict=True):
        row[:, top : top + 4, left : left + 4] = True
    for fill in ("blur", "mean"):
        out = mask_windows(images, corners, (4, 4), fill=fill)
        assert torch.equal(out[~inside], images[~inside])
        assert (out[inside] < 0.95).all()
    donors = 2 + images.flip(0)
    out = paste_windows(images, corners, donors, corners.flip(0), (4, 4))
    assert torch.equal(out[~inside], images[~inside])
    assert torch.equal(out[0, :, :4, :4], donors[0, :, 5:9, 5:9])


def test_the_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    image = torch.rand(
        1, 2, 20, 17, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    theirs = gaussian_filter(image.numpy(), (0, 0, 1.3, 1.3), mode="mirror", radius=4)
    np.testing.assert_allclose(blur(image, 1.3).numpy(), theirs, atol=1e-12)


# -- the head that never saw the class ---------------------------------------------------------
def test_the_retained_head_is_a_logistic_regression_on_retained_rows():
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(60, 5)), np.tile([0, 2, 3], 20)
    rows[:, 0] += y
    queries = rng.normal(size=(7, 5))
    t = retained_probabilities(*map(torch.from_numpy, (rows, y, queries)), 4)
    mean, scale = rows.mean(0), rows.std(0)
    theirs = LogisticRegression(C=0.1).fit((rows - mean) / scale, y)
    np.testing.assert_allclose(
        t[:, [0, 2, 3]].numpy(), theirs.predict_proba((queries - mean) / scale), atol=1e-3
    )
    assert not t[:, 1].any()
    torch.testing.assert_close(t.sum(1), torch.ones(7))


def test_the_layer_is_in_the_middle_and_what_runs_after_it_is_found():
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(4)]
    net = nn.Sequential(nn.Conv2d(1, 4, 3), *blocks, nn.Flatten(), nn.Linear(100, 3))
    x = torch.rand(2, 1, 7, 7)
    assert choose_layer(net, x) == "3"  # 4 of 6 layers with weights
    assert parameters_behind(net, x, "3") == ["4.0", "6"]


@pytest.mark.parametrize(
    ("kind", "options", "layer"),
    [
        ("Bert", {"num_hidden_layers": 2}, "bert.embeddings"),
        ("Roberta", {"num_hidden_layers": 6}, "roberta.embeddings"),
        ("DistilBert", {"n_layers": 2, "dim": 8, "n_heads": 2}, "distilbert.embeddings"),
        ("GPT2", {"n_layer": 2, "n_embd": 8, "n_head": 2, "pad_token_id": 0}, "transformer.wte"),
    ],
)
def test_the_layer_of_texts_is_the_end_of_the_embeddings(kind, options, layer):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    sizes = {} if kind in ("DistilBert", "GPT2") else sizes
    config = getattr(transformers, f"{kind}Config")(vocab_size=20, **sizes, **options)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])}
    inputs["attention_mask"] = (inputs["input_ids"] > 0).long()
    assert choose_layer(model, inputs) == layer


def test_pooling_keeps_four_by_four_places_and_skips_padding():
    maps = torch.rand(2, 3, 8, 8)
    assert torch.equal(pool_layer(maps), nn.functional.avg_pool2d(maps, 2).flatten(1))
    tokens, mask = torch.rand(1, 4, 2), torch.tensor([[1, 1, 0, 0]])
    torch.testing.assert_close(pool_layer(tokens, mask)[0, :2], tokens[0, :2].mean(0))
    assert pool_layer(torch.rand(2, 1024, 8, 8)).shape == (2, 4096)
