"""One call from a model and images to an explanation that has been checked."""

from __future__ import annotations

__all__ = ["explain", "measure", "recommended_layer"]

import contextlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.base import clone
from torch import nn

from attribution.naming import name_explanation, words_of
from conceptlab.arrays import as_tensor
from conceptlab.datasets.images import as_image_batch, image_source
from conceptlab.encoders import load_encoder
from conceptlab.errors import InputError, SplitError, unknown_name
from conceptlab.extractors import CRAFT
from conceptlab.importance import Decision, HeadOnCoefficients, SobolImportance
from conceptlab.maps.concept import check_method
from conceptlab.models import SplitModel
from conceptlab.models.images import channels_of
from conceptlab.models.session import Inputs
from conceptlab.progress import Progress
from conceptlab.seeds import RandomState

if TYPE_CHECKING:
    from conceptlab.explanation import Explanation

_SHARE_OF_SIDE = 2 / 7  # the paper's 64 px patches of 224 px images


def explain(
    model: nn.Module | SplitModel,
    images: Any,
    *,
    layer: str | None = None,
    target: int | str | Sequence[int] | np.ndarray = "predicted",
    n_concepts: int | Literal["auto"] = 10,
    patch_size: int | None = None,
    patches: str = "none",
    remainder: str = "drop",
    n_refits: int = 5,
    remedies: bool = True,
    depth: int = 1,
    preprocess: Callable[[Any], Any] | None = None,
    output: Any = None,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    name_with: Any = "auto",
    image_names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    maps: str | None = "implicit",
    n_maps: int = 64,
    faithfulness: bool = True,
    random_state: RandomState = None,
    progress: Progress = None,
    **settings: Any,
) -> Explanation:
    """Explain a classifier by its concepts, and measure how far to trust that.

    Parameters
    ----------
    model : torch.nn.Module or SplitModel
        The classifier; it comes back as it was.
    images : tensor, ndarray or sequence of images
        (n, 3, H, W), floats in [0, 1] or bytes; for a model of another number of channels, as
        its first convolution says, (n, C, H, W); for text a dict of tensors. Concepts are found
        on these.
    layer : str, optional
        Where to cut; by default where `model` is cut already, or the layer that
        :meth:`SplitModel.suggest` recommends.
    target : int, str, or sequence of int
        The output to explain: one for all images by number or name, each image's
        own prediction (``"predicted"``), or one for each image.
    n_concepts : int or "auto"
        Number of concepts.
    patch_size : int, optional
        Side of a crop; two sevenths of the image's shorter side by default.
    patches : {"none", "grid", "random"}
        What is factorised: every position of the whole images, or crops. Positions, because
        whole images are what the concepts then have to span: concepts of crops often are
        another function than the model (docs/results/real-network.md).
    remainder : {"drop", "hold", "player"}
        What becomes of the part of the activations that the concepts do not code, in
        importances and curves; see :mod:`conceptlab.importance.remainder`.
    n_refits : int
        How often the fit is repeated on resamples of the images, to tell how stable each
        concept is; 0 for not.
    remedies : bool
        Whether to try what may help where the concepts do not carry the decision: positions
        in the place of crops, twice the concepts, the layer that is recommended.
    depth : int
        Levels of recursion for concepts that mix two things.
    preprocess, output, class_names
        As for :class:`SplitModel`; unused when `model` is one.
    names : sequence of str, str or path, optional
        The words that concepts may be named by: a list, one text with commas, or a file with
        one a line; by default what ships and the encoder knows.
    name_with : Encoder, str or None
        The image-text encoder that compares images with words, or its name for
        :func:`conceptlab.load_encoder`; None for no names. ``"auto"``: the embedded one where
        the images look like rendered scenes, which are all that it knows, else none.
    image_names, labels : sequence of str, optional
        What the images are called, and the class folder each lies in; told in the report.
    maps : str or None
        Method of the concept maps.
    n_maps : int
        How many images get maps.
    faithfulness : bool
        Whether to add deletion and insertion curves beside their controls.
    random_state : int, RandomState, Generator or None
        Seed of everything.
    progress : bool or callable, optional
        See :data:`conceptlab.progress.Progress`.
    **settings
        Further parameters of :class:`CRAFT`.

    Returns
    -------
    Explanation

    Raises
    ------
    SplitError
        If no layer can be cut, or h(g(x)) is not f(x) there.
    InputError
        Images or settings that do not fit; words fewer than two.

    Warns
    -----
    NamingWarning
        Where the encoder does not know such images.

    Examples
    --------
    >>> from conceptlab.datasets import load_embedded_classifier, load_scenes
    >>> scenes = load_scenes("test", 32, seed=0)
    >>> found = explain(load_embedded_classifier(), scenes.images, n_concepts=4, depth=0,
    ...                 maps=None, faithfulness=False, random_state=0)
    >>> found.importance.mean.shape
    (4,)
    """
    known = list(inspect.signature(CRAFT).parameters)
    for name in settings:
        if name not in known:
            raise unknown_name("setting", name, known)
    if maps is not None:  # a wrong name must not cost the whole fit
        check_method(maps)
    if names is not None:
        names = words_of(names)
    if isinstance(model, SplitModel):
        split = model if layer is None else model.at_layer(layer)
        batch = _batch(images, split.model, split.preprocess)
    else:
        batch = _batch(images, model, preprocess)
        split = SplitModel(
            model,
            layer or recommended_layer(model, _first(batch, 2), preprocess, output),
            preprocess=preprocess,
            output=output,
            class_names=class_names,
        )
    told = [_each(image_names, "image_names", batch), _each(labels, "labels", batch)]
    if isinstance(name_with, str) and name_with != "auto":
        name_with = load_encoder(name_with)
    side = patch_size
    if side is None:
        text = isinstance(batch, Mapping)
        side = 64 if text else max(8, round(_SHARE_OF_SIDE * min(batch.shape[-2:])))
    if remainder != "drop" or "importance" in settings:
        importance = settings.pop("importance", None)
        importance = SobolImportance() if importance is None else clone(importance)
        if remainder != "drop":
            importance.set_params(remainder=remainder)
        settings["importance"] = importance
    craft = CRAFT(
        split,
        n_concepts,
        patch_size=side,
        patches=patches,
        depth=depth,
        random_state=random_state,
        n_refits=n_refits,
        **settings,
    )
    craft.fit(batch, target=target, progress=progress)
    explanation = craft.explain(batch, target=target, maps=maps, n_maps=n_maps, progress=progress)
    explanation.image_names, explanation.labels = told
    name_explanation(
        explanation, craft, batch, names=names, name_with=name_with, random_state=craft.seed_
    )
    if remedies and explanation.decision is not None and not explanation.decision.carries:
        explanation.tried = _remedies(craft, batch)
    if faithfulness:
        explanation.faithfulness = measure(craft, batch, explanation, progress=progress)
    return explanation


