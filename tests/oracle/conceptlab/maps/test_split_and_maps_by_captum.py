"""Activations, gradients and maps against captum and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab.extractors.coding import CodingModule, nnls
from conceptlab.maps.coefficients import CodeOf
from conceptlab.maps.implicit import implicit_maps, input_gradients
from conceptlab.maps.occlusion import occlusion_maps
from conceptlab.maps.rise import random_masks, rise_maps
from conceptlab.models import SplitModel


class Coder(nn.Module):
    def __init__(self, W):
        super().__init__()
        self.register_buffer("W", W)

    def forward(self, a):
        return nnls(a, self.W.to(a.dtype))


class Extractor:
    """As little as concept maps need: a basis and its differentiable coding."""

    def __init__(self, k, p, seed=0):
        self.components_ = np.random.default_rng(seed).random((k, p))

    def as_module(self):
        return Coder(torch.as_tensor(self.components_))


class Whole(nn.Module):
    """x → u(x) as one module, which captum can take."""

    def __init__(self, body, extractor):
        super().__init__()
        self.body, self.coder = body, extractor.as_module()

    def forward(self, x):
        return self.coder(self.body(x).mean((2, 3)))


@pytest.fixture
def parts():
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Softplus(),
        nn.Conv2d(8, 7, 3, padding=1),
        nn.Softplus(),
    ).double()  # smooth, so that finite differences hold
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4)).double()
    extractor = Extractor(5, 7)
    split = SplitModel(model, "0")
    x = torch.rand(3, 3, 12, 12, dtype=torch.float64)
    return body, model.eval(), extractor, split, x


def test_activations_equal_captums(parts):
    from captum.attr import LayerActivation

    body, model, _, split, x = parts
    wanted = LayerActivation(model, body).attribute(x)
    torch.testing.assert_close(split.g(x), wanted.detach())


@pytest.mark.parametrize("pool", ["activations", "coefficients"])
def test_implicit_gradient_meets_finite_differences(parts, pool):
    _, _, extractor, split, x = parts
    code = CodeOf(split, extractor, pool=pool)
    gradients = input_gradients(code, x)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        u = code(x)
        assert (u > 1e-3).sum() >= 5, "some concepts must be present"
        for _ in range(8):
            step = torch.randn(x.shape, generator=draw, dtype=torch.float64)
            e = 1e-6
            wanted = (code(x + e * step) - code(x - e * step)) / (2 * e)
            found = torch.einsum("nkchw,nchw->nk", gradients, step)
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_layer_map_equals_captums_grad_cam(parts):
    from captum.attr import LayerGradCam

    body, _, extractor, split, x = parts
    code = CodeOf(split, extractor)
    found = implicit_maps(code, x, (6, 6), level="layer")
    whole = Whole(body, extractor)
    cam = LayerGradCam(whole, whole.body)
    for k in range(5):
        wanted = cam.attribute(x, target=k, relu_attributions=True)
        torch.testing.assert_close(found[:, k], wanted[:, 0].detach())


def test_layer_map_equals_the_closed_form(parts):
    """CAM_k(x, y) = relu(J_k · A(x, y)) / (H W), with J from the support's normal equations."""
    _, _, extractor, split, x = parts
    code = CodeOf(split, extractor)
    found = implicit_maps(code, x, (6, 6), level="layer").numpy()
    A = split.to_positions(split.g(x)).numpy()
    W = extractor.components_
    for i in range(len(x)):
        u = nnls(A[i].mean((0, 1))[None], W)[0]
        S = np.flatnonzero(u > 0)
        J = np.zeros_like(W)
        J[S] = np.linalg.solve(W[S] @ W[S].T, W[S])
        wanted = np.maximum(np.einsum("kc,hwc->khw", J, A[i]), 0) / 36
        np.testing.assert_allclose(found[i], wanted, atol=1e-10)


