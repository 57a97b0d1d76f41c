"""The workload that the benchmarks share: procedural photos and a calibrated ResNet-18."""

from __future__ import annotations

__all__ = ["calibrated_resnet18", "procedural_images"]

import numpy as np
import torch
from torch import nn

from conceptlab.seeds import numpy_generator


def procedural_images(n: int = 128, size: int = 224, seed: int = 0) -> torch.Tensor:
    """Draw images with structure at several scales: gradients, gratings, discs, noise.

    Parameters
    ----------
    n : int
        How many.
    size : int
        Side in pixels.
    seed : int
        Same seed, same images.

    Returns
    -------
    torch.Tensor of shape (n, 3, size, size), float32 in [0, 1]
    """
    rng = numpy_generator(seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    images = np.empty((n, 3, size, size), np.float32)
    for image in images:
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(2, 24)
        wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
        image[:] = rng.uniform(0.2, 0.8, (3, 1, 1)) + rng.uniform(-0.3, 0.3, (3, 1, 1)) * x
        image += rng.uniform(-0.25, 0.25, (3, 1, 1)) * wave
        for _ in range(rng.integers(1, 5)):
            cx, cy, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.25)
            disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            image[:, disc] = rng.uniform(0, 1, (3, 1))
        image += rng.normal(0, 0.03, image.shape).astype(np.float32)
    return torch.from_numpy(images.clip(0, 1))


def calibrated_resnet18(images: torch.Tensor, seed: int = 0) -> nn.Module:
    """Build torchvision's ResNet-18 with random weights and sane batch-norm statistics.

    Parameters
    ----------
    images : torch.Tensor of shape (n, 3, H, W)
        The batch that sets the running statistics; 64 images are enough.
    seed : int
        Seed of the weights.

    Returns
    -------
    torch.nn.Module
        In eval mode, without gradients.
    """
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = resnet18(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a cumulative average: one pass sets the statistics
    model.train()
    with torch.no_grad():
        model(images[:64])
    return model.eval().requires_grad_(False)
