"""What turns images into features: an encoder, a module, or any function."""

from __future__ import annotations

__all__ = ["FeatureExtractor", "NetworkFeatures", "as_extractor", "load_features"]

import contextlib
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.arrays import ArrayLike, as_numpy, resolve_device
from conceptlab.errors import InputError
from conceptlab.models.load import LoadedModel, load_model, run_function
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


class NetworkFeatures(nn.Module):
    """The features of a classifier before its last linear layer, of images in [0, 1].

    Parameters
    ----------
    loaded : LoadedModel
        The classifier, with its size and preprocessing.
    name : str
        For reports.

    Raises
    ------
    InputError
        A network without a linear layer (``CL-INPUT-TYPE``).

    Examples
    --------
    >>> features = NetworkFeatures(load_model("embedded"), "embedded")
    >>> tuple(features(torch.rand(2, 3, 64, 64)).shape)
    (2, 128)
    """

    def __init__(self, loaded: LoadedModel, name: str) -> None:
        super().__init__()
        self.net, self.prepare = loaded.model, loaded.preprocess
        self.size, self.name = loaded.size, name
        if not any(isinstance(module, nn.Linear) for module in self.net.modules()):
            raise InputError(
                f"{name} has no linear layer, so what its features are cannot be told. Give "
                "FILE.py:FUNCTION that returns a module from images to features (n, d).",
                code="CL-INPUT-TYPE",
            )
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give (n, d), what goes into the linear layer that ran last."""
        seen: list[torch.Tensor] = []
        handles = [
            module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
            for module in self.net.modules()
            if isinstance(module, nn.Linear)
        ]
        try:
            self.net(self._input(images))
        finally:
            for handle in handles:
                handle.remove()
        return seen[-1].flatten(1)

    @property
    def has_maps(self) -> bool:
        """Whether the network gives maps of its blocks, as those of timm do."""
        return callable(getattr(self.net, "forward_intermediates", None))

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Give the map (n, c, h, w) of the last block with at least 8 by 8 cells."""
        with torch.no_grad():
            blocks: list[torch.Tensor] = self.net.forward_intermediates(  # type: ignore[operator]
                self._input(images), intermediates_only=True
            )
        sides = [min(block.shape[-2:]) for block in blocks]
        wanted = min(8, max(sides))
        return blocks[max(i for i, side in enumerate(sides) if side >= wanted)]

    def _input(self, images: torch.Tensor) -> torch.Tensor:
        parameter = next(self.net.parameters(), None)
        scaled = images if parameter is None else images.to(parameter)
        if self.size is not None and tuple(images.shape[-2:]) != (self.size, self.size):
            scaled = functional.interpolate(
                scaled, (self.size, self.size), mode="bicubic", antialias=True
            ).clamp(0, 1)
        prepared = scaled if self.prepare is None else self.prepare(scaled)
        return torch.as_tensor(prepared)


def load_features(name: str) -> Any:
    """Load features by name: an encoder, a classifier, or what a function of yours returns.

    Parameters
    ----------
    name : str
        A name of :func:`conceptlab.load_encoder`; ``"timm:NAME"`` or ``"torchvision:NAME"``,
        as for :func:`conceptlab.models.load.load_model`, whose input to the last linear layer is
        taken; or ``"FILE.py:FUNCTION"``, a function of yours without arguments that returns a
        module or function from images (n, 3, H, W) in [0, 1] to features (n, d), an encoder,
        or a LoadedModel. The file is run.

    Returns
    -------
    Encoder, torch.nn.Module or callable
        What :class:`~unlearning.removal.RemovalBenchmark` takes as `features`.

    Raises
    ------
    InputError
        For an unknown name, or what is none of these.
    CheckpointError
        When weights cannot be had.

    Examples
    --------
    >>> load_features("embedded").dim
    128
    """
    from conceptlab.encoders import load_encoder

    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        built = run_function(path, function)
        if isinstance(built, LoadedModel):
            return NetworkFeatures(built, name)
        if isinstance(built, nn.Module):
            return built.eval()
        if not callable(built) and not hasattr(built, "encode_image"):
            raise InputError(
                f"{name} returned {type(built).__name__}; it must return a module or a function "
                "from images (n, 3, H, W) in [0, 1] to features (n, d), or an encoder.",
                code="CL-INPUT-TYPE",
            )
        return built
    if name.partition(":")[0] in ("timm", "torchvision"):
        return NetworkFeatures(load_model(name), name)
    return load_encoder(name)


def as_extractor(features: ArrayLike) -> FeatureExtractor:
    """Give `features` as an extractor; names are those of :func:`load_features`."""
    if isinstance(features, FeatureExtractor):
        return features
    if isinstance(features, str):
        return FeatureExtractor(load_features(features))
    return FeatureExtractor(features)
