"""A layer in words a person knows: how deep it lies, and what it gives."""

from __future__ import annotations

__all__ = ["layer_words"]

from conceptlab.models.split import SplitModel

_PASSED_OVER = ("norm", "dropout")


def layer_words(split: SplitModel) -> str:
    """Say how deep a cut layer lies in its model, and what it gives.

    Parameters
    ----------
    split : SplitModel
        Cut, and run once. Layers with weights are counted in the order in which the model names
        them; normalisations do not count.

    Returns
    -------
    str

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> split = SplitModel(model, at="1")
    >>> activations = split.g(torch.rand(2, 3, 8, 8))
    >>> layer_words(split)
    'layer 1 (after 1 of 2 layers with weights; 4 numbers at each of 6 x 6 places)'
    """
    modules = list(split.model.named_modules())
    inside = [
        i
        for i, (name, _) in enumerate(modules)
        if name == split.layer or name.startswith(f"{split.layer}.")
    ]
    weighted = [
        i
        for i, (_, module) in enumerate(modules)
        if any(True for _ in module.parameters(recurse=False))
        and not any(word in type(module).__name__.lower() for word in _PASSED_OVER)
    ]
    told = []
    if inside and weighted:
        before = sum(i <= inside[-1] for i in weighted)
        told.append(f"after {before} of {len(weighted)} layers with weights")
    grid = split.grid
    numbers = f"{split.n_channels} numbers"
    told.append(f"{numbers} at each of {grid[0]} x {grid[1]} places" if grid else numbers)
    name = str(split.layer)
    return f"{name if name.startswith('layer') else f'layer {name}'} ({'; '.join(told)})"
