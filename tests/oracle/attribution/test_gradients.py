"""Concept gradients: completeness, closed forms, finite differences."""

import numpy as np
import pytest
import torch
from torch import nn

from attribution.gradients import METHODS, ConceptGradients
from conceptlab import NMFConcepts, SplitModel
from conceptlab.errors import InputError
from conceptlab.importance import ablate


def build(deep, dtype=torch.float64):
    end = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)) if deep else nn.Linear(6, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), end
        ).to(dtype)
        for p in model.parameters():
            nn.init.normal_(p, std=0.5)
        images = torch.rand(5, 3, 8, 8, dtype=dtype)
    split = SplitModel(model.eval(), at="1")
    A = split.to_positions(split.g(images)).detach()
    extractor = NMFConcepts(3, random_state=0).fit(A.reshape(-1, 6).numpy())
    return split, extractor, images, extractor.as_module()(A).detach()


@pytest.fixture(scope="module")
def linear():
    return build(deep=False)


@pytest.fixture(scope="module")
def deep():
    return build(deep=True)


def test_at_a_linear_head_three_methods_are_one_and_the_closed_form(linear):
    split, extractor, _, U = linear
    head = split.model[-1].weight.detach().numpy()
    expected = U.mean((1, 2)).numpy() * (extractor.components_ @ head[2])
    for method in ("integrated_gradients", "gradient_x_input", "occlusion"):
        found = ConceptGradients(split, extractor, method).coefficients(U, target=2)
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)
    saliency = ConceptGradients(split, extractor, "saliency").coefficients(U, target=2)
    slope = abs(extractor.components_ @ head[2])
    np.testing.assert_allclose(saliency, np.tile(slope, (5, 1)), rtol=1e-6)


def test_integrated_gradients_are_complete(deep):
    split, extractor, _, U = deep
    gradients = ConceptGradients(split, extractor, n_steps=64)
    assert abs(gradients.completeness(U, target=1)).max() < 1e-6
    coarse = ConceptGradients(split, extractor, "gradient_x_input")
    assert abs(coarse.completeness(U, target=1)).max() > 1e-3
    each = gradients.coefficients(U, target=[0, 1, 2, 0, 1])
    np.testing.assert_allclose(each[2], gradients.coefficients(U, target=2)[2], atol=1e-12)


def test_occlusion_is_ablation(deep):
    split, extractor, _, U = deep
    found = ConceptGradients(split, extractor, "occlusion").coefficients(U, target="predicted")
    W = torch.as_tensor(extractor.components_)

    def fn(u):
        return split.h(split.from_positions(u @ W.to(u)))

    np.testing.assert_allclose(found, ablate(fn, U, target="predicted").drop, atol=1e-9)


@pytest.mark.parametrize("method", ["gradient_x_input", "saliency"])
def test_gradients_meet_finite_differences(deep, method):
    split, extractor, _, U = deep
    W = torch.as_tensor(extractor.components_)
    found = ConceptGradients(split, extractor, method).coefficients(U, target=0, positions=True)

    def output(u):
        return split.h(split.from_positions(u @ W.to(u)))[:, 0].detach()

    step = 1e-5
    for place in ((0, 0, 0), (3, 2, 1)):
        moved = torch.zeros_like(U)
        moved[(slice(None), *place)] = step
        slope = (output(U + moved) - output(U - moved)) / (2 * step)
        value = U[(slice(None), *place)] * slope if method == "gradient_x_input" else slope.abs()
        np.testing.assert_allclose(found[(slice(None), *place)], value, atol=1e-8)


def test_input_attributions_of_a_concept(deep):
    split, extractor, images, _ = deep
    code = extractor.as_module()
    gradients = ConceptGradients(split, extractor, n_steps=300)
    found = gradients.inputs(images, concept=1)
    assert found.shape == images.shape

    def coefficient(x):
        return code(split.to_positions(split.g(x))).mean((1, 2))[:, 1].detach()

    change = coefficient(images) - coefficient(torch.zeros_like(images))
    np.testing.assert_allclose(found.sum((1, 2, 3)), change, atol=2e-3)
    product = ConceptGradients(split, extractor, "gradient_x_input").inputs(images, concept=1)
    step = 1e-6
    for place in ((0, 3, 4), (2, 5, 1)):
        moved = torch.zeros_like(images)
        moved[(slice(None), *place)] = step
        slope = (coefficient(images + moved) - coefficient(images - moved)) / (2 * step)
        value = images[(slice(None), *place)] * slope
        np.testing.assert_allclose(product[(slice(None), *place)], value, atol=1e-6)
    own = gradients.inputs(images, concept=1, baseline=images)
    np.testing.assert_allclose(own, 0, atol=1e-12)


def test_kinds_batches_and_the_model_is_left_alone(linear):
    split, extractor, _, U = linear
    before = {name: value.clone() for name, value in split.model.state_dict().items()}
    small = ConceptGradients(split, extractor, batch_size=2).coefficients(U.numpy(), target=0)
    whole = ConceptGradients(split, extractor).coefficients(U, target=0)
    assert isinstance(small, np.ndarray)
    assert isinstance(whole, torch.Tensor)
    np.testing.assert_allclose(small, whole, atol=1e-12)
    assert not split.model.training
    assert all(p.grad is None for p in split.model.parameters())
    assert all(torch.equal(before[name], value) for name, value in split.model.state_dict().items())
    assert not any(m._forward_hooks for m in split.model.modules())


def test_bad_input(linear):
    split, extractor, images, U = linear
    with pytest.raises(InputError, match="Did you mean 'saliency'"):
        ConceptGradients(split, extractor, "salience")
    with pytest.raises(InputError, match="n_steps"):
        ConceptGradients(split, extractor, n_steps=0)
    with pytest.raises(InputError, match="from 0 to 2, got 3"):
        ConceptGradients(split, extractor).inputs(images, concept=3)
    with pytest.raises(InputError, match="concept_maps"):
        ConceptGradients(split, extractor, "occlusion").inputs(images, concept=0)
    with pytest.raises(InputError, match="all positions at once"):
        ConceptGradients(split, extractor, "occlusion").coefficients(U, target=0, positions=True)
    for method in METHODS:
        with pytest.raises(InputError, match="CL-INPUT-TARGET"):
            ConceptGradients(split, extractor, method).coefficients(U, target=5)