def recommended_layer(
    model: nn.Module,
    example: Any,
    preprocess: Callable[[Any], Any] | None = None,
    output: Any = None,
) -> str:
    """Name the layer that :meth:`SplitModel.suggest` recommends.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    example : tensor or mapping of tensors
        Some inputs.
    preprocess, output
        As for :class:`SplitModel`.

    Returns
    -------
    str

    Raises
    ------
    SplitError
        If it recommends none (``CL-SPLIT-LAYER``).

    Examples
    --------
    >>> from conceptlab.datasets import load_embedded_classifier, load_scenes
    >>> images = load_scenes("test", 2, seed=0).images
    >>> recommended_layer(load_embedded_classifier(), images)
    'layer4'
    """
    shown = example
    if not isinstance(example, Mapping):
        shown = as_tensor(example) if preprocess is None else preprocess(as_tensor(example))
    table = SplitModel.suggest(model, shown, output=output)
    found = list(table.loc[table["recommended"], "name"])
    if not found:
        for name in table["name"][:1]:
            try:  # a model that is told by its batch has no layer to cut at
                SplitModel(model, name, preprocess=preprocess, output=output).check(example)
            except SplitError as error:
                if error.code == "CL-SPLIT-BATCH":
                    raise
        why = "; ".join(dict.fromkeys(str(fit) for fit in table["fit"] if fit))
        raise SplitError(
            f"No layer of {type(model).__name__} can be cut so that h(g(x)) = f(x) ({why}). Look "
            "at SplitModel.suggest(model, example), and name one with layer=."
        )
    return str(found[0])


