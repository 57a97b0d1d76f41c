"""Models that come with the package, each with a card and the script that makes it.

The weights lie beside this file as bundles (safetensors, JSON, sha256 of every
part) and are checked when they are read.
"""

from __future__ import annotations

__all__ = [
    "embedded_card",
    "embedded_open_clip",
    "load_embedded_classifier",
    "load_embedded_gan",
    "load_embedded_judge",
]

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from conceptlab.assets.gan import SceneGenerator, SceneJudge
from conceptlab.assets.resnet import SceneResNet
from conceptlab.errors import InputError, unknown_name
from conceptlab.io.files import read_bundle
from conceptlab.io.reading import rebuilding
from conceptlab.seeds import quiet_randomness

CLASSIFIER = Path(__file__).parent / "classifier"
ENCODER = Path(__file__).parent / "encoder"
CLASSIFIER_KIND = "EmbeddedClassifier"
WITHOUT = {"ilko": Path(__file__).parent / "classifier_without_ilko"}
"""Classifiers that never saw one species."""
ENCODER_KIND = "EmbeddedOpenCLIP"
GAN = Path(__file__).parent / "generator"
GAN_KIND = "EmbeddedGenerator"
JUDGE = Path(__file__).parent / "judge"
JUDGE_KIND = "EmbeddedJudge"
_Network = TypeVar("_Network", bound=nn.Module)


def load_embedded_classifier(
    path: str | Path | None = None, *, without: str | None = None
) -> SceneResNet:
    """Load the classifier of the ten species of scenes.

    Parameters
    ----------
    path : path-like, optional
        Another folder that ``python -m conceptlab.assets.train_classifier`` wrote.
    without : {"ilko"}, optional
        Load a classifier of the same architecture, with the same ten outputs, that was
        trained from other initial weights and never saw this species: the reference of an
        audit (``unlearning.audit``). Its weights are stored in half precision.

    Returns
    -------
    SceneResNet
        In eval mode on the CPU; takes (n, 3, 64, 64) floats in [0, 1];
        ``class_names`` are those of ``load_scenes``.

    Raises
    ------
    CheckpointError
        If a file is missing or was changed.
    InputError
        `without` is no species that was left out, or comes beside a `path`
        (``CL-INPUT-OPTION``).

    Examples
    --------
    >>> from conceptlab.datasets import load_scenes
    >>> scenes = load_scenes("test", 4, seed=0)
    >>> logits = load_embedded_classifier()(torch.from_numpy(scenes.images))
    >>> logits.shape
    torch.Size([4, 10])
    >>> load_embedded_classifier(without="ilko").class_names[8]
    'ilko'
    """
    if without is not None:
        if path is not None:
            raise InputError(
                "path and without both name a classifier; give one of them.",
                code="CL-INPUT-OPTION",
            )
        if without not in WITHOUT:
            raise unknown_name("species that was left out", without, WITHOUT)
        path = WITHOUT[without]
    return _network(SceneResNet, path or CLASSIFIER, CLASSIFIER_KIND)


def load_embedded_gan(path: str | Path | None = None) -> SceneGenerator:
    """Load the generator of 32x32 scenes of one object.

    Parameters
    ----------
    path : path-like, optional
        Another folder that ``python -m conceptlab.assets.train_gan`` wrote.

    Returns
    -------
    SceneGenerator
        In eval mode on the CPU; takes latents of its ``draw_latents`` and gives
        images (n, 3, 32, 32) in [0, 1].

    Raises
    ------
    CheckpointError
        If a file is missing or was changed.

    Examples
    --------
    >>> generator = load_embedded_gan()
    >>> with torch.no_grad():
    ...     images = generator(generator.draw_latents(4, torch.Generator().manual_seed(0)))
    >>> images.shape
    torch.Size([4, 3, 32, 32])
    """
    return _network(SceneGenerator, path or GAN, GAN_KIND)


def load_embedded_judge(path: str | Path | None = None) -> SceneJudge:
    """Load the judge of generated scenes: colour, shape, texture, size, accessory.

    Parameters
    ----------
    path : path-like, optional
        Another folder that ``python -m conceptlab.assets.train_judge`` wrote.

    Returns
    -------
    SceneJudge
        In eval mode on the CPU; takes (n, 3, 32, 32) floats in [0, 1].

    Raises
    ------
    CheckpointError
        If a file is missing or was changed.

    Examples
    --------
    >>> load_embedded_judge().families["size"]
    ('small', 'large')
    """
    return _network(SceneJudge, path or JUDGE, JUDGE_KIND)


def embedded_card(name: str) -> dict[str, Any]:
    """Give the card of an embedded model: what it is, and what was measured.

    Parameters
    ----------
    name : {"classifier", "classifier_without_ilko", "encoder", "generator", "judge"}

    Returns
    -------
    dict
        ``measured`` holds the figures, ``tolerance`` how far a retrained model
        may stray from them, ``training`` the settings.

    Examples
    --------
    >>> sorted(embedded_card("judge"))[:3]
    ['clear_threshold', 'cpu_minutes', 'measured']
    """
    kinds = {
        "classifier": (CLASSIFIER, CLASSIFIER_KIND),
        **{folder.name: (folder, CLASSIFIER_KIND) for folder in WITHOUT.values()},
        "encoder": (ENCODER, ENCODER_KIND),
        "generator": (GAN, GAN_KIND),
        "judge": (JUDGE, JUDGE_KIND),
    }
    if name not in kinds:
        raise unknown_name("embedded model", name, kinds)
    return dict(read_bundle(*kinds[name]).data["card"])


def embedded_open_clip(path: str | Path | None = None) -> tuple[Any, dict[str, Any], Any]:
    """Load the embedded image-text model, a real ``open_clip.CLIP``.

    Parameters
    ----------
    path : path-like, optional
        Another folder that ``python -m conceptlab.assets.train_encoder`` wrote.

    Returns
    -------
    model : open_clip.CLIP
        In eval mode on the CPU, float32.
    preprocess : dict
        ``size`` (pixels), ``mean`` and ``std`` (three floats each),
        ``interpolation`` and ``resize_mode``, as in ``open_clip_config.json``.
    tokenizer : open_clip.SimpleTokenizer
        With the package's own small vocabulary: any text can be written in it.

    Raises
    ------
    CheckpointError
        If a file is missing or was changed.

    Examples
    --------
    >>> model, preprocessing, tokenizer = embedded_open_clip()
    >>> tuple(tokenizer(["a red star"]).shape)
    (1, 40)
    """
    from conceptlab.assets.clip import load_clip

    return load_clip(Path(path or ENCODER), ENCODER_KIND)


def _network(kind: type[_Network], path: str | Path, name: str) -> _Network:
    """Build a network by its settings and give it its weights."""
    bundle = read_bundle(path, name)
    with rebuilding(path, name):
        with quiet_randomness():
            model = kind(**bundle.data["config"])
        model.load_state_dict({k: torch.from_numpy(v) for k, v in bundle.tensors.items()})
    return model.eval()