@pytest.mark.parametrize("coder", [Coder, CodingModule])
def test_coefficients_pooled_later_give_the_coefficient_map(parts, coder):
    """u is homogeneous of degree one in a, so gradient × activation is u itself.

    For the coder that says so this needs no gradient.
    """
    _, _, extractor, split, x = parts
    extractor.as_module = lambda: coder(
        torch.from_numpy(extractor.components_) if coder is Coder else extractor.components_
    )
    code = CodeOf(split, extractor, pool="coefficients")
    assert code.homogeneous == (coder is CodingModule)
    found = implicit_maps(code, x, (6, 6), level="layer")
    u = code.at_positions(split.to_positions(split.g(x)))
    torch.testing.assert_close(found, u.permute(0, 3, 1, 2) / 36)


def test_integrated_gradients_equal_captums(parts):
    from captum.attr import IntegratedGradients

    body, _, extractor, split, x = parts
    code = CodeOf(split, extractor, concepts=[0, 2])
    found = implicit_maps(code, x, (12, 12), level="input", steps=8, baseline=0.2, reduce="signed")
    ig = IntegratedGradients(Whole(body, extractor))
    for place, k in enumerate((0, 2)):
        wanted = ig.attribute(
            x, baselines=torch.full_like(x, 0.2), target=k, n_steps=8, method="riemann_middle"
        )
        torch.testing.assert_close(found[:, place], wanted.sum(1))


def test_integrated_gradients_sum_to_the_change(parts):
    _, _, extractor, split, x = parts
    code = CodeOf(split, extractor)
    found = implicit_maps(code, x, (12, 12), level="input", steps=64, reduce="signed")
    with torch.no_grad():
        change = code(x) - code(torch.zeros_like(x))
    torch.testing.assert_close(found.sum((2, 3)), change, rtol=2e-3, atol=2e-3)


def test_occlusion_equals_captums(parts):
    from captum.attr import Occlusion

    body, _, extractor, split, x = parts
    code = CodeOf(split, extractor)
    found = occlusion_maps(code, x, window=4, stride=2, baseline=0.3, batch_size=7)
    occlusion = Occlusion(Whole(body, extractor).requires_grad_(False))
    for k in range(5):
        wanted = occlusion.attribute(
            x, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2), baselines=0.3, target=k
        )
        # captum spreads a fall over the 3 channels that it covers.
        torch.testing.assert_close(found[:, k].float(), wanted.mean(1), rtol=1e-4, atol=1e-6)


def test_rise_equals_its_formula(parts):
    _, _, extractor, split, x = parts
    code = CodeOf(split, extractor)
    draw = torch.Generator().manual_seed(5)
    found = rise_maps(code, x, n_masks=11, batch_size=4, generator=draw, centre=False)
    masks = random_masks(11, (12, 12), generator=torch.Generator().manual_seed(5)).double()
    with torch.no_grad():
        u = torch.stack([code(x * mask) for mask in masks])
    wanted = torch.einsum("mnk,mhw->nkhw", u, masks) / masks.sum(0)
    torch.testing.assert_close(found, wanted)
    masks_mean = random_masks(4000, (12, 12), keep=0.3, generator=draw).mean()
    assert float(masks_mean) == pytest.approx(0.3, abs=0.01)


def test_hidden_states_of_a_transformer():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )
    bert = BertForSequenceClassification(config).eval()
    ids = torch.randint(4, 40, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    split = SplitModel(bert, "bert.encoder.layer.1", output="logits")
    with torch.no_grad():
        wanted = bert(**inputs, output_hidden_states=True)
    torch.testing.assert_close(split.g(inputs), wanted.hidden_states[2])
    torch.testing.assert_close(split.h(split.g(inputs), inputs=inputs), wanted.logits)


def test_tail_of_a_resnet_by_hand():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=7)
    split = SplitModel(model, "layer3")
    x = torch.rand(2, 3, 64, 64)
    a = split.g(x)
    moved = a * torch.rand(a.shape)
    model.eval()
    with torch.no_grad():
        wanted = model.fc(model.avgpool(model.layer4(moved)).flatten(1))
    torch.testing.assert_close(split.h(moved), wanted)
