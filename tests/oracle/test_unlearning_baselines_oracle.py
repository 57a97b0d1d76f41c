"""Formulas of the baselines of class unlearning, derived again by hand or by a library."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from conceptlab.errors import InputError
from unlearning.classes.curvature import fisher_diagonal, squared_gradients
from unlearning.classes.distillation import kl_to_teacher, random_teacher


def small_net(seed=0):
    """Make a convolutional net with batch norm in eval mode, with its own statistics."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        yield


# -- divergence to a teacher
@given(st.integers(0, 1000), st.sampled_from([0.5, 1.0, 4.0]))
def test_divergence_against_torch_distributions(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
                        for _ in range(2))  # fmt: skip
    p, q = (torch.distributions.Categorical(logits=v / temperature) for v in (teacher, student))
    expected = torch.distributions.kl_divergence(p, q).mean()
    assert float(kl_to_teacher(student, teacher, temperature)) == pytest.approx(float(expected))


def test_divergence_is_the_batch_mean_of_torch():
    student, teacher = torch.randn(4, 6), torch.randn(4, 6)
    expected = nn.functional.kl_div(
        student.log_softmax(1), teacher.softmax(1), reduction="batchmean"
    )
    assert float(kl_to_teacher(student, teacher)) == pytest.approx(float(expected), rel=1e-5)


def test_divergence_of_the_far_tail_is_finite():
    student = torch.tensor([[0.0, 200.0]])
    value = kl_to_teacher(student, -student)
    assert float(value) == pytest.approx(200.0)


def test_divergence_refuses_other_shapes():
    with pytest.raises(InputError, match="one shape"):
        kl_to_teacher(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="above 0"):
        kl_to_teacher(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)


# -- teacher that knows nothing
def test_random_teacher_is_new_at_every_depth():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.arange(6.0))
            self.block = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.BatchNorm1d(4))
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.block(x + self.token[:4]))

    model = Deep()
    model.block[1].running_mean.fill_(7.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (random_teacher(model, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    for name in ("token", "block.0.0.weight", "head.weight"):
        new = first.get_parameter(name)
        assert not torch.equal(new, before[name])
        assert torch.equal(new, again.get_parameter(name))
        assert not torch.equal(new, other.get_parameter(name))
    assert torch.equal(first.token.sort().values, before["token"])  # shuffled: the scale stays
    assert float(first.block[1].running_mean.abs().max()) == 0.0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())


# -- Fisher information
def logistic():
    """Make a softmax classifier with data."""
    generator = torch.Generator().manual_seed(3)
    net = nn.Linear(4, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    return net, torch.randn(40, 4, generator=generator, dtype=torch.float64)


def closed_form(net, x):
    """F of W_cj is mean p_c (1 - p_c) x_j², and of b_c mean p_c (1 - p_c)."""
    p = net(x).softmax(1).detach()
    v = p * (1 - p)
    return {"weight": v.T @ x.square() / len(x), "bias": v.mean(0)}


def test_fisher_of_a_logistic_model_is_its_closed_form():
    net, x = logistic()
    found = fisher_diagonal(net, x.split(16))
    for name, expected in closed_form(net, x).items():
        torch.testing.assert_close(found[name], expected)


def test_sampled_fisher_agrees_in_the_mean():
    net, x = logistic()
    generator = torch.Generator().manual_seed(0)
    draws = [
        fisher_diagonal(net, x.split(16), labels="sampled", generator=generator) for _ in range(400)
    ]
    for name, expected in closed_form(net, x).items():
        values = torch.stack([d[name] for d in draws])
        error = (values.mean(0) - expected).abs() / (values.std(0) / len(draws) ** 0.5)
        assert float(error.max()) < 4


def test_vectorised_fisher_is_that_of_single_samples(monkeypatch):
    net, x = small_net(), torch.randn(5, 1, 4, 4)
    fast = fisher_diagonal(net, [x])

    def refuse(*_, **__):
        raise RuntimeError("data-dependent control flow")

    monkeypatch.setattr("unlearning.classes.curvature.vmap", lambda *_, **__: refuse)
    slow = fisher_diagonal(net, [x])
    for name, value in fast.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-4, atol=1e-7)


def test_fisher_takes_dicts_tuples_and_frozen_parameters():
    class Dicts(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, scale):
            return type("Answer", (), {"logits": self.net(x) * scale[:, None]})()

    net, x = logistic()
    net.bias.requires_grad_(False)
    found = fisher_diagonal(Dicts(net), [{"x": x, "scale": torch.ones(len(x)).double()}])
    assert list(found) == ["net.weight"]
    torch.testing.assert_close(found["net.weight"], closed_form(net, x)["weight"])


def test_squared_gradients_by_hand():
    net = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -1.0]]))
    batches = [torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 5.0]])]
    # The loss is the mean output of a batch: its gradient is the mean row.
    found = squared_gradients(net, batches, lambda x: net(x).mean())
    expected = (np.array([2.0, 1.0]) ** 2 + np.array([0.0, 5.0]) ** 2) / 2
    np.testing.assert_allclose(found["weight"][0].numpy(), expected)
    assert net.weight.grad is None


def test_no_batch_is_an_error():
    net, _ = logistic()
    for call in (lambda: fisher_diagonal(net, []), lambda: squared_gradients(net, [], net)):
        with pytest.raises(InputError, match="no "):
            call()
    with pytest.raises(InputError, match="exact"):
        fisher_diagonal(net, [], labels="exat")
