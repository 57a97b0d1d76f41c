"""The activation matrix of the factorisation benchmark, made from a seed.

128 procedural images of 224 px, cut into the released grid of 64 px patches (stride 51, so 16
each), resized to 224 px and run through a ResNet-18 with random weights whose batch-norm
statistics are calibrated on 64 images; layer4, averaged over space: 2048 x 512.
"""

from __future__ import annotations

__all__ = ["activation_matrix", "procedural_images"]

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from conceptlab.io.files import atomic_write
from conceptlab.seeds import numpy_generator

VERSION = 1
"""Part of the cache's name; raise it when the recipe changes."""


def procedural_images(n: int, *, size: int = 224, seed: int = 0) -> torch.Tensor:
    """Draw `n` images of gratings, blobs and rectangles on coloured gradients.

    Parameters
    ----------
    n : int
        Number of images.
    size : int
        Height and width in pixels.
    seed : int
        Same seed, same images.

    Returns
    -------
    torch.Tensor of shape (n, 3, size, size)
        float32 in [0, 1].
    """
    rng = numpy_generator(seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    images = np.empty((n, 3, size, size), dtype=np.float32)
    for image in images:
        tilt = rng.uniform(-1, 1, size=(3, 2)).astype(np.float32)
        image[:] = rng.uniform(0.2, 0.8, size=(3, 1, 1)) + 0.3 * (
            tilt[:, :1, None] * (x - 0.5) + tilt[:, 1:, None] * (y - 0.5)
        )
        for _ in range(int(rng.integers(2, 6))):
            colour = rng.uniform(0, 1, size=(3, 1, 1)).astype(np.float32)
            image += _shape(rng, x, y) * (colour - image)
        image += rng.normal(0, 0.02, size=image.shape)
    return torch.from_numpy(images.clip(0, 1))


def _shape(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw the opacity (H, W) of one textured shape."""
    centre_x, centre_y = rng.uniform(0.1, 0.9, size=2)
    radius = rng.uniform(0.06, 0.3)
    angle = rng.uniform(0, np.pi)
    across = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
    along = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
    distance = (
        np.hypot(across, along) if rng.random() < 0.5 else np.maximum(abs(across), 2 * abs(along))
    )
    opacity = 1 / (1 + np.exp(np.clip((distance - radius) * 120, -30, 30)))
    texture = rng.integers(3)
    if texture == 1:
        opacity = opacity * (np.sin(across * rng.uniform(40, 250)) > 0)
    elif texture == 2:
        wave = rng.uniform(40, 200)
        opacity = opacity * (np.sin(across * wave) * np.sin(along * wave) > 0)
    return np.asarray(opacity, dtype=np.float32)


def activation_matrix(*, n_images: int = 128, seed: int = 0, cache: bool = True) -> np.ndarray:
    """Make the matrix, or read it from the temporary folder where it was made before.

    Parameters
    ----------
    n_images : int
        Each gives 16 rows.
    seed : int
        Of images and weights.
    cache : bool
        Whether to keep the result (4 MB) in the temporary folder; making it takes
        about one CPU minute.

    Returns
    -------
    numpy.ndarray of shape (16 * n_images, 512)
        float32, non-negative.
    """
    owner = os.getuid() if hasattr(os, "getuid") else 0
    name = f"conceptlab-bench-{owner}-v{VERSION}-{n_images}-{seed}.safetensors"
    path = Path(tempfile.gettempdir()) / name
    if cache and path.is_file():
        try:
            stored = load_tensors(path.read_bytes())["A"]
        except (OSError, KeyError, SafetensorError):
            stored = np.empty((0, 0), dtype=np.float32)
        if stored.shape == (16 * n_images, 512):
            return stored
    made = _compute(n_images, seed)
    if cache:
        atomic_write(path, save_tensors({"A": made}))
    return made


def _compute(n_images: int, seed: int) -> np.ndarray:
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = resnet18(weights=None)
    model.fc = torch.nn.Identity()  # what comes out is layer4 averaged over space
    model = model.to(memory_format=torch.channels_last)
    images = procedural_images(n_images, seed=seed)
    with torch.no_grad():
        _calibrate(model.train(), images[:64])
        model.eval()
        rows = [model(_crops(image)) for image in images]
    return torch.cat(rows).numpy()


def _calibrate(model: torch.nn.Module, images: torch.Tensor) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # cumulative average
    for batch in images.split(16):
        model(batch.contiguous(memory_format=torch.channels_last))


def _crops(image: torch.Tensor, side: int = 64, stride: int = 51) -> torch.Tensor:
    grid = image.unfold(1, side, stride).unfold(2, side, stride)
    crops = grid.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)
    resized = torch.nn.functional.interpolate(
        crops, size=image.shape[-2:], mode="bilinear", align_corners=False
    )
    return resized.contiguous(memory_format=torch.channels_last)
