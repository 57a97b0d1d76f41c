"""What an image–text encoder is, and what all of ours share."""

from __future__ import annotations

__all__ = ["BaseEncoder", "Encoder", "EncoderWarning"]

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.arrays import check_finite
from conceptlab.batching import AutoInt, BatchMemory, check_batch_size, iter_batches
from conceptlab.datasets.images import image_source
from conceptlab.datasets.sources import Images, to_unit
from conceptlab.encoders.cache import EmbeddingCache, as_cache
from conceptlab.encoders.preprocess import Preprocess
from conceptlab.encoders.shadow import weights_state
from conceptlab.encoders.templates import Templates, fill_templates, resolve_templates
from conceptlab.errors import InputError, unknown_name
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint

# Fast tokenizers keep truncation and padding as a state that every call sets anew.
_TOKENIZING = threading.RLock()
_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@runtime_checkable
class Encoder(Protocol):
    """Images and texts to vectors in one space.

    Attributes
    ----------
    name : str
        For people.
    dim : int
        Length d of the vectors.
    device : torch.device
        Where it computes.
    fingerprint : str
        sha256 of weights, preprocessing and tokenizer; equal for equal spaces.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> isinstance(load_encoder("embedded"), Encoder)
    True
    """

    name: str

    @property
    def dim(self) -> int:
        """Length of the vectors."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def fingerprint(self) -> str:
        """Hash of the space."""

    def encode_image(
        self,
        images: Images,
        *,
        batch_size: AutoInt = "auto",
        normalize: bool = True,
        progress: Progress = None,
    ) -> Any:
        """Encode images to (n, d); see :meth:`BaseEncoder.encode_image`."""

    def encode_text(
        self,
        texts: Sequence[str],
        *,
        templates: Templates = None,
        batch_size: int = 256,
        normalize: bool = True,
        progress: Progress = None,
    ) -> Any:
        """Encode texts to (n, d); see :meth:`BaseEncoder.encode_text`."""


class EncoderWarning(UserWarning):
    """Something about an encoder makes what is computed with it doubtful."""


class BaseEncoder:
    """Batches, preprocessing, normalisation, templates and caching for any model.

    A subclass gives `_image_features`, `_tokenize`, `_token_counts` and
    `_text_features`.

    Parameters
    ----------
    name : str
        For people.
    device : torch.device
        Where the model is.
    preprocess : Preprocess
        From images in [0, 1] to the model's input.
    modules : sequence of Module
        Whose weights make the fingerprint.
    identity : JSON value
        What else tells encoders apart, such as the tokenizer.
    precision : {"float32", "bfloat16", "float16"}
        The two short ones run the model under autocast; vectors are float32.
    context_length : int, optional
        Largest number of tokens of a text.

    Attributes
    ----------
    preprocess : Preprocess
    context_length : int or None
    takes_cache : bool
        True: `encode_image` and `encode_text` take a ``cache``.
    logit_scale, logit_bias : float or None
        Factor and offset from cosine to logit that the model was trained with.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> encoder = load_encoder("embedded")
    >>> isinstance(encoder, BaseEncoder), tuple(encoder.encode_text(["a red star"]).shape)
    (True, (1, 128))
    """

    takes_cache: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        *,
        device: torch.device,
        preprocess: Preprocess,
        modules: Sequence[nn.Module] = (),
        identity: Any = None,
        precision: str = "float32",
        context_length: int | None = None,
    ) -> None:
        if precision not in _PRECISIONS:
            raise unknown_name("precision", precision, _PRECISIONS)
        self.name = name
        self.preprocess = preprocess
        self.precision = precision
        self.context_length = context_length
        self._device = device
        self._modules = tuple(modules)
        self._identity = identity
        self._fingerprint: tuple[Any, str] | None = None
        self._dim: int | None = None
        self._looked: set[str] = set()
        self._image_memory, self._text_memory = BatchMemory(), BatchMemory()

    # -- what a subclass gives ------------------------------------------------
    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode the model's input (n, 3, h, w) to (n, d), differentiably."""
        raise NotImplementedError

    def _tokenize(self, texts: list[str]) -> Any:
        """Turn texts to what `_text_features` takes; too long ones are cut."""
        raise NotImplementedError

    def _token_counts(self, texts: list[str]) -> list[int] | None:
        """Count the tokens of each text with start and end, or None if unknown."""
        raise NotImplementedError

    def _text_features(self, tokens: Any) -> torch.Tensor:
        """Encode tokens to (n, d), differentiably."""
        raise NotImplementedError

    @property
    def logit_scale(self) -> float | None:
        """Factor from cosine to logit that the model was trained with."""
        return None

    @property
    def logit_bias(self) -> float | None:
        """Offset of the logit that the model was trained with."""
        return None

    # -- what it is -----------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._device

    @property
    def dim(self) -> int:
        """Length of the vectors; found by encoding one blank image where the model does not say."""
        if self._dim is None:
            fit = self.preprocess.fit
            size = (224, 224) if fit is None else (fit.height, fit.width)
            self._dim = int(self.encode_image(np.zeros((1, 3, *size), np.uint8)).shape[1])
        return self._dim

    @property
    def fingerprint(self) -> str:
        """sha256 of weights, preprocessing and tokenizer, computed when first asked for.

        Weights that change afterwards give another fingerprint.
        """
        state = weights_state(self._modules)
        if self._fingerprint is None or self._fingerprint[0] != state:
            parts = ("encoder", 1, self._identity, self.preprocess.to_dict())
            self._fingerprint = (state, fingerprint(*parts, *self._modules))
        return self._fingerprint[1]

    # -- what it does ---------------------------------------------------------
    def encode_image(
        self,
        images: Images,
        *,
        batch_size: AutoInt = "auto",
        normalize: bool = True,
        progress: Progress = None,
        cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    ) -> Any:
        """Encode images to vectors.

        Parameters
        ----------
        images : array-like of images, channels first
            Anything :func:`conceptlab.datasets.as_image_batch` takes, of
            any and mixed sizes; files are read batch by batch.
        batch_size : int or "auto"
            Images a pass; "auto" halves it when memory runs out.
        normalize : bool
            Whether vectors get length one.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.
        cache : EmbeddingCache or path-like, optional
            Where vectors are kept between runs.

        Returns
        -------
        array of shape (n, d)
            Tensor for tensors, on their device and in their floating dtype;
            else NumPy, float64 for float64 and float32 otherwise.

        Raises
        ------
        InputError
            Images that are not what they should be, see ``as_image_batch``.

        Examples
        --------
        >>> from conceptlab.encoders import CallableEncoder
        >>> encoder = CallableEncoder(lambda x: x.mean(dim=(2, 3)), name="mean colour")
        >>> encoder.encode_image(np.ones((2, 3, 4, 4)), normalize=False).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
        """
        batch_size = check_batch_size(batch_size)
        source = image_source(images)
        kind = source.kind

        home = kind.device if kind.is_tensor else torch.device("cpu")

        def compute(indices: Sequence[int]) -> torch.Tensor:
            with torch.no_grad(), self._autocast():
                pixels = self.preprocess(source.take(indices), device=self.device)
                features = self._image_features(pixels)
                if len(indices) > 1:
                    self._look_alone(
                        "image",
                        features,
                        lambda: [self._image_features(one) for one in (pixels[:1], pixels[-1:])],
                    )
            return self._finish(features, normalize, f"images[{indices[0]}:{indices[-1] + 1}]")

        def rows(indices: Sequence[int], report: Progress) -> torch.Tensor:
            return self._gather(
                lambda start, stop: compute(indices[start:stop]),
                len(indices),
                batch_size=batch_size,
                memory=self._image_memory,
                home=home,
                description="encode images",
                progress=report,
            )

        if cache is None:
            return kind.restore(rows(range(len(source)), progress))
        settings = {"what": "image", "normalize": normalize, "precision": self.precision}
        keys = source.digests(0, len(source))
        found = as_cache(cache).rows(self.fingerprint, settings, keys, rows, progress=progress)
        return kind.restore(found)

    def encode_text(
        self,
        texts: Sequence[str] | str,
        *,
        templates: Templates = None,
        batch_size: int = 256,
        normalize: bool = True,
        truncate: bool = False,
        progress: Progress = None,
        as_tensor: bool = False,
        cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    ) -> Any:
        """Encode texts to vectors.

        Parameters
        ----------
        texts : sequence of str, or str
            One string is one text.
        templates : str, sequence of str, or None
            Sentences with ``{}`` around each text, or the name of a set of
            them; see :data:`conceptlab.encoders.templates.TEMPLATES`. Vectors of the
            sentences get length one and are averaged.
        batch_size : int or "auto"
            Sentences a pass; "auto" begins with 256 and halves when memory runs out.
        normalize : bool
            Whether vectors get length one (averages again).
        truncate : bool
            Whether texts over the context length are cut instead of refused.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.
        as_tensor : bool
            Whether to answer with a tensor on the encoder's device.
        cache : EmbeddingCache or path-like, optional
            Where vectors are kept between runs.

        Returns
        -------
        ndarray or Tensor of shape (n, d), float32

        Raises
        ------
        InputError
            ``CL-INPUT-TEXT`` for texts over the context length, with their
            numbers of tokens; ``CL-INPUT-EMPTY`` without texts;
            ``CL-INPUT-TYPE`` for what is no text.
        """
        items = check_texts(texts)
        sentences = resolve_templates(templates)
        checked = check_batch_size(batch_size)
        size = 256 if checked == "auto" else checked
        group = max(1, size // len(sentences))

        def compute(indices: Sequence[int]) -> torch.Tensor:
            filled = [s for i in indices for s in fill_templates(sentences, items[i])]
            with _TOKENIZING:
                if not truncate:
                    self._check_lengths(filled)
                tokens = [self._tokenize(filled[i : i + size]) for i in range(0, len(filled), size)]
                ends = [self._tokenize(part) for part in (filled[:1], filled[:size][-1:])]
            with torch.no_grad(), self._autocast():
                parts = [self._text_features(part) for part in tokens]
                if len(filled) > 1:
                    self._look_alone(
                        "text", parts[0], lambda: [self._text_features(t) for t in ends]
                    )
            name = f"texts[{indices[0]}:{indices[-1] + 1}]"
            if len(sentences) == 1:
                return self._finish(torch.cat(parts), normalize, name)
            units = self._finish(torch.cat(parts), True, name)
            means = units.view(len(indices), len(sentences), -1).mean(dim=1)
            return self._finish(means, normalize, name)

        home = self.device if as_tensor else torch.device("cpu")

        def rows(indices: Sequence[int], report: Progress) -> torch.Tensor:
            return self._gather(
                lambda start, stop: compute(indices[start:stop]),
                len(indices),
                batch_size="auto" if checked == "auto" else group,
                largest=group,
                memory=self._text_memory,
                home=home,
                description="encode texts",
                progress=report,
            )

        if cache is None:
            found = rows(range(len(items)), progress)
        else:
            settings = {
                "what": "text",
                "normalize": normalize,
                "precision": self.precision,
                "templates": list(sentences),
                "truncate": truncate,
            }
            keys = [hashlib.sha256(text.encode()).digest() for text in items]
            found = as_cache(cache).rows(self.fingerprint, settings, keys, rows, progress=progress)
        return found.to(self.device) if as_tensor else found.numpy()

    def embed_image(self, images: torch.Tensor, *, normalize: bool = True) -> torch.Tensor:
        """Encode one batch differentiably, for objectives that an image is moved along.

        Parameters
        ----------
        images : Tensor of shape (n, 3, h, w)
            In [0, 1]; moved to the encoder's device. Gradients flow back to it
            through scaling, cropping and normalisation, and never into weights.
        normalize : bool
            Whether vectors get length one.

        Returns
        -------
        Tensor of shape (n, d), float32
        """
        if not isinstance(images, torch.Tensor):
            raise InputError(
                f"embed_image takes a tensor, got {type(images).__name__}. Use encode_image, or "
                "as_image_batch before.",
                code="CL-INPUT-TYPE",
            )
        with self._autocast():
            pixels = self.preprocess.tensor(to_unit(images).to(self.device))
            features = self._image_features(pixels)
        return self._finish(features, normalize, "images")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, device={str(self.device)!r})"

    def __sklearn_clone__(self) -> BaseEncoder:
        # Weights are shared by every step that uses them; nothing here is ever fitted.
        return self

    # -- inside ---------------------------------------------------------------
    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _PRECISIONS[self.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def _look_alone(
        self, what: str, features: torch.Tensor, alone: Callable[[], list[torch.Tensor]]
    ) -> None:
        """At the first batch, see whether its first and last vectors depend on the others."""
        if what in self._looked:
            return
        self._looked.add(what)
        ends = torch.cat([features[:1], features[-1:]]).float()
        again = torch.cat(alone()).float()
        if ends.shape == again.shape and bool(
            (ends - again).abs().max() > 2e-2 * again.abs().max()
        ):
            warnings.warn(
                f"{self.name} gives another vector for one {what} alone than beside others: it "
                "reads statistics of the batch, pads without a mask, or draws random numbers. No "
                "figure made with it belongs to one sample; mend it, or encode with batch_size=1.",
                EncoderWarning,
                stacklevel=4,
            )

    def _finish(self, features: torch.Tensor, normalize: bool, name: str) -> torch.Tensor:
        if features.ndim != 2:
            raise InputError(
                f"{self.name} gave features of shape {tuple(features.shape)} for {name}; expected "
                "(n, d). Pool or flatten them inside the encoder.",
                code="CL-INPUT-RANK",
            )
        features = features.float()
        check_finite(features.detach(), f"features of {name} from {self.name}")
        return functional.normalize(features, dim=-1) if normalize else features

    def _gather(
        self,
        fn: Any,
        n: int,
        *,
        batch_size: AutoInt,
        memory: BatchMemory,
        home: torch.device,
        description: str,
        progress: Progress,
        largest: int | None = None,
    ) -> torch.Tensor:
        out: torch.Tensor | None = None
        for start, stop, value in iter_batches(
            fn,
            n,
            batch_size=batch_size,
            device=self.device,
            largest=largest,
            memory=memory,
            description=description,
            progress=progress,
        ):
            if len(value) != stop - start:
                raise InputError(
                    f"{self.name} gave {len(value)} vectors for {stop - start} inputs. An encoder "
                    "gives one for each.",
                    code="CL-INPUT-SHAPE",
                )
            if out is None:
                out = torch.empty((n, value.shape[1]), dtype=value.dtype, device=home)
            out[start:stop] = value
        if out is None:
            raise InputError("There is nothing to encode.", code="CL-INPUT-EMPTY")
        return out

    def _check_lengths(self, texts: list[str]) -> None:
        limit = self.context_length
        counts = None if limit is None else self._token_counts(texts)
        if limit is None or counts is None or max(counts) <= limit:
            return
        long = [(text, count) for text, count in zip(texts, counts, strict=True) if count > limit]
        shown = "; ".join(f"{_shorten(text)!r} has {count}" for text, count in long[:5])
        raise InputError(
            f"{len(long)} of these {len(texts)} texts are longer than the {limit} tokens that "
            f"{self.name} reads: {shown}. Shorten them, or have them cut: truncate=True, for "
            "encode_text as for ClassConcepts.embed.",
            code="CL-INPUT-TEXT",
        )


def check_texts(texts: Any) -> list[str]:
    """Give texts as a list, or say what is no text."""
    items = [texts] if isinstance(texts, str) else list(texts)
    if not items:
        raise InputError("texts is empty. Give at least one text.", code="CL-INPUT-EMPTY")
    for index, text in enumerate(items):
        if not isinstance(text, str):
            raise InputError(
                f"texts[{index}] is a {type(text).__name__}, expected a string: {text!r:.80}",
                code="CL-INPUT-TYPE",
            )
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(
                f"texts[{index}] is no whole text: {text!a:.80} holds halves of characters. Read "
                "the file or folder that it comes from with the right encoding.",
                code="CL-INPUT-TYPE",
            )
    return [str(text) for text in items]


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
