"""Encoders from transformers: CLIP, SigLIP and others with the same two methods."""

from __future__ import annotations

__all__ = ["TransformersEncoder", "load_transformers"]

import os
from typing import Any

import torch
from torch import nn

from conceptlab.arrays import resolve_device
from conceptlab.encoders.base import BaseEncoder
from conceptlab.encoders.dependencies import cannot_load, import_package
from conceptlab.encoders.open_clip import tokenizer_identity
from conceptlab.encoders.preprocess import Preprocess
from conceptlab.encoders.shadow import shadow
from conceptlab.errors import CheckpointError, InputError
from conceptlab.io.reading import check_plain_folder
from conceptlab.models.session import check_model, input_dtype
from conceptlab.seeds import quiet_randomness


class TransformersEncoder(BaseEncoder):
    """An encoder around a dual-tower model of transformers.

    The model is not changed: a twin with the same weights computes.

    Parameters
    ----------
    model : PreTrainedModel
        With ``get_image_features`` and ``get_text_features``.
    tokenizer : PreTrainedTokenizerBase
        Of the model.
    image_processor : BaseImageProcessor, mapping or Preprocess
        Of the model, or its settings.
    name : str
        For people.
    device : str or torch.device
        "auto" stays where the model is.
    precision : {"float32", "bfloat16", "float16"}
        The two short ones compute under autocast.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> encoder = load_encoder("hf:google/siglip-base-patch16-224")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        image_processor: Any,
        *,
        name: str = "hf",
        device: str | torch.device = "auto",
        precision: str = "float32",
    ) -> None:
        for method in ("get_image_features", "get_text_features"):
            if not callable(getattr(model, method, None)):
                raise InputError(
                    f"{type(model).__name__} has no {method}: expected a model with two towers, "
                    "such as CLIP or SigLIP. For other models use CallableEncoder.",
                    code="CL-INPUT-TYPE",
                )
        if not isinstance(image_processor, Preprocess):
            settings = (
                image_processor if isinstance(image_processor, dict) else image_processor.to_dict()
            )
            image_processor = Preprocess.from_transformers(settings)
        check_model(model)
        first = next(model.parameters())
        place = first.device if device == "auto" else resolve_device(device)
        self._model = shadow(model).to(place)
        tower = getattr(model, "vision_model", None)
        self._pixels = input_dtype(tower if isinstance(tower, nn.Module) else model)
        self._tokenizer = tokenizer
        config: Any = getattr(model, "config", None)
        text_config = getattr(config, "text_config", config)
        context = getattr(text_config, "max_position_embeddings", None)
        super().__init__(
            name,
            device=place,
            preprocess=image_processor,
            modules=[self._model],
            identity={"tokenizer": tokenizer_identity(tokenizer), "context_length": context},
            precision=precision,
            context_length=context,
        )
        self._patch: int | None = None
        if getattr(config, "model_type", "") == "siglip2":  # NaFlex: patches and their places
            self._patch = int(config.vision_config.patch_size)
        # CLIP masks what pads a text; SigLIP was trained to read it.
        self._masks = "siglip" not in str(getattr(config, "model_type", ""))

    @property
    def logit_scale(self) -> float | None:
        """Factor from cosine to logit, exponential of the model's parameter."""
        value = getattr(self._model, "logit_scale", None)
        return None if value is None else float(value.detach().exp().reshape(-1)[0])

    @property
    def logit_bias(self) -> float | None:
        """Offset of the logit (SigLIP), or None."""
        value = getattr(self._model, "logit_bias", None)
        return None if value is None else float(value.detach().reshape(-1)[0])

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.precision == "float32":  # weights may be half precision themselves
            pixels = pixels.to(self._pixels)
        given = (
            {"pixel_values": pixels} if self._patch is None else _in_patches(pixels, self._patch)
        )
        return _pooled(self._model.get_image_features(**given))  # type: ignore[operator]

    def _tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        tokens = self._tokenizer(
            texts,
            padding="max_length",
            max_length=self.context_length,
            truncation=True,
            return_tensors="pt",
        )
        keys = ("input_ids", "attention_mask") if self._masks else ("input_ids",)
        return {key: tokens[key].to(self.device) for key in keys if key in tokens}

    def _token_counts(self, texts: list[str]) -> list[int] | None:
        ids = self._tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def _text_features(self, tokens: Any) -> torch.Tensor:
        return _pooled(self._model.get_text_features(**tokens))  # type: ignore[operator]


