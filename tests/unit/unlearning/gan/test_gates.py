"""Gates: rare concepts are found, and what is none is refused, by scores whose groups are known."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_gan import FAMILIES, ToyJudge

from conceptlab.errors import InputError
from unlearning.gan import Generator, assess, paraphrases, prompt_attack
from unlearning.gan.gate import fit_gate, refuse
from unlearning.gan.groups import two_groups
from unlearning.gan.guide import Concept
from unlearning.gan.lobes import one_lobe
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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("base", ["one lobe", "three lobes"])
@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.08, 0.15, 0.3])
def test_rare_groups_are_found(share, base, seed):
    scores, truth = draw(share, base, 7.0, seed)
    groups = two_groups(scores)
    found = scores > groups.threshold
    assert found[truth].mean() >= 0.95  # recall
    assert truth[found].mean() >= 0.95  # precision
    assert (groups.high - groups.low) / groups.deviation > 4
    refuse(gate_of(scores), Limits())


@pytest.mark.parametrize("apart", [5.0, 6.0])
def test_groups_of_one_in_twenty_that_touch(apart):
    scores, truth = draw(0.05, "one lobe", apart, 1)
    found = scores > two_groups(scores).threshold
    assert found[truth].mean() >= 0.95
    assert truth[found].mean() >= 0.95


LAWS = {  # of one lobe each
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "uniform": lambda rng, n: rng.uniform(0, 1, n),
    "exponential": lambda rng, n: rng.exponential(1, n),
    "lognormal": lambda rng, n: rng.lognormal(0, 0.6, n),
    "gamma": lambda rng, n: rng.gamma(2, 1, n),
    "gamma to the left": lambda rng, n: -rng.gamma(2, 1, n),
    "t of three degrees": lambda rng, n: rng.standard_t(3, n),
    "Laplace": lambda rng, n: rng.laplace(0, 1, n),
}


def accepted(law, n, draws):
    """How many of some draws of a law pass as two groups."""
    found = 0
    for seed in range(draws):
        gate = gate_of(LAWS[law](np.random.default_rng([seed, n]), n))
        try:
            refuse(gate, Limits())
        except InputError:
            continue
        found += 1
    return found


@pytest.mark.parametrize("law", LAWS)
def test_one_law_is_no_two_groups(law):
    assert accepted(law, 200, 5) == 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500, N])
@pytest.mark.parametrize("law", LAWS)
def test_at_most_one_in_a_hundred_draws_of_one_law_passes(law, n):
    assert accepted(law, n, 300) <= 3


def test_the_refusal_says_how_many_and_zero_takes_any_gate():
    scores = np.linspace(0, 1, 400)  # as even as can be
    with pytest.raises(InputError, match=r"into two groups.*% of the images.*lobe") as caught:
        refuse(gate_of(scores), Limits(separation=2.0))
    assert caught.value.code == "CL-INPUT-TARGET"
    refuse(gate_of(scores), Limits(separation=0.0))


def test_a_handful_is_no_group():
    scores = np.append(np.random.default_rng(0).normal(0, 1, N), [9.0, 9.1, 9.2])
    with pytest.raises(InputError, match="only 3 images in one of the groups, fewer than 8"):
        refuse(gate_of(scores), Limits())


@pytest.mark.parametrize(
    ("law", "density"),
    [
        ("normal", lambda x: -0.5 * x**2 - 0.5 * np.log(2 * np.pi)),
        ("uniform", lambda x: 0 * x),
        ("Laplace", lambda x: -abs(x) - np.log(2)),
        ("t of three degrees", lambda x: np.log(2 / (np.pi * np.sqrt(3)) / (1 + x**2 / 3) ** 2)),
    ],
)
def test_laws_of_one_lobe_are_found_as_likely_as_they_are(law, density):
    scores = LAWS[law](np.random.default_rng(1), 600)
    truth = float(density(scores).sum())
    slack = 10.0 if law == "uniform" else 0.5  # whose edge no such law has
    assert truth - slack < one_lobe(scores) < truth + 12  # of seven parameters: 3.5 on average
    assert np.isclose(one_lobe(5 * scores + 3), one_lobe(scores) - 600 * np.log(5), atol=0.5)


def test_scores_that_are_all_alike():
    assert gate_of(np.full(N, 0.5)).separation < 1


class Grey(nn.Module):
    """Images as bright as the first number of their latent."""

    output_range, z_dim = (0.0, 1.0), 6

    def forward(self, z):
        return (0.5 + 0.1 * z[:, :1, None, None]).clamp(0, 1).expand(-1, 3, 8, 8)


class Photometer:
    """An encoder whose score of any text is the brightness; a normal law, then."""

    device, fingerprint, logit_scale = torch.device("cpu"), "photometer", 10.0

    def embed_image(self, images):
        return torch.stack([images[:, 0, 0, 0], torch.zeros(len(images))], 1)

    def encode_text(self, texts, templates=None):
        return np.array([[float(t == "red"), float(t != "red")] for t in texts], dtype=np.float32)


def test_figures_by_a_gate_that_is_not_sound_are_refused():
    never, guide, judge = Generator(Grey()), Photometer(), ToyJudge()
    for call in (
        lambda: assess(never, never, "red", guide, judge, retain=FAMILIES, n=200),
        lambda: paraphrases(never, never, "red", guide, ["crimson"], n=200),
        lambda: prompt_attack(never, never, "red", guide, judge, n=200, steps=1),
    ):
        with pytest.raises(InputError, match="do not fall into two groups"):
            call()
