"""Targets that no text says: images and directions, on a generator whose truth is known."""

import numpy as np
import pytest
import torch
from toy_gan import COLOURS, FAMILIES, ToyGan, ToyJudge, paint, toy_guide

from conceptlab.errors import InputError
from unlearning.gan import Generator, TextToUnlearn, assess
from unlearning.gan.gate import find_gates
from unlearning.gan.guide import Guide
from unlearning.gan.options import Request


class Truth(ToyGan):
    """The toy's truth itself, without a mapping."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def forward(self, z):
        return paint(z)


@pytest.fixture(scope="module")
def seen():
    """Images of the generator, and which are red."""
    z = Truth().draw_latents(400, torch.Generator().manual_seed(0))
    return paint(z), z[:, 0] == 1


def shown(target, images):
    gates, tried = find_gates(
        Guide(toy_guide()), Guide(toy_guide()).embed_all(images), Request.of(target)
    )
    assert list(tried) == [gates[0].concept.name]
    return gates[0].shows(Guide(toy_guide()).embed_all(images))


def test_images_of_red_are_as_good_as_the_word(seen):
    images, red = seen
    for kind in (lambda x: x, lambda x: x.numpy(), lambda x: x.double().numpy()):
        assert torch.equal(shown(kind(images[red][:12]), images), red)


def test_a_direction_of_the_guide(seen):
    images, red = seen
    e = Guide(toy_guide()).embed_all(images)
    assert torch.equal(shown(e[red].mean(0) - e[~red].mean(0), images), red)


def test_figures_of_a_target_of_images_by_what_the_judge_calls_it(seen):
    images, red = seen
    generator = Generator(Truth())
    report = assess(
        generator, generator, images[red][:12], toy_guide(), ToyJudge(), value="red", n=200
    )
    assert report.facts["targets"] == ["the images given"]
    assert report.facts["gate agrees with judge"] == 1
    assert report.figures["judge: removed"] == 0


def test_several_encoders_each_have_a_degree():
    generator = Generator(Truth())
    encoders = {"one": toy_guide(), "other": toy_guide()}
    report = assess(generator, generator, "red", toy_guide(), n=200, second_encoder=encoders)
    assert report.figures["degree, one"] == report.figures["degree, other"] == 0


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        (np.zeros((2, 8, 8)), "CL-INPUT-SHAPE", "images"),
        (np.zeros((2, 1, 8, 8)), "CL-INPUT-SHAPE", "images"),
        (np.full((2, 3, 8, 8), 255.0), "CL-INPUT-RANGE", "255"),
        (np.full((2, 3, 8, 8), np.nan), "CL-INPUT-NONFINITE", "target"),
        (np.ones(5), "CL-INPUT-SHAPE", "5 numbers"),
    ],
)
def test_targets_that_are_none(target, code, words):
    with pytest.raises(InputError, match=words) as caught:
        TextToUnlearn(toy_guide(), target, n_survey=64).unlearn(Truth())
    assert caught.value.code == code


def test_a_direction_has_no_degree_by_another_encoder(seen):
    images, red = seen
    e = Guide(toy_guide()).embed_all(images)
    way = e[red].mean(0) - e[~red].mean(0)
    generator = Generator(Truth())
    with pytest.raises(InputError, match="guide's space alone"):
        assess(generator, generator, way, toy_guide(), n=200, second_encoder=toy_guide())


def test_images_that_fit_no_value_are_counted():
    class Blend(Truth):
        """Half red, half blue, where it was red."""

        def forward(self, z):
            half = z.clone()
            half[:, 0], half[:, 1] = z[:, 0] / 2, z[:, 1] + z[:, 0] / 2
            return paint(half)

    assert len(COLOURS) == len(FAMILIES["colour"])
    before, after = Generator(Truth()), Generator(Blend())
    report = assess(before, after, "red", toy_guide(), ToyJudge(), retain=FAMILIES, n=200)
    assert report.figures["judge: unclear, before"] == 0
    assert report.figures["judge: unclear"] == 1
