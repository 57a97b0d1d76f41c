"""A remover from an inpainting pipeline of diffusers."""

from __future__ import annotations

__all__ = ["PipelineRemover"]

from typing import Any

import numpy as np
import torch

from conceptlab.errors import RemoverError
from conceptlab.models.identity import describe_callable
from conceptlab.provenance import fingerprint
from unlearning.removal.removers.base import Remover
from unlearning.removal.removers.opencv import as_bytes


class PipelineRemover(Remover):
    """Run an inpainting pipeline: prompt, picture and mask in, picture out.

    Parameters
    ----------
    pipeline : callable
        An inpainting pipeline of diffusers, or anything that is called in the same way:
        ``pipeline(prompt=..., image=PIL, mask_image=PIL, generator=..., **options).images``.
    name : str, optional
        For tables.
    prompt : str
        What to paint: "" or "background".
    size : int
        Side that pictures are scaled to and back.
    version : str, optional
        Name of the weights; part of the cache's keys. By default made of all the weights and
        settings that the pipeline holds, which takes seconds for large ones.
    **options
        Passed on, such as ``num_inference_steps=50``.

    Notes
    -----
    The decoder of a latent model changes all pixels a little, so compositing matters.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> def pipeline(*, prompt, image, mask_image, generator):  # or one of diffusers
    ...     return SimpleNamespace(images=[image])
    >>> remover = PipelineRemover(pipeline, name="my inpainter", prompt="background", size=16)
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    >>> remover.remove(images, masks, 0).shape
    (1, 3, 8, 8)
    """

    deterministic = False

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str | None = None,
        prompt: str = "",
        size: int = 512,
        version: str | None = None,
        **options: Any,
    ) -> None:
        self.pipeline, self.prompt, self.size = pipeline, prompt, size
        self.options = options
        self.name = name or type(pipeline).__name__
        if version is None:
            version = fingerprint(describe_callable(pipeline))[:16]
        shown = ",".join(f"{k}={options[k]!r}" for k in sorted(options))
        self.version = f"{version} {prompt!r} {size} {shown}"

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> np.ndarray:
        """Fill the holes."""
        from PIL import Image

        height, width = images.shape[-2:]
        inner = (self.size, self.size)
        out = np.empty(images.shape, dtype=np.float32)
        for i, (image, mask) in enumerate(zip(as_bytes(images), masks.numpy(), strict=True)):
            hole = Image.fromarray(mask[0].astype(np.uint8) * 255)
            answer = self.pipeline(
                prompt=self.prompt,
                image=Image.fromarray(image).resize(inner, Image.Resampling.BICUBIC),
                mask_image=hole.resize(inner, Image.Resampling.NEAREST),
                generator=torch.Generator().manual_seed(seed + i),
                **self.options,
            )
            if any(getattr(answer, "nsfw_content_detected", None) or ()):
                raise RemoverError(
                    f"The safety checker of {self.name} blacked out its picture "
                    "(nsfw_content_detected), which is no removal. Leave the image out "
                    "(on_error='skip' leaves out the remover), or use a pipeline without a checker."
                )
            picture = answer.images[0].convert("RGB")
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            out[i] = np.moveaxis(np.asarray(picture), 2, 0) / np.float32(255)
        return out
