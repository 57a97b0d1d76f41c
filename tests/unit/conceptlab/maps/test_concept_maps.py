"""Concept maps through the one public call, and their scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from split_models import SmallCNN, small_bert, small_vit
from torch import nn

from conceptlab.errors import InputError
from conceptlab.extractors.coding import nnls
from conceptlab.maps import concept_maps, energy_pointing, pointing_game
from conceptlab.models import SplitModel


class Coder(nn.Module):
    def __init__(self, W):
        super().__init__()
        self.register_buffer("W", W)

    def forward(self, a):
        return nnls(a, self.W)


class Extractor:
    def __init__(self, k, p):
        self.components_ = np.random.default_rng(0).random((k, p))

    def as_module(self):
        return Coder(torch.as_tensor(self.components_))


class Opaque:
    """An extractor without a gradient."""

    def __init__(self, components):
        self.components_ = components

    def transform(self, X):
        return nnls(X, self.components_.astype(X.dtype))


@pytest.fixture
def setting():
    torch.manual_seed(0)
    split = SplitModel(SmallCNN(), "last")
    return split, Extractor(4, 12), torch.rand(3, 3, 16, 12)


METHODS = [
    ("implicit", {}),
    ("implicit", {"level": "input"}),
    ("implicit", {"level": "input", "smooth": 3, "noise": 0.2}),
    ("implicit", {"level": "input", "steps": 4}),
    ("upsample", {}),
    ("occlusion", {"window": 6}),
    ("rise", {"n_masks": 20}),
]


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_shape_seed_and_batches(method, options, setting, global_state_untouched):
    split, extractor, x = setting
    one = concept_maps(split, extractor, x, method=method, random_state=1, **options)
    assert one.shape == (3, 4, 16, 12)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.abs(one).max() > 0
    again = concept_maps(
        split, extractor, x.numpy(), method=method, random_state=1, batch_size=2, **options
    )
    np.testing.assert_allclose(one, again, atol=1e-5)
    some = concept_maps(
        split, extractor, x, method=method, concepts=[2, 0], random_state=1, **options
    )
    np.testing.assert_allclose(some, one[:, [2, 0]], atol=1e-6)
    with torch.no_grad():  # a caller without gradients gets the same
        quiet = concept_maps(split, extractor, x, method=method, random_state=1, **options)
    np.testing.assert_allclose(quiet, one, atol=1e-6)
    assert all(p.grad is None for p in split.model.parameters())


@pytest.mark.parametrize("method", ["upsample", "occlusion", "rise"])
def test_extractors_without_gradient(method, setting):
    split, extractor, x = setting
    options = {"n_masks": 8} if method == "rise" else {}
    wanted = concept_maps(split, extractor, x, method=method, random_state=0, **options)
    opaque = Opaque(extractor.components_)
    found = concept_maps(split, opaque, x, method=method, random_state=0, **options)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    with pytest.raises(InputError, match="has no as_module"):
        concept_maps(split, opaque, x, method="implicit")


def test_vision_transformer_layers():
    torch.manual_seed(0)
    split = SplitModel(small_vit(), "encoder.layers.encoder_layer_0")
    x = torch.rand(2, 3, 32, 32)
    for method, options in METHODS:
        maps = concept_maps(split, Extractor(3, 16), x, method=method, **options)
        assert maps.shape == (2, 3, 32, 32)


def test_text_gives_a_value_for_each_token():
    bert = SplitModel(small_bert(), "bert.encoder.layer.1", output="logits")
    texts = {"input_ids": torch.randint(5, 50, (3, 6))}
    for method in ("implicit", "upsample"):
        assert concept_maps(bert, Extractor(2, 16), texts, method=method).shape == (3, 6, 2)
    for method, message in (
        ("rise", "For text and video use"),
        ("occlusion", "For text and video use"),
    ):
        with pytest.raises(InputError, match=message):
            concept_maps(bert, Extractor(2, 16), texts, method=method)
    with pytest.raises(InputError, match="words have no gradient"):
        concept_maps(bert, Extractor(2, 16), texts, level="input")


def test_video_has_a_map_for_every_frame():
    """The concept is the red channel of each pixel, so that the map is that channel itself."""
    body = nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        body[0].weight.copy_(torch.eye(3)[:, :, None, None, None])
    model = nn.Sequential(body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2))
    extractor = Extractor(3, 3)
    extractor.components_ = np.eye(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        video = torch.rand(2, 3, 4, 6, 5) + 0.5
    split, red, n = SplitModel(model, "0"), video[:, 0].numpy(), 4 * 6 * 5
    maps = concept_maps(split, extractor, video, method="upsample")
    np.testing.assert_allclose(maps[:, 0], red, atol=1e-6)
    for given in (video, {"input": video}):
        for options in ({}, {"level": "input"}, {"level": "input", "steps": 3}):
            maps = concept_maps(split, extractor, given, batch_size=1, **options)
            assert maps.shape == (2, 3, 4, 6, 5)
            np.testing.assert_allclose(n * maps[:, 0], red, atol=1e-6)
    noisy = concept_maps(split, extractor, video, level="input", smooth=2, random_state=0)
    np.testing.assert_allclose(n * noisy[:, 0], red, atol=1e-6)  # this gradient is constant
    with pytest.raises(InputError, match="For text and video") as caught:
        concept_maps(split, extractor, video, method="rise")
    assert caught.value.code == "CL-INPUT-OPTION"
    with pytest.raises(InputError, match="or use level='input'"):
        concept_maps(SplitModel(model, "2"), extractor, video)


class Lit(nn.Module):
    """An image and its light, one number a channel, which is added before the layer."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.ReLU(), nn.Linear(3, 2)

    def forward(self, image, light):
        return self.head(self.body(image + light[:, :, None, None]).mean((2, 3)))


