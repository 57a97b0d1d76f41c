"""Encoders from open_clip: by name and tag, from a folder, or already built."""

from __future__ import annotations

__all__ = ["OpenClipEncoder", "load_open_clip"]

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conceptlab.arrays import resolve_device
from conceptlab.datasets.images import image_source
from conceptlab.datasets.sources import Images
from conceptlab.encoders.base import BaseEncoder
from conceptlab.encoders.dependencies import cannot_load, import_package
from conceptlab.encoders.preprocess import Preprocess
from conceptlab.encoders.shadow import shadow
from conceptlab.errors import CheckpointError, InputError, unknown_name
from conceptlab.io.reading import check_plain_folder
from conceptlab.models.session import check_model, input_dtype
from conceptlab.provenance import fingerprint
from conceptlab.seeds import RandomState, draw_seed, quiet_randomness

_ASK = object()
CONFIG = "open_clip_config.json"


class OpenClipEncoder(BaseEncoder):
    """An encoder around a model of open_clip.

    The model is not changed: a twin with the same weights computes.

    Parameters
    ----------
    model : Module
        With ``encode_image`` and ``encode_text``, as ``open_clip.create_model`` gives.
    tokenizer : callable
        From texts to a tensor of tokens, as ``open_clip.get_tokenizer`` gives.
    preprocess : Preprocess, mapping or None
        None reads ``model.visual.preprocess_cfg``.
    name : str
        For people.
    device : str or torch.device
        "auto" stays where the model is.
    precision : {"float32", "bfloat16", "float16"}
        The two short ones compute under autocast.

    Examples
    --------
    >>> from conceptlab.assets import embedded_open_clip
    >>> from conceptlab.encoders import Preprocess
    >>> model, preprocessing, tokenizer = embedded_open_clip()
    >>> encoder = OpenClipEncoder(model, tokenizer, name="my model", device="cpu")
    >>> encoder.encode_text(["a red star", "a blue heart"]).shape
    (2, 128)
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., torch.Tensor],
        *,
        preprocess: Preprocess | Any = None,
        name: str = "open_clip",
        device: str | torch.device = "auto",
        precision: str = "float32",
    ) -> None:
        if not (callable(getattr(model, "encode_image", None)) and isinstance(model, nn.Module)):
            raise InputError(
                f"{type(model).__name__} is no model of open_clip: it has no encode_image. For "
                "other models use CallableEncoder.",
                code="CL-INPUT-TYPE",
            )
        if not isinstance(preprocess, Preprocess):
            config = preprocess or getattr(getattr(model, "visual", None), "preprocess_cfg", None)
            if config is None:
                raise InputError(
                    f"{type(model).__name__} does not say how images are prepared. Give preprocess="
                    "{'size': 224, 'mean': ..., 'std': ..., 'interpolation': 'bicubic'}.",
                    code="CL-INPUT-OPTION",
                )
            preprocess = Preprocess.from_open_clip(config)
        check_model(model)
        first = next(model.parameters())
        place = first.device if device == "auto" else resolve_device(device)
        self._model = shadow(model).to(place)
        visual = getattr(model, "visual", None)
        self._pixels = input_dtype(visual if isinstance(visual, nn.Module) else model)
        self._tokenizer = tokenizer
        context = getattr(tokenizer, "context_length", None) or getattr(
            model, "context_length", None
        )
        super().__init__(
            name,
            device=place,
            preprocess=preprocess,
            modules=[self._model],
            identity={"tokenizer": tokenizer_identity(tokenizer), "context_length": context},
            precision=precision,
            context_length=context,
        )
        dim = getattr(getattr(model, "visual", None), "output_dim", None)
        self._dim = int(dim) if isinstance(dim, int) else None

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
        features: torch.Tensor = self._model.encode_image(pixels)  # type: ignore[operator]
        return features

    def encode_maps(self, images: Images, *, least: int = 8) -> Any:
        """Encode images to feature maps, for what asks where in an image something is.

        Parameters
        ----------
        images : images
            As for :meth:`encode_image`; all in one pass.
        least : int
            The map is that of the last block with at least so many positions along either
            side; where no block has, of the last one with the most.

        Returns
        -------
        array of shape (n, c, h, w)
            Tensor for tensors, on their device and in their floating dtype; else NumPy.

        Raises
        ------
        InputError
            ``CL-INPUT-TYPE``: the image tower has no maps to give.
        """
        visual: Any = self._model.visual
        source = image_source(images)
        with torch.no_grad(), self._autocast():
            pixels = self.preprocess(source.take(range(len(source))), device=self.device)
            try:
                blocks = visual.forward_intermediates(
                    pixels.to(self._pixels), intermediates_only=True
                )["image_intermediates"]
            except (AttributeError, AssertionError, NotImplementedError) as error:
                raise InputError(
                    f"{type(visual).__name__} gives no maps of its blocks ({error}). Give a "
                    "function from images to maps, such as SplitModel(model, at='layer3').g.",
                    code="CL-INPUT-TYPE",
                ) from error
        sides = [min(block.shape[-2:]) for block in blocks]
        wanted = min(least, max(sides))
        last = max(i for i, side in enumerate(sides) if side >= wanted)
        return source.kind.restore(blocks[last].float())

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        return self._tokenizer(texts).to(self.device)

    def _token_counts(self, texts: list[str]) -> list[int] | None:
        return count_tokens(self._tokenizer, texts)

    def _text_features(self, tokens: Any) -> torch.Tensor:
        features: torch.Tensor = self._model.encode_text(tokens)  # type: ignore[operator]
        return features


def load_open_clip(
    source: str,
    device: str | torch.device = "auto",
    *,
    pretrained: Any = _ASK,
    precision: str = "float32",
    random_state: RandomState = None,
    **options: Any,
) -> OpenClipEncoder:
    """Load ``"ViT-B-32/laion2b_s34b_b79k"``, ``"hf-hub:org/name"`` or a folder.

    Parameters
    ----------
    source : str
        Architecture and tag of weights, parted by a slash; a folder with
        ``open_clip_config.json``; or a name on the Hugging Face hub.
    device, precision
        See :class:`OpenClipEncoder`.
    pretrained : str or None, optional
        Tag or file of weights where `source` is an architecture alone. None,
        given in so many words, is random weights.
    random_state : optional
        Seed of random weights.
    **options
        For ``open_clip.create_model``.

    Returns
    -------
    OpenClipEncoder

    Raises
    ------
    InputError
        Unknown architecture or tag, or no tag (``CL-INPUT-OPTION``).
    CheckpointError
        Weights that are not there or cannot be read.
    DependencyError
        open_clip or torchvision missing or broken.
    """
    open_clip = import_package("open_clip", "open_clip_torch")
    place = resolve_device(device)
    name, tag = _resolve_source(open_clip, source, pretrained)
    seed = draw_seed(random_state)
    if _trained_with_quick_gelu(open_clip, name, tag):
        options.setdefault("force_quick_gelu", True)
    if not options.pop("weights_only", True):
        raise InputError(
            "weights_only=False is not allowed: it runs code from the file of weights. Load the "
            "model yourself and give it to OpenClipEncoder.",
            code="CL-INPUT-OPTION",
        )
    try:
        if name.startswith("local-dir:"):
            check_plain_folder(name.removeprefix("local-dir:"))
        with _quiet(), quiet_randomness():
            torch.default_generator.manual_seed(seed)
            model = open_clip.create_model(name, pretrained=tag, **options)
            tokenizer = _tokenizer(open_clip, name)
    except Exception as error:  # each format of weights has errors of its own
        raise cannot_load(
            f"open_clip:{source}",
            error,
            "Weights come from the Hugging Face hub on first use; without a network give a folder "
            f"that holds {CONFIG} and the weights: load_encoder('open_clip:/path/to/folder').",
        ) from error
    label = f"open_clip:{source}"
    if tag and "/" not in source:
        label += f"/{Path(str(tag)).name}"
    if tag is None and ":" not in name:
        label += " (random weights)"
    return OpenClipEncoder(
        model.requires_grad_(False), tokenizer, name=label, device=place, precision=precision
    )


def _resolve_source(open_clip: Any, source: str, pretrained: Any) -> tuple[str, str | None]:
    if source.startswith(("hf-hub:", "local-dir:")):
        return source, None
    if os.path.isdir(source):
        if not os.path.isfile(Path(source) / CONFIG):
            raise CheckpointError(
                f"{source} has no {CONFIG}. For a folder saved by transformers use 'hf:{source}'.",
                code="CL-CHECKPOINT-MISSING",
            )
        if not _has_weights(Path(source)):
            raise CheckpointError(
                f"{source} holds no weights (*.safetensors, *.bin, *.pt), and random ones are no "
                "use. Get the folder again.",
                code="CL-CHECKPOINT-MISSING",
            )
        return f"local-dir:{source}", None
    if source.startswith(("/", "./", "../", "~")):
        raise CheckpointError(f"There is no folder {source}.", code="CL-CHECKPOINT-MISSING")
    name, _, tag = source.partition("/")
    if name not in open_clip.list_models():
        raise unknown_name("open_clip model", name, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag:
        if tag not in tags:
            raise unknown_name(f"weights of {name}", tag, tags)
        return name, tag
    if pretrained is _ASK:
        raise InputError(
            f"'open_clip:{name}' names no weights. Say which: 'open_clip:{name}/TAG' with TAG one "
            f"of {', '.join(tags) or '(none published)'}; pretrained='/path/to/file', or "
            "pretrained=None for random weights.",
            code="CL-INPUT-OPTION",
        )
    if pretrained is not None and pretrained not in tags and not os.path.isfile(pretrained):
        raise unknown_name(f"weights of {name}", pretrained, tags)
    return name, None if pretrained is None else str(pretrained)


def _tokenizer(open_clip: Any, name: str) -> Any:
    """Make the tokenizer without the code that a model's own configuration may ask to run."""
    try:
        return open_clip.get_tokenizer(name, trust_remote_code=False)
    except TypeError as error:  # open_clip's own tokenizer, which runs none, takes no such option
        if "trust_remote_code" not in str(error):
            raise
        return open_clip.get_tokenizer(name)


