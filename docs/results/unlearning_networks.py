"""The networks of the tables of class unlearning, and how their photos are augmented."""

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.short = None
        if stride != 1 or n_in != n_out:
            self.short = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        """Give the block's activations."""
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (y + (x if self.short is None else self.short(x))).relu()


class SmallResNet(nn.Module):
    """Three residual blocks, the mean over positions, a linear head."""

    def __init__(self, n_in, widths, stem, n_classes, first=1):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(n_in, widths[0], 3, stem, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        )
        strides = (first, *[2] * (len(widths) - 1))
        pairs = zip((widths[0], *widths), widths, strides, strict=False)
        self.blocks = nn.Sequential(*(Block(a, b, s) for a, b, s in pairs))
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x):
        """Give the logits."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.blocks(self.stem(x).relu()).mean(dim=(2, 3)))


def flips(images, generator):
    """Mirror half of the images."""
    turned = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(turned[:, None, None, None], images.flip(3), images)