def load_transformers(
    source: str,
    device: str | torch.device = "auto",
    *,
    precision: str = "float32",
    **options: Any,
) -> TransformersEncoder:
    """Load a model with its processor from a folder or from the Hugging Face hub.

    Code that comes with a model is never run.

    Parameters
    ----------
    source : str
        Folder written by ``save_pretrained``, or a name such as
        ``"openai/clip-vit-base-patch32"``.
    device, precision
        See :class:`TransformersEncoder`.
    **options
        For ``AutoModel.from_pretrained``, such as ``revision``.

    Returns
    -------
    TransformersEncoder

    Raises
    ------
    CheckpointError
        If the folder is not there or lacks weights, in part or in whole.
    DependencyError
        transformers missing or broken.
    """
    if options.pop("trust_remote_code", False):
        raise InputError(
            "trust_remote_code is not allowed: it runs code from the model's folder. Load the "
            "model yourself and give it to TransformersEncoder.",
            code="CL-INPUT-OPTION",
        )
    transformers = import_package("transformers", "transformers")
    place = resolve_device(device)
    local = os.path.isdir(source)
    if not local and source.startswith(("/", "./", "../", "~")):
        raise CheckpointError(f"There is no folder {source}.", code="CL-CHECKPOINT-MISSING")
    common = {"trust_remote_code": False, "local_files_only": local}
    if "revision" in options:
        common["revision"] = options.pop("revision")
    try:
        if local:
            check_plain_folder(source)
        with quiet_randomness():
            model, info = transformers.AutoModel.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **common, **options
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
        processor = _processor_settings(transformers, source, common)
    except Exception as error:  # each format of weights has errors of its own
        raise cannot_load(
            f"hf:{source}",
            error,
            "Give a folder written by save_pretrained of the model and of its processor, or a name "
            "on the hub and network.",
        ) from error
    absent = sorted(info.get("missing_keys", ())) + sorted(
        map(str, info.get("mismatched_keys", ()))
    )
    if absent:
        raise CheckpointError(
            f"hf:{source} lacks {len(absent)} weights of a {type(model).__name__}, which would be "
            f"random: {', '.join(absent[:5])}. Get the folder again.",
        )
    return TransformersEncoder(
        model.requires_grad_(False),
        tokenizer,
        processor,
        name=f"hf:{source}",
        device=place,
        precision=precision,
    )


def _processor_settings(transformers: Any, source: str, common: dict[str, Any]) -> dict[str, Any]:
    processor = transformers.AutoImageProcessor.from_pretrained(source, **common)
    settings: dict[str, Any] = dict(processor.to_dict())
    for key in ("size", "crop_size"):  # newer releases keep objects here
        value = settings.get(key)
        if value is not None and not isinstance(value, dict | int):
            settings[key] = {k: v for k, v in dict(value).items() if v is not None}
    return settings


def _in_patches(pixels: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """Cut images of one size as a NaFlex tower takes them: flat patches, a mask and the grid."""
    n, channels, height, width = pixels.shape
    if height % side or width % side:
        raise InputError(
            f"A NaFlex model reads patches of {side} pixels, and images of {height} x {width} are "
            f"no multiple of that. Give a size that is: preprocess=Preprocess(Fit({side * 16}, "
            f"{side * 16}), ...).",
            code="CL-INPUT-SHAPE",
        )
    rows, columns = height // side, width // side
    cut = pixels.reshape(n, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": cut.reshape(n, rows * columns, -1),
        "pixel_attention_mask": pixels.new_ones((n, rows * columns), dtype=torch.int32),
        "spatial_shapes": torch.tensor([[rows, columns]] * n, device=pixels.device),
    }


def _pooled(answer: Any) -> torch.Tensor:
    """Take the features out of what one release or another of transformers returns."""
    if isinstance(answer, torch.Tensor):
        return answer
    pooled: torch.Tensor = answer.pooler_output
    return pooled