def _trained_with_quick_gelu(open_clip: Any, name: str, tag: str | None) -> bool:
    """Tell whether published weights need the activation that the plain name does not have.

    open_clip itself only warns, and the vectors are then of no known model.
    """
    if tag is None or ":" in name:
        return False
    published = open_clip.pretrained.get_pretrained_cfg(name, tag)
    return bool(published.get("quick_gelu"))


def _has_weights(folder: Path) -> bool:
    return any(p.suffix in {".safetensors", ".bin", ".pt", ".pth"} for p in folder.iterdir())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's words on the root logger, and keep it from configuring that."""
    root, sink = logging.getLogger(), logging.NullHandler()

    def drop(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root.addFilter(drop)
    root.addHandler(sink)
    try:
        yield
    finally:
        root.removeHandler(sink)
        root.removeFilter(drop)


def tokenizer_identity(tokenizer: Any) -> Any:
    """Give what tells tokenizers apart: class, vocabulary and length."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    vocabulary = getattr(inner, "encoder", None)
    if not isinstance(vocabulary, dict):
        get = getattr(inner, "get_vocab", None)
        vocabulary = get() if callable(get) else None
    digest = None if vocabulary is None else fingerprint({str(k): v for k, v in vocabulary.items()})
    return [type(tokenizer).__name__, digest]


def count_tokens(tokenizer: Any, texts: list[str]) -> list[int] | None:
    """Count tokens with start and end marks, where the tokenizer lets them be counted."""
    if callable(getattr(tokenizer, "encode", None)) and hasattr(tokenizer, "eot_token_id"):
        return [len(tokenizer.encode(text)) + 2 for text in texts]
    inner = getattr(tokenizer, "tokenizer", None)
    if callable(inner):
        clean = getattr(tokenizer, "clean_fn", None) or (lambda text: text)
        ids = inner([clean(text) for text in texts], truncation=False, padding=False)["input_ids"]
        return [len(row) for row in ids]
    return None
