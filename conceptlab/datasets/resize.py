"""Resize, crop and pad images the way image–text models were trained to see them.

The same plan is carried out by Pillow on files and PIL images (so that the
result has the bits of the model's own transform) and by torch on tensors
(differentiable, on any device; within rounding to bytes of the former).
"""

from __future__ import annotations

__all__ = ["Fit"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from conceptlab.errors import InputError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = ("cover", "squash", "pad")
_INTERPOLATIONS = {"nearest": 0, "bilinear": 2, "bicubic": 3, "lanczos": 1}


@dataclass(frozen=True)
class Fit:
    """How an image of any size becomes one of a fixed size.

    Parameters
    ----------
    height, width : int
        Size of the result in pixels.
    mode : {"cover", "squash", "pad"}
        Scale until the shorter side fits and crop the centre; scale each side
        on its own; or scale until the longer side fits and pad around.
    interpolation : {"bicubic", "bilinear", "lanczos", "nearest"}
        Always with anti-aliasing, as in Pillow. Tensors have no Lanczos
        filter; bicubic stands in.
    scale_to : tuple of int, optional
        Size to scale to before the crop where it is not the result's: one
        number is the shorter side, two are height and width.
    crop_offset : {"round", "floor"}
        How half a pixel of crop offset is rounded (torchvision: to even).
    fill : int
        Grey value 0–255 of padding.
    do_resize, do_crop : bool
        Whether these two steps are done at all.

    Raises
    ------
    InputError
        For an unknown mode or interpolation, or a size below one.

    Examples
    --------
    >>> Fit(32, 32).tensor(torch.zeros(2, 3, 48, 64)).shape
    torch.Size([2, 3, 32, 32])
    """

    height: int
    width: int
    mode: Literal["cover", "squash", "pad"] = "cover"
    interpolation: str = "bicubic"
    scale_to: tuple[int, ...] | None = None
    crop_offset: Literal["round", "floor"] = "round"
    fill: int = 0
    do_resize: bool = True
    do_crop: bool = True

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise unknown_name("resize mode", self.mode, _MODES)
        if self.interpolation not in _INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, _INTERPOLATIONS)
        if self.height < 1 or self.width < 1:
            raise InputError(
                f"An image size must be at least 1, got {self.height}×{self.width} pixels.",
                code="CL-INPUT-RANGE",
            )

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Give the size (height, width) to which an image is scaled before the crop."""
        if not self.do_resize:
            return height, width
        if self.mode == "squash":
            return (self.height, self.width) if self.scale_to is None else _pair(self.scale_to)
        if self.mode == "cover" and (self.scale_to is not None or self.height == self.width):
            short = self.height if self.scale_to is None else self.scale_to[0]
            longer = int(short * max(height, width) / min(height, width))
            return (short, longer) if height <= width else (longer, short)
        pick = min if self.mode == "cover" else max
        ratio = pick(height / self.height, width / self.width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def offsets(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Give padding (left, top, right, bottom) of a scaled image; negative is a crop."""
        top, bottom = self._side(height, self.height)
        left, right = self._side(width, self.width)
        return left, top, right, bottom

    def _side(self, have: int, want: int) -> tuple[int, int]:
        if not self.do_crop:
            return 0, 0
        if have < want:
            return (want - have) // 2, (want - have + 1) // 2
        start = round((have - want) / 2) if self.crop_offset == "round" else (have - want) // 2
        return -start, start + want - have

    def tensor(self, images: torch.Tensor, *, clip: bool = True) -> torch.Tensor:
        """Fit a floating batch (n, c, h, w); keeps gradients.

        `clip` cuts the overshoot of the bicubic filter to [0, 1], as Pillow does.
        """
        if images.dtype in (torch.bfloat16, torch.float16):  # torch resizes no short floats
            return self.tensor(images.float(), clip=clip).to(images.dtype)
        size = self.scaled(*images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            if self.interpolation == "nearest":
                images = functional.interpolate(images, size, mode="nearest-exact")
            else:
                mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
                images = functional.interpolate(
                    images, size, mode=mode, antialias=True, align_corners=False
                )
                if mode == "bicubic" and clip:
                    images = images.clamp(0.0, 1.0)
        left, top, right, bottom = self.offsets(*size)
        if (left, top, right, bottom) == (0, 0, 0, 0):
            return images
        return functional.pad(images, (left, right, top, bottom), value=self.fill / 255)

    def pil(self, image: Image) -> Image:
        """Fit an RGB image with Pillow."""
        from PIL import Image as pillow

        height, width = self.scaled(image.height, image.width)
        if (width, height) != image.size:
            resample = pillow.Resampling(_INTERPOLATIONS[self.interpolation])
            image = image.resize((width, height), resample)
        left, top, right, bottom = self.offsets(height, width)
        if (left, top, right, bottom) == (0, 0, 0, 0):
            return image
        if max(left, top, right, bottom) > 0:
            canvas_size = (width + left + right, height + top + bottom)
            canvas = pillow.new("RGB", canvas_size, (self.fill,) * 3)
            canvas.paste(image, (left, top))
            return canvas
        return image.crop((-left, -top, width + right, height + bottom))


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return (sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
