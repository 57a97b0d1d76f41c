"""Encoders by name."""

from __future__ import annotations

__all__ = ["load_encoder", "register_encoder"]

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conceptlab.arrays import resolve_device
from conceptlab.encoders.base import Encoder
from conceptlab.encoders.huggingface import load_transformers
from conceptlab.encoders.open_clip import CONFIG, OpenClipEncoder, load_open_clip
from conceptlab.errors import InputError, unknown_name

EMBEDDED_NOTE = (
    "The embedded encoder knows rendered scenes only; for photographs take one such as "
    "open_clip:ViT-B-16/openai."
)
"""What commands say where the embedded encoder reads images of a user."""

Factory = Callable[..., Encoder]


def load_encoder(
    name: str | nn.Module | Encoder = "embedded",
    device: str | torch.device = "auto",
    **options: Any,
) -> Any:
    """Load an image–text encoder.

    Parameters
    ----------
    name : str, Module or Encoder
        - ``"embedded"``: the small model that ships with the package, for
          64×64 scenes; no download.
        - ``"open_clip:ViT-B-32/laion2b_s34b_b79k"``: architecture and weights;
          also ``"open_clip:hf-hub:org/name"`` and ``"open_clip:/a/folder"``.
        - ``"hf:openai/clip-vit-base-patch32"`` or ``"hf:/a/folder"``: CLIP,
          SigLIP and their kin in transformers.
        - a folder that one of the two wrote;
        - a model of open_clip (give ``tokenizer=`` too);
        - an encoder, which is returned as it is.
    device : str or torch.device
        See :func:`conceptlab.arrays.resolve_device`.
    **options
        ``precision="bfloat16"``; else of the loader, such as ``pretrained``.

    Returns
    -------
    Encoder

    Raises
    ------
    InputError
        For a name that is not known, with the nearest that are.
    CheckpointError
        If weights are missing or damaged. Random weights are never used
        unless ``pretrained=None`` says so.
    DependencyError
        If open_clip, torchvision or transformers is missing or broken.

    Examples
    --------
    >>> encoder = load_encoder()
    >>> encoder.encode_text(["a red circle"]).shape
    (1, 128)
    """
    if isinstance(name, nn.Module):
        if "tokenizer" not in options:
            raise InputError(
                f"A {type(name).__name__} needs its tokenizer: load_encoder(model, tokenizer="
                "open_clip.get_tokenizer('...')). For other models use CallableEncoder.",
                code="CL-INPUT-OPTION",
            )
        return OpenClipEncoder(name, device=device, **options)
    if not isinstance(name, str | Path):
        if callable(getattr(name, "encode_image", None)):
            return name
        raise InputError(
            f"name must be a string, a model or an encoder, got {type(name).__name__}.",
            code="CL-INPUT-TYPE",
        )
    text = str(name)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _FACTORIES and rest:
        return _FACTORIES[prefix](rest, device=device, **options)
    if not colon and prefix in _FACTORIES and prefix in _WITHOUT_REST:
        return _FACTORIES[prefix]("", device=device, **options)
    if os.path.isdir(text):
        loader = load_open_clip if os.path.isfile(Path(text) / CONFIG) else load_transformers
        return loader(text, device=device, **options)
    raise unknown_name(
        "encoder",
        text,
        [key if key in _WITHOUT_REST else f"{key}:NAME" for key in _FACTORIES],
        hint="For example 'open_clip:ViT-B-32/laion2b_s34b_b79k', 'hf:/a/folder'.",
    )


def register_encoder(prefix: str, factory: Factory, *, overwrite: bool = False) -> None:
    """Make ``load_encoder("prefix:rest")`` call ``factory(rest, device=..., **options)``.

    Parameters
    ----------
    prefix : str
        Letters, digits, ``_`` and ``-``.
    factory : callable
        Returns an :class:`Encoder`.
    overwrite : bool
        Whether an encoder of that name may be replaced.

    Raises
    ------
    InputError
        If the prefix is taken or no plain word (``CL-INPUT-OPTION``).

    Examples
    --------
    >>> from conceptlab.encoders import CallableEncoder
    >>> def colours(name, **options):
    ...     return CallableEncoder(lambda x: x.mean(dim=(2, 3)), dim=3, fingerprint=name)
    >>> register_encoder("colours", colours, overwrite=True)
    >>> from conceptlab import load_encoder
    >>> load_encoder("colours:mean").dim
    3
    """
    if not prefix or not all(c.isalnum() or c in "_-" for c in prefix):
        raise InputError(f"{prefix!r} is no plain word for a prefix.", code="CL-INPUT-OPTION")
    if prefix in _FACTORIES and not overwrite:
        raise InputError(
            f"An encoder {prefix!r} is registered already. Choose another, or overwrite=True.",
            code="CL-INPUT-OPTION",
        )
    if not callable(factory):
        raise InputError(f"factory must be callable, got {factory!r}.", code="CL-INPUT-TYPE")
    _FACTORIES[prefix] = factory


def _embedded(rest: str, device: str | torch.device = "auto", **options: Any) -> OpenClipEncoder:
    from conceptlab.assets import embedded_open_clip

    model, preprocess, tokenizer = embedded_open_clip()
    model.requires_grad_(False)
    return OpenClipEncoder(
        model,
        tokenizer,
        preprocess=preprocess,
        name="embedded",
        device=resolve_device(device),
        **options,
    )


def _hub(prefix: str) -> Factory:
    def factory(rest: str, **options: Any) -> OpenClipEncoder:
        return load_open_clip(f"{prefix}:{rest}", **options)

    return factory


_WITHOUT_REST = {"embedded"}
_FACTORIES: dict[str, Factory] = {
    "embedded": _embedded,
    "open_clip": load_open_clip,
    "hf": load_transformers,
    "hf-hub": _hub("hf-hub"),
    "local-dir": _hub("local-dir"),
}
