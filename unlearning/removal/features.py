"""What turns images into features: an encoder, a module, or any function."""

from __future__ import annotations

__all__ = ["FeatureExtractor", "as_extractor"]

import contextlib
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import ArrayLike, as_numpy, resolve_device
from conceptlab.errors import InputError
from conceptlab.models.session import Session
from conceptlab.provenance import fingerprint


class FeatureExtractor:
    """Features of image batches, float64 or float32 (n, d), checked.

    Parameters
    ----------
    source : Encoder, torch.nn.Module or callable
        An encoder (its image vectors, at their own length), or what maps images
        (n, 3, H, W) in [0, 1] to (n, d).
    device : str or torch.device
        Where a module runs; encoders stay where they are.

    Attributes
    ----------
    name : str
        For reports.
    fingerprint : str or None
        Hash of the weights where they are known.
    """

    def __init__(self, source: Any, *, device: str | torch.device = "auto") -> None:
        self.source = source
        self.is_encoder = callable(getattr(source, "encode_image", None))
        if not self.is_encoder and not callable(source):
            raise InputError(
                "features must be an encoder, a module or a function from images (n, 3, H, W) in "
                f"[0, 1] to (n, d), got {type(source).__name__}.",
                code="CL-INPUT-TYPE",
            )
        self.name = str(
            getattr(source, "name", None)
            or getattr(source, "__name__", None)
            or type(source).__name__
        )
        self.device = torch.device("cpu")
        self.fingerprint: str | None = None
        if self.is_encoder:
            self.fingerprint = str(source.fingerprint)
        elif isinstance(source, nn.Module):
            parameter = next(source.parameters(), None)
            like = parameter.detach() if parameter is not None else None
            self.device = resolve_device(device, like=like)
            self.fingerprint = fingerprint(source)

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Compute the features of a batch."""
        if self.is_encoder:
            return np.asarray(
                as_numpy(self.source.encode_image(images, normalize=False, progress=False))
            )
        with self._borrowed(), torch.no_grad():
            found = as_numpy(self.source(images.to(self.device)))
        if found.ndim != 2 or len(found) != len(images):
            raise InputError(
                f"{self.name} gave features of shape {found.shape} for {len(images)} images; "
                "expected (n, d). Pool or flatten them inside.",
                code="CL-INPUT-RANK",
            )
        if not np.isfinite(found).all():
            raise InputError(
                f"{self.name} gave NaN or infinity for some images.", code="CL-INPUT-NONFINITE"
            )
        return found

    def _borrowed(self) -> contextlib.AbstractContextManager[Any]:
        if not isinstance(self.source, nn.Module):
            return contextlib.nullcontext()
        return Session(self.source, self.device, "float32", False).borrowed()


def as_extractor(features: ArrayLike) -> FeatureExtractor:
    """Give `features` as an extractor; names are those of :func:`conceptlab.load_encoder`."""
    if isinstance(features, FeatureExtractor):
        return features
    if isinstance(features, str):
        from conceptlab.encoders import load_encoder

        return FeatureExtractor(load_encoder(features))
    return FeatureExtractor(features)
