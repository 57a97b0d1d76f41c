"""Scores without a reference, against closed forms and a world whose truth is known."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from conceptlab.errors import InputError
from unlearning.removal import (
    context_deviation,
    removal_coherence,
    remove_score,
    segment_colours,
)


def cells(pictures):
    """Mean and contrast of each cell, and a constant: a map (n, 7, 32, 32)."""
    mean = functional.adaptive_avg_pool2d(pictures, 32)
    spread = (functional.adaptive_avg_pool2d(pictures**2, 32) - mean**2).clamp_min(0).sqrt()
    return torch.cat([mean - 0.5, 2 * spread, torch.full_like(mean[:, :1], 0.5)], 1)


def world(n=4):
    """Pictures that are plain but for a block of texture, with a hole inside the block."""
    generator = torch.Generator().manual_seed(0)
    texture = functional.interpolate(
        torch.rand(n, 1, 32, 32, generator=generator).round(), scale_factor=2
    )
    truth = torch.full((n, 3, 128, 128), 0.5)
    truth[..., 28:92, 18:82] = texture
    masks = torch.zeros(n, 1, 128, 128, dtype=torch.bool)
    masks[..., 40:80, 30:70] = True
    return truth, masks


def test_remove_score_prefers_blur_to_the_truth_and_the_others_do_not():
    truth, masks = world()
    blur = torch.where(masks, torch.tensor(0.5), truth)
    assert (remove_score(cells(blur), masks) > remove_score(cells(truth), masks) + 0.1).all()
    deviations = [context_deviation(x, masks, cells(x)) for x in (blur, truth)]
    assert (deviations[0].context > deviations[1].context + 0.1).all()
    assert (deviations[0].total > deviations[1].total + 0.1).all()
    coherence = [removal_coherence(x, masks, cells, side=128) for x in (blur, truth)]
    assert (coherence[0] < coherence[1] - 0.1).all()


def test_something_new_in_the_hole_is_a_hallucination():
    truth, masks = world()
    new = truth.clone()
    new[:, :, 50:66, 40:56] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)

    def segments(picture):
        return (picture[1] > picture[0] + 0.5).astype(int)

    found, clean = (context_deviation(x, masks, cells(x), segments=segments) for x in (new, truth))
    assert (clean.hallucination == 0).all()
    inside, beside = torch.zeros(2, 128, 128, dtype=torch.double)
    inside[50:66, 40:56] = 1
    beside[40:80, 30:70] = 1
    beside -= inside
    unit = functional.normalize(cells(new).double(), dim=1)
    means = [
        torch.einsum("nchw,hw->nc", unit, functional.avg_pool2d(w[None], 4)[0])
        for w in (inside, beside)
    ]
    expected = 1 - functional.cosine_similarity(*means)
    np.testing.assert_allclose(found.hallucination, expected, atol=1e-9)
    np.testing.assert_allclose(found.total, found.context + found.hallucination)
    # Masks, as those of SAM: what lies in a larger one is left out.
    masks_of = [np.ones((128, 128), bool), inside.numpy() > 0, np.roll(inside.numpy() > 0, 1, 0)]
    nested = context_deviation(new, masks, cells(new), segments=lambda x: masks_of)
    assert (nested.hallucination == 0).all()


def test_the_context_is_the_box_grown_by_a_third():
    maps = torch.zeros(1, 2, 32, 32)
    maps[:, 0] = 1
    maps[:, :, 9:21, 9:21] = torch.tensor([0.0, 1.0]).view(2, 1, 1)  # the hole, and the ring of 3
    maps[:, :, 12:18, 12:18] = torch.tensor([0.6, 0.8]).view(2, 1, 1)
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    masks[..., 11:19, 11:19] = True  # 8 pixels: the box is grown by 2
    found = context_deviation(
        torch.zeros(1, 3, 32, 32), masks, maps, segments=lambda x: np.zeros((32, 32), int)
    )
    hole = 36 * np.array([0.6, 0.8]) + 28 * np.array([0, 1.0])
    np.testing.assert_allclose(found.context, 1 - hole[1] / np.linalg.norm(hole), atol=1e-9)


def test_coherence_of_two_features_has_a_closed_form():
    masks = torch.zeros(1, 1, 96, 96, dtype=torch.bool)
    masks[..., 24:72, 24:72] = True  # grown by 16 on every side: a square of 80
    angle = 0.7

    def features(pictures):
        grid = functional.adaptive_max_pool2d(pictures[:, :1], 40)  # in cells of two pixels
        a = torch.where(grid > 0, angle, 0.0)
        return torch.cat([3 * a.cos(), 3 * a.sin()], 1)

    distance = 2 - 2 * math.cos(angle)
    mmd = 1000 * (2 - 2 * math.exp(-distance / 200))
    found = removal_coherence(masks.expand(1, 3, 96, 96).float(), masks, features, side=80)
    np.testing.assert_allclose(found, math.exp(-mmd / 3), rtol=1e-6)
    same = removal_coherence(torch.zeros(1, 3, 96, 96), masks, features, side=80)
    np.testing.assert_allclose(same, 1)


def test_pieces_are_scored_one_by_one():
    truth, masks = world(1)
    both = masks.clone()
    both[..., 100:120, 100:120] = True
    one = torch.zeros_like(masks)
    one[..., 100:120, 100:120] = True
    parts = [context_deviation(truth, m, cells(truth)).context for m in (masks, one)]
    found = context_deviation(truth, both, cells(truth)).context
    np.testing.assert_allclose(found, np.mean(parts, axis=0))
    scores = [removal_coherence(truth, m, cells, side=128) for m in (masks, one, both)]
    np.testing.assert_allclose(scores[2], np.mean(scores[:2], axis=0))


def test_what_does_not_fit_is_told():
    truth, masks = world(1)
    wrong = [
        (lambda: context_deviation(truth, masks[..., :64, :64], cells(truth)), "CL-INPUT-SHAPE"),
        (lambda: context_deviation(truth, masks & False, cells(truth)), "CL-INPUT-EMPTY"),
        (lambda: context_deviation(truth, masks, cells(truth)[0]), "CL-INPUT-SHAPE"),
        (
            lambda: context_deviation(truth, masks, cells(truth), segments=lambda x: x),
            "CL-INPUT-SHAPE",
        ),
        (lambda: removal_coherence(truth, masks, lambda x: x[..., :4, :4]), "CL-INPUT-SHAPE"),
        (lambda: removal_coherence(truth, masks, cells, side=8), "CL-INPUT-RANGE"),
    ]
    for call, code in wrong:
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code == code
    assert len(np.unique(segment_colours(truth[0].numpy()))) > 1
