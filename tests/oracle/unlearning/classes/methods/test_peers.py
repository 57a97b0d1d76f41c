"""DAMP, TRW and LoTUS, derived again: projections, tilted answers, temperatures."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab.errors import SplitError
from unlearning import DAMP, TRW, LoTUS, SoftRelabel, split_classes
from unlearning.classes.methods.damp import forget_directions
from unlearning.classes.methods.trw import tilted_targets

PLAIN = {"epochs": 1, "lr": 0.1, "batch_size": 24, "random_state": 0}


def world(bias=True, n=24, d=9):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 4
    X = 3 * torch.eye(4, d)[y] + torch.randn(n, d, generator=generator)
    model = nn.Sequential(nn.Linear(d, 7), nn.Tanh(), nn.Linear(7, 4, bias=bias))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model, *split_classes((X, y), 2)


def test_damp_takes_the_residual_of_the_class_out_of_a_linear_layer():
    """By least squares with numpy: what of mu_f - m the others' differences cannot say."""
    _, forget, retain = world()
    layer = nn.Linear(9, 4)
    W, b = (v.detach().double().numpy() for v in (layer.weight, layer.bias))
    means = np.stack([retain.inputs[retain.y == c].double().mean(0).numpy() for c in (0, 1, 3)])
    centre = means.mean(axis=0)
    away = forget.inputs.double().mean(0).numpy() - centre
    A = (means - centre).T
    left = away - A @ np.linalg.lstsq(A, away, rcond=None)[0]
    u = left / np.linalg.norm(left)
    result = DAMP().unlearn(layer, forget=forget, retain=retain)
    along = [abs((s.inputs.double().numpy() - centre) @ u) for s in (forget, retain)]
    pairs = np.subtract.outer(*along)
    a = 2 * float(np.mean(pairs > 0)) - 1
    assert result.details["strength"][""] == pytest.approx(a, abs=1e-6)
    assert 0 < a <= 1
    expected = W - a * np.outer(W @ u, u)
    np.testing.assert_allclose(result.model.weight.detach(), expected, atol=1e-5)
    np.testing.assert_allclose(
        result.model.bias.detach(), b + a * (W @ u) * (u @ centre), atol=1e-5
    )
    for point in means:  # what retained prototypes are answered stays
        before, after = (
            m(torch.tensor(point).float()[None]).detach() for m in (layer, result.model)
        )
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_damp_finds_a_plane_for_two_classes_and_nothing_in_the_span():
    kept = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    gone = torch.tensor([[0, 0, 2.0, 0], [0, 0, 0, 3.0]])
    basis, centre = forget_directions(kept, gone)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    torch.testing.assert_close(
        basis @ basis.T @ (kept[0] - kept[1]), torch.zeros(4), atol=1e-6, rtol=0
    )
    assert forget_directions(kept, 2 * kept[:1] - centre)[0].shape == (4, 0)


def test_damp_projects_the_channels_of_a_convolution():
    """A 1x1 convolution on constant maps is a linear layer, and gets the same weights."""
    _, forget, retain = world()
    linear = nn.Sequential(nn.Linear(9, 4))
    conv = nn.Sequential(nn.Conv2d(9, 4, 1), nn.Flatten())
    with torch.no_grad():
        conv[0].weight.copy_(linear[0].weight[:, :, None, None])
        conv[0].bias.copy_(linear[0].bias)
    maps = [(s.inputs[:, :, None, None], s.y) for s in (forget, retain)]
    first = DAMP().unlearn(linear, forget=forget, retain=retain).model[0]
    second = DAMP().unlearn(conv, forget=maps[0], retain=maps[1]).model[0]
    torch.testing.assert_close(first.weight, second.weight[:, :, 0, 0])
    torch.testing.assert_close(first.bias, second.bias)
    kernel = nn.Conv2d(9, 4, (2, 2))  # positions of a kernel go by channel, each by itself
    wide = [(s.inputs[:, :, None, None].expand(-1, -1, 2, 2), s.y) for s in (forget, retain)]
    net = nn.Sequential(kernel, nn.Flatten())
    third = DAMP().unlearn(net, forget=wide[0], retain=wide[1])
    lost = (kernel.weight - third.model[0].weight).detach().permute(0, 2, 3, 1).reshape(-1, 9)
    assert int(torch.linalg.matrix_rank(lost, tol=1e-5)) == 1


def test_damp_says_where_there_is_nothing_to_project():
    _, forget, retain = world()
    net = nn.Sequential(nn.Linear(9, 4))
    net[0].weight.requires_grad_(False)
    with pytest.raises(SplitError, match="nothing to project"):
        DAMP().unlearn(net, forget=forget, retain=retain)


def test_trw_tilts_the_other_answers_by_the_likeness_of_classes():
    generator = torch.Generator().manual_seed(1)
    z, W = torch.randn(5, 4, generator=generator), torch.randn(4, 3, generator=generator)
    y = torch.tensor([2, 2, 3, 2, 3])
    found = tilted_targets(z, y, W, [0, 1], 1.7)
    for row, label, t in zip(z, y, found, strict=True):
        weight = torch.zeros(4)
        for j in (0, 1):
            cosine = W[j] @ W[label] / (W[j].norm() * W[label].norm())
            weight[j] = row.softmax(0)[j] * math.exp(1.7 * cosine)
        torch.testing.assert_close(t, weight / weight.sum())


def test_trw_without_a_tilt_is_soft_relabelling():
    model, forget, retain = world()
    first, second = (
        method.unlearn(model, forget=forget, retain=retain)
        for method in (TRW(beta=0, **PLAIN), SoftRelabel(**PLAIN))
    )
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_lotus_heats_by_how_much_is_known():
    """T = exp(alpha A_f), with A_f looked at before each epoch."""
    model, forget, retain = world()
    known = float((model(forget.inputs).argmax(1) == forget.y).float().mean())
    result = LoTUS(alpha=1.5, **PLAIN).unlearn(model, forget=forget, retain=retain)
    assert result.details["temperatures"] == [pytest.approx(math.exp(1.5 * known))]


def test_lotus_teaches_the_original_with_gumbel_noise():
    """Retained: the class it names. To forget: softmax((z + g) / T), E[argmax] ~ softmax(z)."""
    model, forget, retain = world()
    same = forget.select(torch.zeros(4000, dtype=torch.int64))
    same = same.__class__(same.inputs + 1e-6 * torch.randn(4000, 9), same.y)
    sure = LoTUS(epochs=1, lr=1e-12, alpha=1e-9, batch_size=8000, random_state=0)
    result = sure.unlearn(model, forget=same, retain=retain)
    # At T = 1 the expected cross-entropy of a draw is linear in its mean, which is estimated.
    z = model(forget.inputs[:1]).detach()[0].double().numpy()
    draws = np.random.default_rng(0).gumbel(size=(200_000, 4)) + z
    p = np.exp(draws - draws.max(1, keepdims=True))
    mean = (p / p.sum(1, keepdims=True)).mean(0)
    log_p = z - np.logaddexp.reduce(z)
    n = round(0.3 * len(retain))
    said = model(retain.inputs).detach().log_softmax(1).amax(1)
    low, high = -said.max().item(), -said.min().item()
    found = result.history[0]["loss"] * (4000 + n)
    assert 4000 * -(mean @ log_p) + n * low == pytest.approx(found, rel=0.05, abs=n * (high - low))
