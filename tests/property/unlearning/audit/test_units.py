"""No change of units moves a figure or the verdict: gains, order, turns, temperature, folding."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unlearning.audit import Training, audit
from unlearning.bench.planted import (
    NETWORKS,
    Problem,
    Recipe,
    digits_problem,
    inner_scaled,
    permuted,
    scaled,
    train,
)

ROUNDED = ("fa_int8", "ta_int8", "fa_int4", "ta_int4")
"""Weights at few bits are rounded in their own units, so gains of what enters a layer count."""


@pytest.fixture(scope="module", params=list(NETWORKS))
def world(request, tmp_path_factory):
    """A small problem, its mask and two retrained models, each trained for two epochs."""
    patched = {**NETWORKS, request.param: Recipe(NETWORKS[request.param].build, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlearning.bench.planted.NETWORKS", patched)
        problem = digits_problem(request.param, 0, 0)
    mask = copy.deepcopy(problem.original)
    with torch.no_grad():
        mask.head.bias[0] -= 1e4
    return problem, mask, [problem.retrain(1), problem.retrain(2)]


def report(problem, model, references, **options):
    return audit(
        problem.original,
        model,
        forget=problem.forget,
        retain=problem.retain,
        test=problem.test,
        retrained=references,
        **{
            "relearn": True,
            "max_steps": 3,
            "attacker": Training(batch_size=32),
            "bits": (),
            **options,
        },
        max_samples=240,
    )


def folded(model):
    """Put every norm behind a convolution into its weights."""
    twin = copy.deepcopy(model)
    pairs = [(twin, "stem", "norm")]
    for block in twin.blocks:
        pairs += [(block, "conv1", "norm1"), (block, "conv2", "norm2")]
        pairs += [(block, "short", "short_norm")]
    for owner, conv, norm in pairs:
        fused = fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm))
        setattr(owner, conv, fused)
        setattr(owner, norm, nn.Identity())
    return twin


def hotter(model, factor):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.head.weight.mul_(factor)
        twin.head.bias.mul_(factor)
    return twin


def same(first, second, *, but=()):
    assert first.verdict.word == second.verdict.word
    for key in set(first.figures()) | set(second.figures()):
        if key not in (*but, *ROUNDED):
            # A sample or two lie on the border that the attack's machine draws.
            near = 5e-3 if key.startswith("mia") else 1e-3
            assert first.value(key) == pytest.approx(second.value(key), abs=near), key


def test_gains_and_order_of_units_move_nothing(world):
    problem, mask, references = world
    generator = torch.Generator().manual_seed(0)
    n = mask.head.in_features
    gains = torch.exp(3 * torch.rand(n, generator=generator) - 1)
    order = torch.randperm(n, generator=generator)
    plain = report(problem, mask, references)
    assert plain.verdict.word == "suppressed"
    changed = [scaled(inner_scaled(permuted(mask, order), generator), gains)]
    if hasattr(mask, "blocks"):
        changed.append(folded(mask))
    for model in changed:
        with torch.no_grad():
            x = problem.test.inputs
            torch.testing.assert_close(model(x), mask(x), rtol=1e-4, atol=1e-3)
        same(plain, report(problem, model, references))


def test_temperature_moves_no_answer(world):
    problem, _, references = world
    first = report(problem, references[0], references[1:], relearn=False)
    second = report(problem, hotter(references[0], 3.0), references[1:], relearn=False)
    same(first, second, but=("temperature",))
    ratio = second.value("temperature") / first.value("temperature")
    assert ratio == pytest.approx(3.0, rel=1e-4)


class Linear(nn.Module):
    """A network whose features are not bent, so that they can be turned."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 48), nn.Linear(48, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).relu()))


def test_rotated_features_move_nothing():
    base = digits_problem("MLP", 0, 0)
    recipe = Recipe(Linear, 3)
    original = train(recipe, base.retain, 0)  # the head does not matter here
    problem = Problem(base.forget, base.retain, base.test, base.original, recipe, 0)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1)))[0]
    model = copy.deepcopy(original)
    with torch.no_grad():
        model.second.weight.copy_(turn @ original.second.weight)
        model.second.bias.copy_(turn @ original.second.bias)
        model.head.weight.copy_(original.head.weight @ turn.T)
    references = [problem.retrain(5)]
    options = {"relearn": False}
    same(*(report(problem, m, references, **options) for m in (original, model)))
