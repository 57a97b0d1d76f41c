"""Gates: rare concepts are found, and what is none is refused, by scores whose groups are known."""

import numpy as np
import pytest
import torch
from toy_gan import FAMILIES, ToyJudge, toy_gan, toy_guide

from conceptlab.errors import InputError
from unlearning.gan import Generator, assess, paraphrases, prompt_attack
from unlearning.gan.gate import fit_gate, refuse
from unlearning.gan.groups import two_groups
from unlearning.gan.guide import Concept
from unlearning.gan.options import Limits

N = 1200


def draw(share, base, apart, seed):
    """Scores with a share of them `apart` deviations above, and which these are."""
    rng, k = np.random.default_rng(seed), int(share * N)
    if base == "one lobe":
        scores = np.concatenate([rng.normal(0, 1, N - k), rng.normal(apart, 1, k)])
    else:
        low = rng.choice([-4.0, -2.0, 0.0], N - k) + rng.normal(0, 0.5, N - k)
        scores = np.concatenate([low, rng.normal(apart / 2, 0.5, k)])
    return scores, np.arange(N) >= N - k


def gate_of(scores):
    """A gate on embeddings whose first number is the score."""
    concept = Concept("thing", "other", torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0]]))
    embeddings = torch.from_numpy(np.stack([scores, np.zeros(len(scores))], 1)).float()
    return fit_gate(concept, embeddings)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("base", ["one lobe", "three lobes"])
@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.08, 0.15, 0.3])
def test_rare_groups_are_found(share, base, seed):
    scores, truth = draw(share, base, 7.0, seed)
    low, high, deviation, threshold = two_groups(scores)
    found = scores > threshold
    assert found[truth].mean() >= 0.95  # recall
    assert truth[found].mean() >= 0.95  # precision
    assert (high - low) / deviation > 4
    refuse(gate_of(scores), Limits())


@pytest.mark.parametrize("apart", [5.0, 6.0])
def test_groups_of_one_in_twenty_that_touch(apart):
    scores, truth = draw(0.05, "one lobe", apart, 1)
    found = scores > two_groups(scores)[3]
    assert found[truth].mean() >= 0.95
    assert truth[found].mean() >= 0.95


@pytest.mark.parametrize("law", ["normal", "exponential", "lognormal", "gamma", "t"])
def test_the_tail_of_one_law_is_no_group(law):
    rng = np.random.default_rng(0)
    scores = {
        "normal": lambda: rng.normal(0, 1, N),
        "exponential": lambda: rng.exponential(1, N),
        "lognormal": lambda: rng.lognormal(0, 0.6, N),
        "gamma": lambda: rng.gamma(2, 1, N),
        "t": lambda: rng.standard_t(3, N),
    }[law]()
    with pytest.raises(InputError, match=r"do not fall into two groups.*% of the images") as caught:
        refuse(gate_of(scores), Limits())
    assert caught.value.code == "CL-INPUT-TARGET"
    refuse(gate_of(scores), Limits(separation=0.0))  # whoever asks for it takes any gate


def test_scores_that_are_all_alike():
    assert gate_of(np.full(N, 0.5)).separation < 1


def test_figures_by_a_gate_that_is_not_sound_are_refused():
    gan, guide, judge = toy_gan(), toy_guide(), ToyJudge()
    blue = torch.tensor([[0.0, 1, 0, 0.5, 0.5, 0]])
    never = Generator(gan, latent=lambda n, g: blue + 0.1 * torch.randn(n, 6, generator=g))
    for call in (
        lambda: assess(never, never, "red", guide, judge, retain=FAMILIES, n=200),
        lambda: paraphrases(never, never, "red", guide, ["crimson"], n=200),
        lambda: prompt_attack(never, never, "red", guide, judge, n=200, steps=1),
    ):
        with pytest.raises(InputError, match="do not fall into two groups"):
            call()