def measure(
    craft: CRAFT, images: Any, explanation: Explanation, *, progress: Progress = None
) -> Any:
    """Measure the faithfulness of a fitted CRAFT on `images`.

    Parameters
    ----------
    craft : CRAFT
        Fitted.
    images : as for :func:`explain`
        What `explanation` is of.
    explanation : Explanation
        Ranks the concepts.
    progress : bool or callable, optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    FaithfulnessReport

    Examples
    --------
    >>> from torch import nn
    >>> body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU())
    >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> craft = CRAFT(SplitModel(model, at="0"), 3, patches="none", random_state=0)
    >>> images = np.random.default_rng(0).random((8, 3, 16, 16), dtype=np.float32)
    >>> explanation = craft.fit(images, target=0).explain(images, target=0, maps=None)
    >>> measure(craft, images, explanation).n_concepts
    3
    """
    from attribution.faithfulness import faithfulness

    A = craft.activations(images)
    U = craft.extractor_.transform(A.reshape(-1, A.shape[-1])).reshape(*A.shape[:-1], -1)
    return faithfulness(
        HeadOnCoefficients.from_extractor(craft.split, craft.extractor_),
        U,
        explanation.importance,
        target=explanation.target,
        logits=explanation.logits,
        activations=A,
        remainder=explanation.importance.remainder,
        random_state=craft.seed_,
        progress=progress,
    )


def _remedies(craft: CRAFT, batch: Any) -> dict[str, Decision]:
    """Measure how far other concepts of the same images carry the decision.

    At most 64 images, evenly chosen: what helps is to be seen, not estimated finely.
    """
    n = len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
    chosen = torch.from_numpy(np.unique(np.linspace(0, n - 1, min(n, 64)).round().astype(int)))
    if isinstance(batch, Mapping):
        some: Any = {name: value[chosen] for name, value in batch.items()}
    else:
        some = batch[chosen]
    k, layer = len(craft.components_), craft.split.layer
    ways: dict[str, dict[str, Any]] = {}
    if craft.patches != "none":
        ways["patches='none'"] = {}
    if 2 * k <= craft.n_features_in_:
        ways[f"patches='none', n_concepts={2 * k}"] = {"n_concepts": 2 * k}
    with contextlib.suppress(SplitError):
        first = _first(some, 2)
        best = recommended_layer(
            craft.split.model, first, craft.split.preprocess, craft.split.output
        )
        if best != layer:
            ways[f"patches='none', layer={best!r}"] = {"split": craft.split.at_layer(best)}
    tried = {}
    for name, change in ways.items():
        other = clone(craft).set_params(
            patches="none", n_concepts=k, depth=0, n_refits=0, interval="given", importance=None
        )
        other.set_params(random_state=craft.seed_, **change)
        with contextlib.suppress(InputError):  # such as fewer channels than concepts
            tried[name] = other.fit(some, progress=False).decision_
    return tried


def _batch(images: Any, model: Any, preprocess: Callable[[Any], Any] | None) -> Any:
    if isinstance(images, Mapping):  # the tokens of texts, as the model takes them
        return images
    if preprocess is not None or not isinstance(model, nn.Module):
        return as_image_batch(images, value_range="any" if preprocess is None else "unit")
    return image_source(images, value_range="any", channels=channels_of(model)).batch(clip=False)


def _each(values: Sequence[str] | None, name: str, batch: Any) -> list[str] | None:
    """Give one text for each input, or None."""
    if values is None:
        return None
    n = len(next(iter(batch.values()), ()) if isinstance(batch, Mapping) else batch)
    if len(values) != n:
        raise InputError(f"{name} has {len(values)} entries for {n} images.", code="CL-INPUT-SHAPE")
    return [str(value) for value in values]


def _first(batch: Any, n: int) -> Any:
    if isinstance(batch, Mapping):
        return Inputs.of(batch).rows(torch.arange(n)).kwargs
    return batch[:n]
