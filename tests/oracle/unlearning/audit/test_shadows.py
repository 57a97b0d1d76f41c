"""Attacks with shadow models, on confidences and models whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_expit, softmax
from scipy.stats import norm
from torch import nn

from conceptlab.errors import InputError
from unlearning import as_samples
from unlearning.audit import (
    likelihood_ratio,
    lira,
    neighbour_attack,
    scaled_confidence,
    u_lira,
)


def test_scaled_confidence_is_the_logit_of_the_probability():
    rng = np.random.default_rng(0)
    logits, y = 3 * rng.normal(size=(50, 5)), rng.integers(5, size=50)
    p = softmax(logits, axis=1)[np.arange(50), y]
    np.testing.assert_allclose(scaled_confidence(logits, y), np.log(p) - np.log1p(-p), rtol=1e-9)
    sure = scaled_confidence([[800.0, 0.0]], [0])  # where p is 1 to the last bit
    assert sure == pytest.approx(800.0)
    assert log_expit(sure) == 0.0


@pytest.mark.parametrize("n_models", [6, 20])
def test_the_ratio_is_that_of_scipy_s_densities(n_models):
    rng = np.random.default_rng(n_models)
    inside, outside = rng.normal(1, 0.7, (n_models, 40)), rng.normal(0, 2, (n_models, 40))
    target = rng.normal(size=40)
    spread = [v.std(axis=0) for v in (inside, outside)]
    if n_models < 16:  # too few for a spread of each sample's own
        spread = [np.full(40, np.sqrt((s**2).mean())) for s in spread]
    sides = [
        norm.logpdf(target, v.mean(axis=0), s)
        for v, s in zip((inside, outside), spread, strict=True)
    ]
    np.testing.assert_allclose(likelihood_ratio(target, inside, outside), sides[0] - sides[1])


def test_the_attack_is_right_as_often_as_two_normal_laws_allow():
    """Two laws a distance d apart, spread 1: no attack is right more often than Phi(d / 2)."""
    rng = np.random.default_rng(1)
    n, d = 6000, 1.4
    inside, outside = rng.normal(d, 1, (400, 1)), rng.normal(0, 1, (400, 1))
    called = [
        likelihood_ratio(
            rng.normal(mean, 1, n), *np.broadcast_arrays(np.zeros((400, n)), inside, outside)[1:]
        )
        > 0
        for mean in (d, 0.0)
    ]
    right = (called[0].mean() + 1 - called[1].mean()) / 2
    assert right == pytest.approx(norm.cdf(d / 2), abs=0.025)


def memory(noise):
    """Give a training that remembers a share of what it saw, and nothing else."""

    def train(samples, seed):
        generator = torch.Generator().manual_seed(seed)
        layer = nn.Linear(40, 2, bias=False)
        seen = nn.functional.one_hot(samples.y, 2).float().T @ samples.inputs
        layer.weight.data = 3 * seen + noise * torch.randn(2, 40, generator=generator)
        return layer

    return train


def test_lira_finds_planted_members_and_only_them():
    X, y = torch.eye(40), torch.arange(40) % 2
    pool, train = as_samples((X, y)), memory(0.5)
    model = train(pool.select(torch.arange(20)), 99)
    attack = lira(model, pool, train, n_models=16)
    # A member's margin is 3, with a spread of 0.5 times the root of 2: right in Phi(2.12) = 98 %.
    assert attack.accuracy == pytest.approx(norm.cdf(1.5 / (0.5 * 2**0.5)), abs=0.03)
    assert (attack.scores[:20] > 0).mean() > 0.85 > 0.15 > (attack.scores[20:] > 0).mean()
    assert (attack.n_inside, attack.n_outside) == (8, 8)
    forgetful = lira(model, pool, memory(1e4), n_models=16)  # what was seen drowns in noise
    assert abs(forgetful.accuracy - 0.5) < 0.06


def test_u_lira_tells_an_empty_unlearning_and_passes_an_exact_one():
    X, y = torch.eye(40), torch.arange(40) % 2
    forget, retain, train = (X[:20], y[:20]), (X[20:], y[20:]), memory(0.5)
    kept = as_samples(retain)
    seeds = iter(range(1000, 2000))
    exact = SimpleNamespace(
        unlearn=lambda model, **_: SimpleNamespace(model=train(kept, next(seeds)))
    )
    nothing = SimpleNamespace(unlearn=lambda model, **_: model)
    model = train(as_samples((X, y)), 7)
    told = u_lira(model, forget, retain, train, nothing, n_models=16)
    assert told.accuracy > 0.95
    assert told.share > 0.85
    assert told.inside > 0.9 > 0.1 > told.outside
    passed = u_lira(train(kept, 7), forget, retain, train, exact, n_models=40)
    assert abs(passed.accuracy - 0.5) < 0.1


def test_too_few_shadow_models_are_an_error_and_no_accusation():
    X, y = torch.eye(8).repeat(5, 5)[:, :40], torch.arange(40) % 2
    parts = (X[:20] + 1, y[:20]), (X[20:], y[20:])
    train = memory(0.5)
    model = train(as_samples((X, y)), 0)
    with pytest.raises(InputError, match=r"n_models must be even and at least 8, got 4") as caught:
        lira(model, (X, y), train, n_models=4)
    assert caught.value.code == "CL-INPUT-FEW"
    with pytest.raises(InputError, match="at least 8, got 9"):
        u_lira(model, *parts, train, SimpleNamespace(unlearn=lambda m, **_: m), n_models=9)
    with pytest.raises(InputError, match="`outside` holds 3 shadow models for a sample"):
        likelihood_ratio(np.zeros(2), np.zeros((4, 2)), np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"method must have unlearn\(model"):
        u_lira(model, *parts, train, "SalUn")


def test_neighbours_tell_a_mask_and_not_a_second_draw_of_the_same_law():
    rng = np.random.default_rng(3)
    law = [1e-3, 6.0, 3.0, 1.0, 1.0]
    first, again = rng.dirichlet(law, 2000), rng.dirichlet(law, 2000)
    options = {"max_samples": 2000}
    assert neighbour_attack(again, first, [0], **options) < 0.54
    other = rng.dirichlet([1e-3, 3.0, 6.0, 1.0, 1.0], 2000)
    assert neighbour_attack(other, first, [0], **options) > 0.7
    # The forgotten class is not looked at: its share may be anything.
    masked = np.concatenate([np.full((2000, 1), 0.5), first[:, 1:] / 2], axis=1)
    assert neighbour_attack(masked, first, [0], **options) == pytest.approx(
        neighbour_attack(first, first, [0], **options), abs=0.02
    )


def test_neighbours_reach_the_bayes_rate_of_two_normal_laws():
    """Log-odds of the one neighbour a distance 1 apart, spread 1: right in Phi(1 / 2) of cases."""
    rng = np.random.default_rng(4)

    def answers(mean):
        odds = 1 / (1 + np.exp(-rng.normal(mean, 1, 4000)))
        return np.stack([np.zeros(4000), odds, 1 - odds], axis=1)

    found = neighbour_attack(answers(2.0), answers(1.0), [0], neighbours=1, max_samples=4000)
    assert found == pytest.approx(norm.cdf(0.5), abs=0.015)
