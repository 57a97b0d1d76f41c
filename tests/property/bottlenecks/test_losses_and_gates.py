"""Gates and losses of the concept layer: what is promised, and what the released losses do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from bottlenecks.gates import budget_threshold, gumbel, sample_gates, temperatures
from bottlenecks.losses import (
    positives_loss,
    reference_contrastive,
    reference_gumbel,
    reference_l1,
)

seeds = st.integers(0, 10_000)


def draw(seed, rows=12, columns=7, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(scale * rng.normal(size=(rows, columns)))
    return logits, torch.tensor(rng.random((rows, columns)) < 0.3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ gates
@given(seeds, st.floats(0, 0.99), st.integers(1, 40), st.integers(1, 9))
def test_budget_shuts_exactly_its_share(seed, sparsity, n, k):
    margins = torch.tensor(np.random.default_rng(seed).permutation(n * k).reshape(n, k) - 3.0)
    threshold = budget_threshold(margins, sparsity)
    assert int((margins <= threshold).sum()) == np.ceil(sparsity * n * k)


def test_gates_open_as_often_as_their_probability():
    logits = torch.tensor([-2.0, 0.0, 1.0]).repeat(20_000, 1)
    share = sample_gates(logits, 0.3, generator()).mean(dim=0)
    torch.testing.assert_close(share, torch.sigmoid(logits[0]), atol=0.012, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.05, 1e-3])
def test_hard_gates_are_zero_or_one_with_the_gradient_of_the_relaxation(temperature):
    hard_at, soft_at = (torch.linspace(-3, 3, 50).requires_grad_() for _ in range(2))
    hard = sample_gates(hard_at, temperature, generator(1))
    soft = sample_gates(soft_at, temperature, generator(1), hard=False)
    assert set(hard.detach().tolist()) <= {0.0, 1.0}
    assert ((soft.detach() > 0.5) == (hard.detach() == 1)).all()
    hard.sum().backward()
    soft.sum().backward()
    assert torch.equal(hard_at.grad, soft_at.grad)
    assert torch.isfinite(hard_at.grad).all()


def test_gumbel_noise_has_its_mean_and_variance():
    noise = gumbel((200_000,), generator(), torch.zeros(1, dtype=torch.float64))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(np.pi**2 / 6, abs=0.03)


def test_temperature_is_constant_or_falls_geometrically():
    assert temperatures(0.5, 3).tolist() == [0.5, 0.5, 0.5]
    np.testing.assert_allclose(temperatures((1.0, 0.01), 3), [1.0, 0.1, 0.01])


# ------------------------------------------------------------------ the loss that means it
@given(seeds)
def test_positives_loss_is_its_formula(seed):
    logits, table = draw(seed)
    terms = []
    for axis in (0, 1):
        p = np.exp(log_softmax(logits.numpy(), axis=axis))
        mass = (p * table.numpy()).sum(axis=axis)
        terms.append(-np.log(mass[mass > 0]).mean() if (mass > 0).any() else 0.0)
    assert float(positives_loss(logits, table)) == pytest.approx(np.mean(terms))


@given(seeds)
def test_positives_loss_does_not_depend_on_the_order_of_concepts_or_rows(seed):
    logits, table = draw(seed)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(12), rng.permutation(7)
    again = positives_loss(logits[rows][:, columns], table[rows][:, columns])
    torch.testing.assert_close(again, positives_loss(logits, table))


@given(seeds, st.sampled_from([1.0, 0.1, 1e-3]))
def test_positives_loss_and_its_gradient_are_finite(seed, temperature):
    logits, table = draw(seed, scale=30.0)
    logits.requires_grad_()
    loss = positives_loss(logits, table, temperature=temperature, generator=generator(seed))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_positives_loss_draws_positives_up():
    logits, table = draw(0)
    logits.requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        positives_loss(logits, table).backward()
        optimiser.step()
    found = logits.detach()
    assert found[table].mean() > found[~table].mean() + 4


# ------------------------------------------------------------------ the losses as released
def test_released_contrastive_loss_depends_on_the_order_of_concepts():
    a, _ = draw(0)
    values = {
        round(float(reference_contrastive(a[:, torch.tensor(p)])), 6)
        for p in (range(7), [1, 0, *range(2, 7)], range(6, -1, -1))
    }
    assert len(values) == 3
    by_hand = -(log_softmax(a.numpy(), axis=0) + log_softmax(a.numpy(), axis=1))
    expected = np.diagonal(by_hand).mean() / 2
    assert float(reference_contrastive(a)) == pytest.approx(expected)


def test_released_contrastive_loss_gives_concepts_beyond_the_batch_no_positive():
    a, _ = draw(1, rows=4)
    a.requires_grad_()
    reference_contrastive(a).backward()
    assert (a.grad[:, 4:] >= 0).all()  # they are only ever pushed down


def test_released_gumbel_loss_flattens_activations():
    a, _ = draw(2, rows=32, columns=16)
    a.requires_grad_()
    optimiser, noise = torch.optim.Adam([a], lr=0.05), generator()

    def spread():
        b = a.detach()
        return float((b - b.mean(0) - b.mean(1, keepdim=True) + b.mean()).std())

    before = spread()
    for _ in range(300):
        optimiser.zero_grad()
        reference_gumbel(a, 1.0, noise).backward()
        optimiser.step()
    assert spread() < before / 4
    assert (a.detach() != 0).all()


def test_released_gumbel_loss_is_infinite_with_hard_samples():
    a, _ = draw(3)
    assert torch.isinf(reference_gumbel(a, 1.0, generator(), hard=True))
    assert torch.isfinite(reference_gumbel(a, 1.0, generator()))


def test_released_l1_penalty_leaves_no_weight_at_zero():
    weight = torch.randn(8, 8, generator=generator(), requires_grad=True)
    assert float(reference_l1(weight.detach(), 2.0)) == pytest.approx(
        float(weight.detach().abs().sum()) / 4
    )
    optimiser = torch.optim.Adam([weight], lr=0.01)
    for _ in range(500):
        optimiser.zero_grad()
        reference_l1(weight).backward()
        optimiser.step()
    assert (weight != 0).all()
