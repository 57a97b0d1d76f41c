"""A world small enough to know every answer: colour cells, and a network that sees colours.

Layer ``early`` has one channel a colour (red, green, blue); layer ``late`` merges red
and green into one channel, as late layers of a real network do.
"""

import numpy as np
import torch
from torch import nn

COLORS = np.eye(3, dtype=np.float32)


class ColorNet(nn.Module):
    def __init__(self, head=((1.0, 0.0), (0.0, 1.0))):
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(inplace=True))
        self.late = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2, len(head))
        with torch.no_grad():
            self.early[0].weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
            merge = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
            self.late[0].weight.copy_(merge.reshape(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor(head))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.pool(self.late(self.early(x))).flatten(1))


def color_images(n=24, size=32, cell=8, seed=0, noise=0.02):
    """Draw images of square cells, each in one colour; gives images and cell colours."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 3, (n, size // cell, size // cell))
    strength = rng.uniform(0.6, 1.0, (*cells.shape, 1)).astype(np.float32)
    images = (COLORS[cells] * strength).repeat(cell, axis=1).repeat(cell, axis=2)
    images = np.moveaxis(images, -1, 1) + noise * rng.random((n, 3, size, size), dtype=np.float32)
    return torch.from_numpy(images.clip(0, 1).astype(np.float32)), cells
