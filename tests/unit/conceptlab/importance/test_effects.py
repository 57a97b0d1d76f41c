"""Effects of single concepts against the linear head's weights, and sums that hold for any head."""

import numpy as np
import torch
from torch import nn

from conceptlab.extractors import NMFConcepts
from conceptlab.importance.effects import concept_effects
from conceptlab.models import SplitModel


def world(head):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), *head).eval()
    split, images = SplitModel(model, at="1"), torch.rand(11, 3, 8, 8)
    with torch.no_grad():
        A = split.to_positions(split.g(images)).numpy()
    extractor = NMFConcepts(3, random_state=0).fit(A.reshape(-1, 6))
    U = extractor.transform(A.reshape(-1, 6)).reshape(*A.shape[:-1], 3)
    target = np.arange(11) % 4
    return model, images, U, extractor, target, concept_effects(split, extractor, images, target)


def test_a_linear_head_is_weighted_coefficients():
    with torch.random.fork_rng():
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
        model, _, U, extractor, target, found = world(head)
    V = model[4].weight.detach().numpy()  # (4, 6)
    share = U.mean(axis=(1, 2))[:, :, None] * (extractor.components_ @ V.T)[None]  # (n, k, 4)
    rows = np.arange(11)
    np.testing.assert_allclose(found.contributions, share[rows, :, target], atol=1e-5)
    drives = (share - share.mean(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found.drives, drives, atol=1e-5)
    np.testing.assert_allclose(found.together, 0, atol=1e-5)


def test_the_parts_add_up_to_the_output_of_any_head():
    with torch.random.fork_rng():
        head = [nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)]
        model, images, _, _, target, found = world(head)
    with torch.no_grad():
        expected = model(images).numpy()[np.arange(11), target]
    np.testing.assert_allclose(found.outputs, expected, atol=1e-5)
    assert np.abs(found.together).max() > 1e-3
