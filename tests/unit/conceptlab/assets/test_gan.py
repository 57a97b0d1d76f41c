"""The embedded generator and its judge: what their cards say, and that the scripts run."""

import math

import pytest
import torch

from conceptlab.assets import embedded_card, train_gan, train_judge
from conceptlab.assets.gan_world import GAN_FAMILIES, gan_labels, gan_layout, gan_scenes
from conceptlab.datasets import load_embedded_gan, load_embedded_judge
from conceptlab.errors import InputError


def test_the_world_has_every_combination_equally_often():
    images, _ = gan_scenes(64, seed=3)
    assert images.shape == (64, 3, 32, 32)
    assert torch.equal(images[:16], gan_scenes(64, seed=3)[0][:16])
    shares = gan_labels(gan_layout(4000, seed=0))
    for column, values in enumerate(GAN_FAMILIES.values()):
        for value in range(len(values)):
            assert (shares[:, column] == value).mean() == pytest.approx(1 / len(values), abs=0.03)
    red = gan_labels(gan_layout(200, seed=0, without="red"))[:, 0]
    assert (red != 0).all()
    with pytest.raises(InputError, match="Did you mean 'red'"):
        gan_scenes(1, without="rad")


def test_judge_is_as_its_card_says():
    judge, card = load_embedded_judge(), embedded_card("judge")
    measured = train_judge.evaluate(judge, n=400)
    for family in GAN_FAMILIES:
        assert measured[family] >= card["measured"][family] - card["tolerance"]
    assert measured["clear"] >= 0.98
    assert measured["clear_blends"] <= 0.05  # a blend is no clear combination


def test_generator_reaches_what_was_asked_of_it():
    card = embedded_card("generator")
    assert card["cpu_minutes"] <= 15
    assert card["measured"]["clear"] >= 0.9
    assert card["measured"]["covered"] == math.prod(len(v) for v in GAN_FAMILIES.values())
    assert card["measured"]["largest_imbalance"] <= 1.5
    measured = train_gan.evaluate(load_embedded_gan(), load_embedded_judge(), n=500)
    assert measured["clear"] >= 0.9
    assert measured["largest_imbalance"] <= 1.5


def test_the_training_scripts_run_and_are_seeded(tmp_path):
    small = {
        "steps": 2,
        "warm_steps": 2,
        "feature_steps": 2,
        "scenes": 64,
        "batch": 8,
        "statistics_batches": 1,
    }
    state = torch.random.get_rng_state()
    first, second = (train_gan.train(seed=1, quiet=True, **small) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    judge = train_judge.train(seed=1, quiet=True, steps=2, scenes=64, batch=8)
    measured = {"clear": 0.0, "confidence": 0.0}
    card = {"seed": 1, "cpu_minutes": 0.0, "settings": small}
    train_gan.save(first, tmp_path / "gan", measured, card)
    train_judge.save(judge, tmp_path / "judge", measured, card)
    again = load_embedded_gan(tmp_path / "gan")
    z = first.draw_latents(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(z), first(z))
    assert load_embedded_judge(tmp_path / "judge").families == judge.families
