"""What an encoder does to images before its first layer."""

from __future__ import annotations

__all__ = ["Preprocess"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from conceptlab.datasets.resize import Fit
from conceptlab.datasets.sources import stack
from conceptlab.errors import InputError

_MODES = {"shortest": "cover", "longest": "pad", "squash": "squash"}


@dataclass(frozen=True)
class Preprocess:
    """Scale, crop and normalise images.

    Pictures (PIL images, files) are scaled by Pillow and give the bits of the
    model's own transform; tensors are scaled by torch on their device, keep
    their gradients, and agree within the rounding to bytes.

    Parameters
    ----------
    fit : Fit or None
        How images become one size; None leaves them, and then all must agree.
    mean, std : sequence of 3 floats
        Of the channels, in [0, 1].

    Examples
    --------
    >>> Preprocess(Fit(8, 8)).tensor(torch.zeros(1, 3, 16, 24)).shape
    torch.Size([1, 3, 8, 8])
    """

    fit: Fit | None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __call__(
        self, items: Any, *, device: torch.device | str | None = None, clip: bool = True
    ) -> torch.Tensor:
        """Give the model's input (n, 3, h, w) for what an ``ImageSource`` has read."""
        return self.normalize(stack(items, self.fit, device=device, clip=clip))

    def tensor(self, images: torch.Tensor) -> torch.Tensor:
        """Give the model's input for a float batch (n, 3, h, w) in [0, 1]; keeps gradients."""
        return self.normalize(images if self.fit is None else self.fit.tensor(images))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Subtract the mean and divide by the standard deviation of each channel."""
        if not any(self.mean) and all(value == 1.0 for value in self.std):
            return images
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        return (images - mean) / images.new_tensor(self.std).view(3, 1, 1)

    def to_dict(self) -> dict[str, Any]:
        """Give all settings as JSON values, for fingerprints and cards."""
        return asdict(self)

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any] | Any) -> Preprocess:
        """Read a preprocessing configuration of open_clip.

        Parameters
        ----------
        config : mapping or object
            ``size``, ``mean``, ``std``, ``interpolation``, ``resize_mode``, ``fill_color``.

        Returns
        -------
        Preprocess
        """
        given = config if isinstance(config, Mapping) else vars(config)
        height, width = _pair(given.get("size") or 224)
        mode = given.get("resize_mode") or "shortest"
        interpolation = given.get("interpolation") or "bicubic"
        return cls(
            Fit(
                height,
                width,
                mode=_MODES.get(mode, mode),  # type: ignore[arg-type]
                interpolation="bicubic" if interpolation == "random" else interpolation,
                fill=int(given.get("fill_color") or 0),
            ),
            _three(given.get("mean") or _CLIP_MEAN),
            _three(given.get("std") or _CLIP_STD),
        )

    @classmethod
    def from_transformers(cls, processor: Mapping[str, Any]) -> Preprocess:
        """Read the settings of an image processor of transformers.

        Parameters
        ----------
        processor : mapping
            What ``processor.to_dict()`` gives.

        Returns
        -------
        Preprocess

        Raises
        ------
        InputError
            If the processor does something else than scale, crop and
            normalise (``CL-INPUT-OPTION``).
        """
        size, crop = processor.get("size") or {}, processor.get("crop_size") or {}
        size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop)
        scale = float(processor.get("rescale_factor") or 1 / 255)
        do_crop = bool(processor.get("do_center_crop"))
        do_resize = bool(processor.get("do_resize", True))
        known = bool(size.get("shortest_edge") or size.get("height")) and not size.get(
            "longest_edge"
        )
        if not size and processor.get("max_num_patches"):
            raise InputError(
                f"{processor.get('image_processor_type', 'The image processor')} gives every "
                "image a number of patches by its own proportions (NaFlex). Say one size, a "
                "multiple of the patch: TransformersEncoder(model, tokenizer, "
                "Preprocess(Fit(256, 256), (0.5,) * 3, (0.5,) * 3)), or take a model of one size.",
                code="CL-INPUT-OPTION",
            )
        if not processor.get("do_rescale", True) or abs(scale * 255 - 1) > 1e-3 or not known:
            raise InputError(
                f"The image processor {processor.get('image_processor_type', '')!r} is not known "
                f"here (size {size}, rescale_factor {scale:.6g}): expected to scale to a fixed "
                "size or shorter side and to divide by 255. Wrap the model with CallableEncoder.",
                code="CL-INPUT-OPTION",
            )
        square = "height" in size and size["height"]
        scale_to = (size["height"], size["width"]) if square else (size["shortest_edge"],)
        target = crop if do_crop and crop else size
        height, width = (target.get(key) or target["shortest_edge"] for key in ("height", "width"))
        normalise = processor.get("do_normalize", True)
        return cls(
            Fit(
                int(height),
                int(width),
                mode="squash" if square else "cover",
                interpolation=_RESAMPLE[int(processor.get("resample") or 0)],
                scale_to=tuple(int(side) for side in scale_to),
                crop_offset="floor",
                do_resize=do_resize,
                do_crop=do_crop,
            ),
            _three(processor["image_mean"]) if normalise else (0.0, 0.0, 0.0),
            _three(processor["image_std"]) if normalise else (1.0, 1.0, 1.0),
        )


_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    sides = [int(side) for side in size]
    return sides[0], sides[-1]


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(values, int | float):
        return (float(values),) * 3
    return tuple(float(value) for value in values)
