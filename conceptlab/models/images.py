"""Images as a split model takes them."""

from __future__ import annotations

__all__ = ["as_model_images", "channels_of", "model_images"]

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import as_tensor
from conceptlab.datasets.images import image_source
from conceptlab.datasets.sources import ImageSource

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel


def model_images(images: Any, split: SplitModel) -> ImageSource:
    """Open images for a model: RGB, or the channels of its first convolution.

    Parameters
    ----------
    images : images
        Anything that :func:`conceptlab.datasets.images.image_source` opens.
    split : SplitModel
        With a `preprocess` it gets RGB in [0, 1]; without one, images as the model takes them.

    Returns
    -------
    ImageSource
    """
    if split.preprocess is not None:
        return image_source(images)
    return image_source(images, value_range="any", channels=channels_of(split.model))


def channels_of(model: nn.Module) -> int:
    """Tell how many channels a model's images have: those of its first convolution, else 3."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def as_model_images(images: Any, split: SplitModel) -> Any:
    """Tell images from other inputs: a mapping of one plane is images, video is a mapping.

    Parameters
    ----------
    images : images, array of 5 axes, or mapping of tensors
        What a user gave.
    split : SplitModel
        Whose model names its first argument.

    Returns
    -------
    images or mapping of tensors
    """
    if isinstance(images, Mapping) and len(images) == 1:
        (only,) = images.values()
        plane = isinstance(only, torch.Tensor) and only.ndim == 4 and only.is_floating_point()
        return only if plane else images
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 5:
        name = next(iter(inspect.signature(split.model.forward).parameters))
        return {name: as_tensor(images)}
    return images
