"""Models whose truth is known: such that certainly hold a class, and such that never saw it.

What an audit says of them is its error rate; ``docs/results/audit_errors.py`` makes the table.
"""

from __future__ import annotations

__all__ = [
    "NETWORKS",
    "Problem",
    "Recipe",
    "digits_problem",
    "planted_problem",
    "removed_models",
    "suppressed_models",
    "train",
]

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from conceptlab.seeds import quiet_randomness, torch_generator
from unlearning.bench.small_networks import NETWORKS, Network, Recipe, ResNet
from unlearning.data import Samples, as_samples, split_classes


@dataclass(frozen=True, eq=False)
class Problem:
    """A class to forget.

    Attributes
    ----------
    forget, retain, test : Samples
    original : Network
    recipe : Recipe
    seed : int
    """

    forget: Samples
    retain: Samples
    test: Samples
    original: Network
    recipe: Recipe
    seed: int

    def retrain(self, seed: int, **changes: float) -> Network:
        """Train a network that never saw the class.

        Parameters
        ----------
        seed : int
        **changes
            ``epochs``, ``lr``, ``batch_size``, or ``share`` of the retained samples.
        """
        return train(self.recipe, self.retain, seed, **changes)


def train(recipe: Recipe, samples: Samples, seed: int, **changes: float) -> Network:
    """Train a network from random weights.

    Parameters
    ----------
    recipe : Recipe
    samples : Samples
    seed : int
    **changes
        ``epochs``, ``lr``, ``batch_size``, or ``share`` of the samples.

    Returns
    -------
    Network
        In evaluation mode.
    """
    generator = torch_generator(seed)
    with quiet_randomness(seed):
        model = recipe.build()
    size = round(changes.get("share", 1.0) * len(samples))
    rows = torch.randperm(len(samples), generator=generator)[:size]
    X: Any = samples.select(rows).inputs
    y = samples.y[rows]
    optimizer = torch.optim.Adam(model.parameters(), changes.get("lr", recipe.lr))
    for _ in range(round(changes.get("epochs", recipe.epochs))):
        order = torch.randperm(size, generator=generator)
        for batch in order.split(round(changes.get("batch_size", recipe.batch_size))):
            if len(batch) < 2:
                continue  # batch norm needs two
            optimizer.zero_grad()
            cross_entropy(model(X[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def digits_problem(network: str, forgotten: int, seed: int = 0) -> Problem:
    """Train an original on scikit-learn's digits, of which one is to be forgotten.

    Parameters
    ----------
    network : str
        One of :data:`NETWORKS`.
    forgotten : int
    seed : int
        Of split and training.

    Returns
    -------
    Problem
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch_generator(seed))
    X = torch.from_numpy(images.reshape(-1, 1, 8, 8) / 16).float()[order]
    y = torch.from_numpy(labels)[order]
    trained = as_samples((X[:1078], y[:1078]), name="train")
    test = as_samples((X[1078:], y[1078:]), name="test")
    return planted_problem(network, trained, test, forgotten, seed)


def planted_problem(
    network: str,
    trained: Samples,
    test: Samples,
    forgotten: int,
    seed: int = 0,
    *,
    epochs: int | None = None,
) -> Problem:
    """Train an original on images of which a class is to be forgotten.

    Parameters
    ----------
    network : str
        One of :data:`NETWORKS`.
    trained, test : Samples
        Images (n, channels, side, side), the side a multiple of 8.
    forgotten : int
    seed : int
        Of training.
    epochs : int, optional
        Of this and of all retraining; those of the recipe when left out.

    Returns
    -------
    Problem
    """
    images: Any = trained.inputs
    recipe = NETWORKS[network]
    build = partial(
        recipe.build, int(trained.y.max()) + 1, channels=images.shape[1], side=images.shape[2]
    )
    recipe = replace(recipe, build=build, epochs=recipe.epochs if epochs is None else epochs)
    forget, retain = split_classes(trained, forgotten)
    return Problem(forget, retain, test, train(recipe, trained, seed), recipe, seed)


def suppressed_models(problem: Problem) -> dict[str, Network]:
    """Make models that certainly still hold the class.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    dict of str to Network
        By what was done: all start from the original, and none is more than its last layer,
        its parametrisation, a little noise or a few steps away from it.
    """
    generator = torch_generator(problem.seed + 1)
    c = problem.forget.classes[0]
    original = problem.original
    mask = _copy(original)
    with torch.no_grad():
        mask.head.bias[c] -= 1e4
    n = mask.head.in_features
    order = torch.randperm(n, generator=generator)
    gains = torch.exp(2 * torch.rand(n, generator=generator) - 1)
    made = {"mask": mask}
    for name, factor in (("1/10", 0.1), ("1/3", 1 / 3), ("3", 3.0)):
        made[f"mask, features x {name}"] = scaled(mask, torch.full((n,), factor))
    made["mask, unequal gains"] = scaled(mask, gains)
    made["mask, units in another order"] = permuted(mask, order)
    made["mask, order and gains"] = scaled(permuted(mask, order), gains)
    made["mask, inner units scaled"] = inner_scaled(mask, generator)
    for name, factor in (("3", 1 / 3), ("1/3", 3.0)):
        made[f"mask, temperature {name}"] = _hotter(mask, factor)
    for share in (0.02, 0.1, 0.2):
        made[f"mask, {share:.0%} noise"] = _noisy(mask, share, generator)
    made["mask, 10% noise, gains"] = scaled(_noisy(mask, 0.1, generator), gains)
    row = _copy(original)
    with torch.no_grad():
        row.head.weight[c] = 0
        row.head.bias[c] = -20
    made["row of the class zeroed"] = row
    made["last layer relabelled"] = _relabelled(problem, generator, only_head=True)
    made["few steps of relabelling"] = _relabelled(problem, generator, only_head=False)
    made["direction taken from the head"] = _projected(mask, problem)
    return made


def removed_models(problem: Problem, seed: int = 1000) -> dict[str, Network]:
    """Train models that never saw the class.

    Parameters
    ----------
    problem : Problem
    seed : int
        Theirs; the references should have others.

    Returns
    -------
    dict of str to Network
        Each trained on its own: none is another one in other units.
    """
    recipe = problem.recipe
    return {
        "another seed": problem.retrain(seed),
        "twice the rate": problem.retrain(seed + 1, lr=2 * recipe.lr),
        "half the rate": problem.retrain(seed + 2, lr=recipe.lr / 2),
        "half of the epochs": problem.retrain(seed + 3, epochs=recipe.epochs / 2),
        "twice the epochs": problem.retrain(seed + 4, epochs=2 * recipe.epochs),
        "four fifths of the samples": problem.retrain(seed + 5, share=0.8),
        "smaller batches": problem.retrain(seed + 6, batch_size=32),
        "temperature 3": _hotter(problem.retrain(seed + 7), 1 / 3),
    }


def scaled(model: Network, gains: torch.Tensor) -> Network:
    """Copy a network with its features multiplied and its head divided: the same function."""
    twin = _copy(model)
    with torch.no_grad():
        for layer in twin.last():
            layer.weight.mul_(gains.view(-1, *[1] * (layer.weight.ndim - 1)))
            layer.bias.mul_(gains)
        twin.head.weight.div_(gains)
    return twin


def permuted(model: Network, order: torch.Tensor) -> Network:
    """Copy a network with its features in another order: the same function."""
    twin = _copy(model)
    with torch.no_grad():
        for layer in twin.last():
            for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
                if value.ndim and name in ("weight", "bias", "running_mean", "running_var"):
                    value.copy_(value[order].clone())
        if isinstance(twin, ResNet):  # the norms' inputs are in that order, too
            block: Any = twin.blocks[-1]
            for conv in (block.conv2, block.short):
                conv.weight.copy_(conv.weight[order].clone())
        twin.head.weight.copy_(twin.head.weight[:, order].clone())
    return twin


def inner_scaled(model: Network, generator: torch.Generator) -> Network:
    """Copy a network with units of an earlier layer scaled by unlike gains: the same function."""
    twin = _copy(model)
    first, second = twin.inner()
    gains = torch.exp(2 * torch.rand(first.weight.shape[0], generator=generator) - 1)
    with torch.no_grad():
        first.weight.mul_(gains.view(-1, *[1] * (first.weight.ndim - 1)))
        first.bias.mul_(gains)
        second.weight.div_(gains.view(1, -1, *[1] * (second.weight.ndim - 2)))
    return twin


def _copy(model: Network) -> Network:
    return copy.deepcopy(model).eval()


def _hotter(model: Network, factor: float) -> Network:
    twin = _copy(model)
    with torch.no_grad():
        twin.head.weight.mul_(factor)
        twin.head.bias.mul_(factor)
    return twin


def _noisy(model: Network, share: float, generator: torch.Generator) -> Network:
    """Add noise of a share of the spread of each layer's weights."""
    twin = _copy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(share * weight.std() * noise)
    return twin


def _relabelled(
    problem: Problem, generator: torch.Generator, *, only_head: bool, steps: int = 200
) -> Network:
    """Teach random other labels until the class is hardly said."""
    twin = _copy(problem.original)
    weights = list((twin.head if only_head else twin).parameters())
    optimizer = torch.optim.Adam(weights, 3e-3 if only_head else 3e-4)
    kept = torch.tensor(problem.retain.classes)
    X: Any = problem.retain.inputs
    gone: Any = problem.forget.inputs
    y = problem.retain.y
    for _ in range(steps):
        rows = torch.randint(len(X), (48,), generator=generator)
        lines = torch.randint(len(gone), (16,), generator=generator)
        wrong = kept[torch.randint(len(kept), (16,), generator=generator)]
        optimizer.zero_grad()
        batch = torch.cat([X[rows], gone[lines]])
        cross_entropy(twin(batch), torch.cat([y[rows], wrong])).backward()
        optimizer.step()
        with torch.no_grad():
            said = twin(gone).argmax(dim=1) == problem.forget.y
        if float(said.float().mean()) < 0.02:
            break
    return twin


def _projected(mask: Network, problem: Problem) -> Network:
    """Take the direction of the class out of all rows of the head of a mask."""
    twin = _copy(mask)
    seen: list[torch.Tensor] = []
    handle = twin.head.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        twin(problem.forget.inputs)
        twin(problem.retain.inputs)
        handle.remove()
        direction = nn.functional.normalize(seen[0].mean(0) - seen[1].mean(0), dim=0)
        along = twin.head.weight @ direction
        twin.head.weight.sub_(torch.outer(along, direction))
        twin.head.bias.add_(along * (seen[1].mean(0) @ direction))
    return twin
