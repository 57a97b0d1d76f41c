"""An image-text encoder built of a classifier and vectors of texts: no pair was ever trained."""

from __future__ import annotations

__all__ = ["ConSEEncoder"]

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import as_numpy
from conceptlab.encoders.base import check_texts
from conceptlab.encoders.functions import CallableEncoder
from conceptlab.encoders.preprocess import Preprocess
from conceptlab.errors import InputError
from conceptlab.parameters import Whole


class ConSEEncoder(CallableEncoder):
    """Read an image as the mix of its likeliest class names, in a space of texts.

    The vector of an image is ``sum p(name) v(name)`` over the `n_names` likeliest classes of
    the classifier, their probabilities scaled to sum to one, with ``v`` the unit vector of the
    name; a text is its own vector. Thus any classifier with names and any model of sentences
    make an encoder for zero-shot classification, banks of concepts and bottlenecks. It tells
    apart what the names tell apart, and no more.

    Parameters
    ----------
    classifier : torch.nn.Module
        From a batch (n, 3, h, w), as `preprocess` gives it, to logits (n, K).
    text_vectors : callable
        From a list of n strings to (n, d).
    class_names : sequence of K str
        Names of the outputs, as a person would write them.
    n_names : int
        Likeliest names that are mixed; all K where there are fewer.
    preprocess : Preprocess or callable, optional
        See :class:`CallableEncoder`.
    name : str
        For people.
    device : str or torch.device
        "auto" is where the classifier is.

    Raises
    ------
    InputError
        Vectors of names that are no (K, d) matrix of finite numbers (``CL-INPUT-SHAPE``), or
        have length zero (``CL-INPUT-ZERO``); later, outputs or texts of another width
        (``CL-INPUT-FEATURES``).

    References
    ----------
    Norouzi et al., Zero-shot learning by convex combination of semantic embeddings, ICLR 2014.

    Examples
    --------
    >>> classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the mean colour
    >>> words = {"red": [1.0, 0.0], "green": [0.0, 1.0], "blue": [-1.0, 0.0]}
    >>> encoder = ConSEEncoder(
    ...     classifier, lambda texts: np.array([words[t] for t in texts]), list(words), n_names=1
    ... )
    >>> image = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    >>> image[:, 1] = 255
    >>> encoder.encode_image(image).tolist(), encoder.encode_text(["red"]).tolist()
    ([[0.0, 1.0]], [[1.0, 0.0]])
    """

    def __init__(
        self,
        classifier: nn.Module,
        text_vectors: Callable[[list[str]], Any],
        class_names: Sequence[str],
        n_names: int = 10,
        *,
        preprocess: Preprocess | Callable[[torch.Tensor], torch.Tensor] | None = None,
        name: str = "ConSE",
        device: str | torch.device = "auto",
    ) -> None:
        if not isinstance(classifier, nn.Module) or not callable(text_vectors):
            raise InputError(
                "classifier must be a torch.nn.Module and text_vectors a callable, got "
                f"{type(classifier).__name__} and {type(text_vectors).__name__}.",
                code="CL-INPUT-TYPE",
            )
        names = check_texts(class_names)
        n_names = min(Whole(1).check("n_names", n_names), len(names))
        vectors = as_numpy(text_vectors(names)).astype(np.float32)
        if vectors.ndim != 2 or len(vectors) != len(names) or not np.isfinite(vectors).all():
            raise InputError(
                f"text_vectors gave shape {vectors.shape} for {len(names)} names; expected "
                f"({len(names)}, d), finite numbers.",
                code="CL-INPUT-SHAPE",
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():
            which = names[int(np.argmin(lengths))]
            raise InputError(f"The vector of {which!r} has length zero.", code="CL-INPUT-ZERO")
        width = vectors.shape[1]

        def texts_of_that_width(texts: list[str]) -> np.ndarray:
            found = as_numpy(text_vectors(texts))
            if found.shape != (len(texts), width):
                raise InputError(
                    f"text_vectors gave shape {found.shape} for {len(texts)} texts; the names of "
                    f"the classes have vectors of length {width}.",
                    code="CL-INPUT-FEATURES",
                )
            return found

        super().__init__(
            _Mix(classifier, torch.from_numpy(vectors / lengths), n_names),
            texts_of_that_width,
            width,
            preprocess=preprocess,
            name=name,
            device=device,
        )
        self.class_names = tuple(names)
        self.n_names = n_names


class _Mix(nn.Module):
    vectors: torch.Tensor
    count: torch.Tensor

    def __init__(self, classifier: nn.Module, vectors: torch.Tensor, n_names: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.n_names = n_names
        place = next(classifier.parameters(), vectors).device
        self.register_buffer("vectors", vectors.to(place))
        self.register_buffer("count", torch.tensor(n_names, device=place))  # a part of the hash
        self.training = classifier.training

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(pixels)
        if logits.ndim != 2 or logits.shape[1] != len(self.vectors):
            raise InputError(
                f"The classifier gave outputs of shape {tuple(logits.shape)} for "
                f"{len(self.vectors)} class names; expected one output a name.",
                code="CL-INPUT-FEATURES",
            )
        p, places = logits.float().softmax(dim=1).topk(self.n_names, dim=1)
        p = p / p.sum(dim=1, keepdim=True)
        return torch.einsum("nm,nmd->nd", p, self.vectors[places])
