"""Where in an input a concept is: one call for all methods."""

from __future__ import annotations

__all__ = ["METHODS", "check_method", "concept_maps"]

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from conceptlab.batching import BatchMemory, check_batch_size, iter_batches, run_together
from conceptlab.datasets.sources import stack
from conceptlab.errors import InputError, unknown_name
from conceptlab.maps.coefficients import CodeOf
from conceptlab.maps.implicit import implicit_maps
from conceptlab.maps.occlusion import occlusion_maps
from conceptlab.maps.rise import rise_maps
from conceptlab.maps.upsample import upsample_maps
from conceptlab.models import SplitModel
from conceptlab.models.images import as_model_images, model_images
from conceptlab.models.joined import Joined, read_beside
from conceptlab.models.rows import automatic_batch
from conceptlab.models.session import Inputs
from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, draw_seed, torch_generator

METHODS = ("implicit", "upsample", "occlusion", "rise")


def concept_maps(
    split: SplitModel,
    extractor: Any,
    images: Any,
    *,
    inputs: Any = None,
    method: str = "implicit",
    concepts: Any = None,
    pool: str = "activations",
    batch_size: int | str = "auto",
    random_state: RandomState = None,
    progress: Progress = None,
    **options: Any,
) -> np.ndarray:
    """Compute a map for every image and concept.

    Parameters
    ----------
    split : SplitModel
        The model, cut at the layer of `extractor`.
    extractor : ConceptExtractor
        Fitted on activations of that layer.
    images : images, or a dict of tensors
        As for :func:`conceptlab.models.pooled_activations`; all of one size. For
        text, the dict that the model takes; video (n, channels, frames, height, width), also
        as such a dict.
    inputs : mapping, tuple, or array, optional
        What the model takes beside the images, as for :meth:`CRAFT.fit`; maps are of the images.
    method : {"implicit", "upsample", "occlusion", "rise"}
        - ``"implicit"``: gradient of the coefficient by implicit differentiation
          of the factorisation, at the layer (``level="layer"``) or carried to the
          input (``level="input"``; options ``smooth``, ``noise``, ``steps``,
          ``baseline``, ``reduce``);
        - ``"upsample"``: coefficients of each position, resized;
        - ``"occlusion"``: fall of the coefficient when a square is covered
          (``window``, ``stride``, ``baseline``);
        - ``"rise"``: random masks (``n_masks``, ``cells``, ``keep``, ``baseline``,
          ``centre``).
    concepts : int or sequence of int, optional
        Which concepts; all by default.
    pool : {"activations", "coefficients"}
        The coefficient of an image: the code of its mean activation, as crops
        are coded, or the mean of the codes of its positions.
    batch_size : int or "auto"
        Images in a pass.
    random_state : int, Generator or None
        For noise and masks.
    progress : bool or callable, optional
        See :data:`conceptlab.progress.Progress`.
    **options
        Of the method; see :mod:`conceptlab.maps`.

    Returns
    -------
    numpy.ndarray of shape (n, k, height, width), float32
        Not scaled. For text (``"implicit"`` at the layer, ``"upsample"``):
        (n, tokens, k); for video (``"implicit"``, ``"upsample"``): (n, k, frames, height, width).

    Raises
    ------
    InputError
        An unknown method or option, a concept that does not exist, a layer
        without positions, an extractor without gradient.

    Notes
    -----
    With `pool` "coefficients" the map at the layer is the coefficient map itself,
    divided by the number of positions, where u is homogeneous of degree one in a, as
    non-negative codes are: ``"implicit"`` and ``"upsample"`` then say the same. With the
    default they differ: positions share the concepts that the mean activation holds.

    References
    ----------
    Fel et al., *CRAFT: Concept Recursive Activation FacTorization for
    Explainability*, CVPR 2023, section 3.4.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from conceptlab.extractors import NMFConcepts
    >>> from conceptlab.models import SplitModel, pooled_activations
    >>> body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    >>> images = torch.rand(8, 3, 16, 16)
    >>> split = SplitModel(model, at="0")
    >>> rows, index = pooled_activations(split, images, patch_size=8)
    >>> concepts = NMFConcepts(2, random_state=0).fit(rows)
    >>> concept_maps(split, concepts, images).shape
    (8, 2, 16, 16)
    """
    runs: dict[str, Callable[..., torch.Tensor]] = {
        "implicit": implicit_maps,
        "upsample": upsample_maps,
        "occlusion": occlusion_maps,
        "rise": rise_maps,
    }
    check_method(method)
    _check_options(method, runs[method], options)
    code = CodeOf(split, extractor, concepts, pool)
    images = as_model_images(images, split)
    if isinstance(images, Mapping) and method in ("occlusion", "rise"):
        raise InputError(
            f"method={method!r} covers parts of images. For text and video use 'implicit' or "
            "'upsample'.",
            code="CL-INPUT-OPTION",
        )
    n, shape, read = _reader(split, images, inputs)
    step = automatic_batch(batch_size, _area(shape), split.device)
    masked = method in ("occlusion", "rise")
    # Copies under masks are all of one image, where each has its own beside it.
    most = 1 if masked and inputs is not None else step
    seed = draw_seed(random_state)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(n)]
    memory = BatchMemory()

    def run(start: int, stop: int) -> np.ndarray:
        x = given = read(start, stop)

        def code_in_parts(x: torch.Tensor) -> torch.Tensor:
            whole = given.of(x) if isinstance(given, Joined) else x
            return run_together(
                lambda first, last: code(whole[first:last]),
                len(x),
                batch_size=batch_size,
                memory=memory,
            )

        if masked and isinstance(given, Joined):
            x = given.images
        if method == "implicit":
            found = implicit_maps(code, x, shape, seeds=seeds[start:stop], **options)
        elif method == "upsample":
            found = upsample_maps(code, x, shape)
        elif method == "occlusion":
            found = occlusion_maps(code_in_parts, x, batch_size=step, **options)
        else:
            # The same masks for every batch, so that images do not depend on it.
            masks = torch_generator(seed)
            found = rise_maps(code_in_parts, x, batch_size=step, generator=masks, **options)
        return as_numpy(found).astype(np.float32)

    batches = iter_batches(
        run,
        n,
        batch_size=check_batch_size(batch_size),
        largest=most,
        description="compute maps",
        progress=progress,
    )
    return np.concatenate([part for _, _, part in batches])