def test_an_image_beside_other_numbers_has_maps():
    extractor, draw = Extractor(3, 3), torch.Generator().manual_seed(0)
    extractor.components_ = np.eye(3)
    both = {"image": torch.rand(2, 3, 6, 5, generator=draw), "light": torch.ones(2, 3)}
    split = SplitModel(Lit(), "body")
    maps = concept_maps(split, extractor, both, method="upsample")
    np.testing.assert_allclose(maps, both["image"].numpy() + 1, atol=1e-6)
    np.testing.assert_allclose(30 * concept_maps(split, extractor, both), maps, atol=1e-5)
    with pytest.raises(InputError, match="need images alone"):
        concept_maps(split, extractor, both, level="input")


def test_maps_find_a_planted_patch():
    """The concept is the red channel; a red square is drawn; all methods must point at it."""
    body = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        body[0].weight.copy_(torch.eye(3)[:, :, None, None])
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    extractor = Extractor(3, 3)
    extractor.components_ = np.eye(3)
    images = torch.full((2, 3, 24, 24), 0.1)
    masks = torch.zeros(2, 24, 24, dtype=torch.bool)
    masks[0, 4:12, 4:12] = True
    masks[1, 12:22, 8:16] = True
    images[:, 0][masks] = 1.0
    split = SplitModel(model, "0")
    chance = masks.double().mean((1, 2)).numpy()
    for method, options in METHODS:
        maps = concept_maps(split, extractor, images, method=method, random_state=0, **options)
        energy = energy_pointing(maps[:, :1], masks)[:, 0]
        assert (energy > 2 * chance).all(), (method, energy)
        tolerance = 3 if method == "rise" else 0
        assert pointing_game(maps[:, :1], masks, tolerance=tolerance).mean() == 1, method


def test_bad_arguments_by_message(setting):
    split, extractor, x = setting
    cases = [
        ({"method": "implict"}, "Did you mean 'implicit'"),
        ({"level": "pixel"}, "Unknown level"),
        ({"reduce": "max"}, "Unknown reduce"),
        ({"windo": 3, "method": "occlusion"}, "Did you mean 'window'"),
        ({"window": 30, "method": "occlusion"}, "between 1 and 12"),
        ({"n_masks": 1, "method": "rise"}, "n_masks >= 2"),
        ({"level": "input", "steps": 0}, "steps >= 1"),
        ({"concepts": [4]}, "between 0 and 3"),
        ({"concepts": [0.5]}, "numbers of concepts"),
        ({"pool": "sum"}, "Unknown pool"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            concept_maps(split, extractor, x, **options)
    with pytest.raises(InputError, match="12 channels, but the extractor was fitted on 5"):
        concept_maps(split, Extractor(2, 5), x)
    with pytest.raises(InputError, match="without components_"):
        concept_maps(split, object(), x)
    with pytest.raises(InputError, match="split must be a SplitModel"):
        concept_maps(split.model, extractor, x)
    flat = SplitModel(nn.Sequential(nn.Flatten(), nn.Linear(576, 5), nn.Linear(5, 2)), "1")
    with pytest.raises(InputError, match=r"no positions.*level='input'"):
        concept_maps(flat, Extractor(2, 5), x)
    assert concept_maps(flat, Extractor(2, 5), x, level="input").shape == (3, 2, 16, 12)


def test_scores():
    maps = np.zeros((2, 3, 4, 4))
    maps[0, 0, :2, :2] = 1.0
    maps[0, 0, 3, 3] = 4.0
    maps[1, 1] = -1.0
    masks = np.zeros((2, 4, 4), bool)
    masks[:, :2, :2] = True
    energy = energy_pointing(maps, masks)
    assert energy.shape == (2, 3)
    assert energy[0, 0] == 0.5
    assert np.isnan(energy[1, 1])
    hits = pointing_game(maps, masks)
    assert hits[0, 0] == 0.0
    assert np.isnan(hits[1]).all()
    assert pointing_game(maps, masks, tolerance=2)[0, 0] == 1.0
    with pytest.raises(InputError, match="same height and width"):
        energy_pointing(maps, masks[:, :3])
    with pytest.raises(InputError, match="do not belong together"):
        energy_pointing(maps, np.zeros((5, 4, 4), bool))
