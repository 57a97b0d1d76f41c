"""The published CIFAR-10 ResNet-20 (He et al. 2015, section 4.2) for conceptlab.

CONCEPTLAB_RESNET20=resnet20.th conceptlab explain photos/ --model resnet20_cifar.py:build
"""

import os

from torch import nn
from torch.nn.functional import pad

from conceptlab.errors import CheckpointError
from conceptlab.models.load import LoadedModel, Normalize, load_state_dict

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut without weights (option A)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.stride = n_out // n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        # Option A: every second pixel, and zeros for the channels that are new.
        more = (y.shape[1] - x.shape[1]) // 2
        return (y + pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, more, more))).relu()


class ResNet20(nn.Module):
    """16-32-64 channels, three blocks each, for 32×32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.linear(x.mean(dim=(2, 3)))


# -- the adapter
def build() -> LoadedModel:
    """Give the model with its weights, its preprocessing and the names of its outputs."""
    path = os.environ.get("CONCEPTLAB_RESNET20")
    if path is None:
        raise CheckpointError(
            "Set CONCEPTLAB_RESNET20 to the file with the weights, such as resnet20.th.",
            code="CL-CHECKPOINT-MISSING",
        )
    model = ResNet20()
    model.load_state_dict(load_state_dict(path))  # reads "state_dict", takes "module." off
    return LoadedModel(model.eval(), Normalize(), CLASSES, size=32, layer="layer3")
