"""Images at the door: whatever a person has becomes a checked NCHW batch."""

from __future__ import annotations

__all__ = ["as_image_batch", "image_source"]

import os
from pathlib import Path

import torch

from conceptlab.datasets.folder import load_image_folder
from conceptlab.datasets.pictures import ImageFile
from conceptlab.datasets.sources import Images, ImageSource, ValueRange, open_source


def as_image_batch(
    images: Images,
    *,
    size: int | tuple[int, int] | None = None,
    value_range: ValueRange = "unit",
    channels_last: bool = False,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Give images as one float32 tensor of shape (n, 3, h, w).

    Parameters
    ----------
    images : array, tensor, image, path, or a sequence or data set of these
        Arrays and tensors are channels-first, (n, 3, h, w) or (3, h, w), with
        bytes (uint8) or floats in [0, 1]. PIL images and files of any mode
        with 8 bits a channel are turned to RGB. Items of a data set may be
        ``(image, label)`` pairs. An object with ``.images`` gives those.
    size : int or (int, int), optional
        Height and width of the result: images are scaled (bicubic,
        anti-aliased) until the shorter side fits and cropped at the centre.
        Needed for images of mixed sizes.
    value_range : {"unit", "any"}
        Whether floats must lie in [0, 1]. "any" takes images that are
        normalised already.
    channels_last : bool
        Whether arrays and tensors are (n, h, w, 3) or (h, w, 3) instead.
    device : torch.device or str, optional
        Where the answer lives; the tensor's own device by default.

    Returns
    -------
    torch.Tensor of shape (n, 3, h, w), float32
        In [0, 1]. A tensor's gradient history is kept.

    Raises
    ------
    InputError
        ``CL-INPUT-LAYOUT`` channels last, grey, alpha; ``CL-INPUT-RANGE``
        values outside [0, 1]; ``CL-INPUT-EMPTY`` nothing given;
        ``CL-INPUT-RANK`` another number of axes; ``CL-INPUT-NONFINITE`` NaN or
        infinity; ``CL-INPUT-SHAPE`` mixed sizes without `size`;
        ``CL-INPUT-FILE`` a file that is no picture; ``CL-INPUT-TYPE`` else.

    Examples
    --------
    >>> import numpy as np
    >>> batch = as_image_batch(np.full((2, 3, 8, 8), 255, dtype=np.uint8))
    >>> batch.shape, batch.dtype, float(batch.max())
    (torch.Size([2, 3, 8, 8]), torch.float32, 1.0)
    """
    source = image_source(images, value_range=value_range, channels_last=channels_last)
    return source.batch(size, device=device, clip=value_range == "unit")


def image_source(
    images: Images,
    *,
    value_range: ValueRange = "unit",
    channels_last: bool = False,
    channels: int = 3,
) -> ImageSource:
    """Open `images` for reading piece by piece; see :func:`as_image_batch`.

    Arrays have `channels` channels, of a model that takes another number than RGB's; for one
    channel images of three equal ones do as well.

    Returns
    -------
    ImageSource

    Raises
    ------
    InputError
        As :func:`as_image_batch`, for what can be known without reading all.
    """
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, str | os.PathLike) and not isinstance(images, ImageFile):
        path = Path(images)
        if os.path.isdir(path) or path.suffix.lower() == ".zip":
            images = load_image_folder(path, classes=False)
        else:
            images = [path]
    return open_source(
        images, value_range=value_range, channels_last=channels_last, channels=channels
    )