def check_method(method: str) -> None:
    """Raise an InputError for a method that does not exist."""
    if method not in METHODS:
        raise unknown_name("method of concept maps", method, METHODS)


def _reader(
    split: SplitModel, images: Any, given: Any
) -> tuple[int, tuple[int, ...] | None, Callable[[int, int], Any]]:
    if isinstance(images, Mapping):
        if given is not None:
            raise InputError(
                "inputs= goes beside images, and these are a dict of all that the model takes. "
                "Give the images alone, or the dict alone.",
                code="CL-INPUT-OPTION",
            )
        inputs = Inputs.of(images)
        if not inputs.batch_size:
            raise InputError("Inputs are empty: give at least one.", code="CL-INPUT-EMPTY")

        def rows(start: int, stop: int) -> Any:
            return inputs.rows(torch.arange(start, stop)).kwargs

        return inputs.batch_size, _plane(inputs.tensors()), rows
    source = model_images(images, split)
    beside = given if isinstance(given, Inputs) else read_beside(given, len(source))

    def read(start: int, stop: int) -> Any:
        batch = stack(source.read(start, stop)).to(split.device)
        return batch if beside is None else Joined(batch, beside.rows(torch.arange(start, stop)))

    first = stack(source.read(0, 1))
    return len(source), (int(first.shape[2]), int(first.shape[3])), read


def _plane(tensors: list[torch.Tensor]) -> tuple[int, ...] | None:
    """Give the size of the one tensor of images or video; None beside words, or without one."""
    if any(t.ndim == 2 and not t.is_floating_point() for t in tensors):
        return None
    sizes = [tuple(t.shape[2:]) for t in tensors if t.ndim in (4, 5) and t.is_floating_point()]
    return sizes[0] if len(sizes) == 1 else None


def _area(shape: tuple[int, ...] | None) -> tuple[int, int]:
    """Give the size of an image with as many pixels."""
    if shape is None:
        return 224, 224
    return (math.prod(shape[:-1]), shape[-1])


def _check_options(method: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    known = set(function.__kwdefaults__ or {}) - {"generator", "seeds", "batch_size"}
    for name in options:
        if name not in known:
            raise unknown_name(
                f"option of method {method!r}", name, sorted(known), hint="Other methods differ."
            )
