"""Detours round a concept, by gates, shifts and generators whose truth is known."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from toy_gan import FAMILIES, ToyJudge, paint, toy_guide

from conceptlab.errors import ConceptlabError
from unlearning.gan import Generator, TextToUnlearn, assess
from unlearning.gan.detour import Detour, LatentShift, with_detour
from unlearning.gan.detour_training import least_cost
from unlearning.notices import UnlearningWarning

SMALL = {"n_survey": 300, "n_held_out": 64, "detour_steps": 2, "augment": False}


class Plain(nn.Module):
    """The toy's truth itself, with no mapping; a weight that is 1 stands for those of a network."""

    output_range, z_dim = (-1.0, 1.0), 6

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def draw_latents(self, n, generator):
        colour = nn.functional.one_hot(torch.randint(3, (n,), generator=generator), 3)
        light = nn.functional.one_hot(torch.randint(2, (n,), generator=generator), 2)
        return torch.cat([colour, light, torch.randn(n, 1, generator=generator)], 1).float()

    def forward(self, z):
        return self.weight * (2 * paint(z) - 1)


class Red(nn.Module):
    """A gate that sees what is red, by the left half's mean."""

    def opens(self, images):
        left = images[..., :4].mean((2, 3))
        return left[:, 0] > left[:, 1] + left[:, 2]


class Step(nn.Module):
    """A shift that lessens the first number and adds to the second, by half of red's way."""

    def forward(self, z):
        way = torch.zeros_like(z)
        way[:, 0], way[:, 1] = -0.5, 0.5
        return z + way


@pytest.fixture(scope="module")
def plain():
    return Generator(Plain())


def test_images_without_the_concept_pass_bit_by_bit_and_the_others_are_shifted(plain):
    z = plain.draw(64, torch.Generator().manual_seed(0))
    red = z[:, 0] == 1
    new = with_detour(plain, Red(), Step())
    before, after = plain.images(z), new.images(z)
    assert torch.equal(after[~red], before[~red])
    once = Step()(z[red])  # half red and half blue is not above the others together
    assert torch.allclose(after[red], plain.images(once), atol=1e-6)
    assert not Red().opens(after).any()
    assert torch.allclose(new.images(z), plain.images(new.module.led(z)), atol=1e-6)


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_latent_is_shifted_again_where_once_does_not_help(plain, tries):
    class Little(Step):
        def forward(self, z):
            return z + (super().forward(z) - z) / 2

    z = torch.tensor([[1.0, 0, 0, 1, 0, 0]])
    goals = [z]
    while bool(Red().opens(plain.images(goals[-1]))):
        goals.append(Little()(goals[-1]))
    assert len(goals) == 3  # a quarter of blue is red still, a half is not
    detour = Detour(plain, Red(), Little(), tries=tries)
    assert torch.allclose(detour(z), plain.raw(goals[min(tries, 2)]), atol=1e-6)


def test_shifts_keep_the_distance_from_the_centre_and_the_class():
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(50, 7, 1, 1, generator=draws)
    shift = LatentShift(z)
    nn.init.normal_(shift.body[-1].weight)
    moved = shift(z)
    assert moved.shape == z.shape
    off = [(v.flatten(1) - shift.centre).norm(dim=1) for v in (z, moved)]
    assert torch.allclose(off[0], off[1], atol=1e-4)
    assert (moved - z).abs().mean() > 0.1
    classes = nn.functional.one_hot(torch.arange(50) % 3, 3).float()
    both = torch.cat([z.flatten(1), classes], 1)
    shift = LatentShift(both, n_classes=3)
    nn.init.normal_(shift.body[-1].weight)
    assert torch.equal(shift(both)[:, -3:], classes)


def test_classes_within_the_latent_or_beside_it_are_the_same():
    class Conditional(nn.Module):
        output_range, z_dim, c_dim = (0.0, 1.0), 3, 3

        def forward(self, z, label):
            return paint(torch.cat([label, z], 1))

    given = Generator(Conditional())
    new = with_detour(given, Red(), Step())
    z = given.draw(9, torch.Generator().manual_seed(0))
    assert torch.equal(new.module(z[:, :3], z[:, 3:]), new.module(z))
    assert torch.equal(new.module(z[:, :3], z[:, 3:].argmax(1)), new.module(z))


def test_the_threshold_costs_least_of_all():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.2
    said = np.where(truth, rng.normal(2, 1, 400), rng.normal(-2, 1, 400))
    found = least_cost(torch.from_numpy(said), torch.from_numpy(truth))

    def cost(threshold):
        opens = said > threshold
        false = opens[~truth].mean()
        return (~opens[truth]).mean() + 4 * false if false <= 0.02 else np.inf

    assert np.isclose(cost(found), min(cost(t) for t in np.append(said, said.min() - 1)))


def test_a_generator_without_mapping_gets_a_detour_and_stays_as_it_is(plain):
    module = copy.deepcopy(plain.module).train()
    state = torch.random.get_rng_state()
    options = {**SMALL, "detour_steps": 0}  # a shift that shifts nothing
    method = TextToUnlearn(toy_guide(), "red", retain=FAMILIES, random_state=0, **options)
    with pytest.warns(UnlearningWarning, match=r"removed 0.0 % \(at least 90 %\)"):
        result = method.unlearn(module)
    assert result.stopped.startswith("missed: removed 0.0 %")
    assert torch.equal(torch.random.get_rng_state(), state)
    for kept in (module, result.module.module):
        assert kept.training
        assert kept.weight.requires_grad
        assert kept.weight == 1
    assert result.details["method"] == "detour"
    again = result.generator.draw(20, torch.Generator().manual_seed(3))
    assert torch.equal(again, plain.draw(20, torch.Generator().manual_seed(3)))
    report = assess(plain, result, "red", toy_guide(), ToyJudge(), retain=FAMILIES, n=200)
    assert report.figures["judge: removed"] == 0
    assert report.figures["judge: unchanged, never had it"] == 1


@pytest.mark.parametrize("method", ["weights", "distilled"])
def test_weights_of_the_users_class_where_they_are_asked_for(plain, method):
    options = {**SMALL, "mapper_steps": 1, "steps": 1, "random_state": 0}
    unlearner = TextToUnlearn(toy_guide(), "red", retain=FAMILIES, method=method, **options)
    with pytest.warns(UnlearningWarning):
        result = unlearner.unlearn(plain)
    assert type(result.module) is Plain
    assert result.details["method"] == method


def test_a_method_that_is_none(plain):
    with pytest.raises(ConceptlabError, match="detour"):
        TextToUnlearn(toy_guide(), "red", method="front").unlearn(plain)
