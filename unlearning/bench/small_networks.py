"""Small networks for models whose truth is known."""

from __future__ import annotations

__all__ = ["CNN", "MLP", "NETWORKS", "Block", "Network", "Recipe", "ResNet"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


class Network(nn.Module):
    """A classifier whose features and inner units can be put into other units."""

    head: nn.Linear

    def last(self) -> list[Any]:
        """Give the layers whose units are the features."""
        raise NotImplementedError

    def inner(self) -> tuple[Any, Any]:
        """Give two layers between which units can be scaled."""
        raise NotImplementedError


class MLP(Network):
    """Two hidden layers; like all here for images of side 8, or a multiple of it."""

    def __init__(self, n_classes: int = 10, channels: int = 1, side: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels * side**2, 128), nn.Linear(128, 64)
        self.head = nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits."""
        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())

    def last(self) -> list[Any]:
        """Give the layers whose units are the features."""
        return [self.second]

    def inner(self) -> tuple[Any, Any]:
        """Give two layers between which units can be scaled."""
        return self.first, self.second


class CNN(Network):
    """Three convolutions, the mean over positions, a hidden layer."""

    def __init__(self, n_classes: int = 10, channels: int = 1, side: int = 8) -> None:
        super().__init__()
        patch = side // 8
        self.body = nn.ModuleList(
            [
                nn.Conv2d(channels, 16, patch + 2, patch, padding=1),
                nn.Conv2d(16, 32, 3, 2, padding=1),
                nn.Conv2d(32, 32, 3, 2, padding=1),
            ]
        )
        self.hidden, self.head = nn.Linear(128, 64), nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits."""
        for layer in self.body:
            x = layer(x).relu()
        return self.head(self.hidden(x.flatten(1)).relu())

    def last(self) -> list[Any]:
        """Give the layers whose units are the features."""
        return [self.hidden]

    def inner(self) -> tuple[Any, Any]:
        """Give two layers between which units can be scaled."""
        return self.body[0], self.body[1]


class Block(nn.Module):
    """Two convolutions with norms beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.short = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        self.short_norm = nn.BatchNorm2d(n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the block's activations."""
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (y + self.short_norm(self.short(x))).relu()


class ResNet(Network):
    """A stem and two residual blocks with batch norm, the mean over positions."""

    def __init__(self, n_classes: int = 10, channels: int = 1, side: int = 8) -> None:
        super().__init__()
        patch = side // 8
        self.stem = nn.Conv2d(channels, 16, patch + 2, patch, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits."""
        return self.head(self.blocks(self.norm(self.stem(x)).relu()).mean(dim=(2, 3)))

    def last(self) -> list[Any]:
        """Give the layers whose units are the features."""
        block: Any = self.blocks[-1]
        return [block.norm2, block.short_norm]

    def inner(self) -> tuple[Any, Any]:
        """Give two layers between which units can be scaled."""
        block: Any = self.blocks[0]
        return block.norm1, block.conv2


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam, cross-entropy.

    Attributes
    ----------
    build : callable
        Of the number of classes, of channels, and the side of the images.
    epochs, lr, batch_size
    """

    build: Callable[..., Network]
    epochs: int
    lr: float = 3e-3
    batch_size: int = 64


NETWORKS: dict[str, Recipe] = {
    "MLP": Recipe(MLP, 20),
    "CNN": Recipe(CNN, 12),
    "residual net": Recipe(ResNet, 8),
}
"""Small networks by name, with their recipe."""
