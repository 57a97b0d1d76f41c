"""The embedded classifier's architecture: a small residual network."""

from __future__ import annotations

__all__ = ["SceneResNet"]

from collections.abc import Sequence

import torch
from torch import nn


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; ReLUs work in place, as in the common networks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)


class SceneResNet(nn.Module):
    """Residual network for 64x64 images, with its normalisation inside.

    The stages carry the usual names: ``conv1 bn1 relu maxpool layer1 ... layer4
    avgpool fc``. ``layer2`` to ``layer4`` keep an 8x8 grid for 64x64 images, so
    that a position of the last stage is still a place in the image; what they
    give is non-negative, and after ``layer4`` the model is linear.

    Parameters
    ----------
    class_names : sequence of str
        One output each.
    widths : sequence of int
        Channels of the four stages.
    strides : sequence of int
        Strides of the four stages.

    Attributes
    ----------
    class_names : list of str

    Examples
    --------
    >>> model = SceneResNet(["a", "b"])
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        widths: Sequence[int] = (32, 64, 96, 128),
        strides: Sequence[int] = (1, 2, 1, 1),
    ) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((3, 1, 1), 0.25))
        self.conv1 = nn.Conv2d(3, widths[0], 5, 2, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = [widths[0], *widths[:3]]
        self.layer1 = nn.Sequential(_BasicBlock(inputs[0], widths[0], strides[0]))
        self.layer2 = nn.Sequential(_BasicBlock(inputs[1], widths[1], strides[1]))
        self.layer3 = nn.Sequential(_BasicBlock(inputs[2], widths[2], strides[2]))
        self.layer4 = nn.Sequential(_BasicBlock(inputs[3], widths[3], strides[3]))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], len(self.class_names))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits of images.

        Parameters
        ----------
        x : Tensor of shape (n, 3, h, w), float in [0, 1]

        Returns
        -------
        Tensor of shape (n, n_classes)
        """
        x = (x - self.mean) / self.std
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))
