"""Models that come with the package, each with a card and the script that makes it.

The weights lie beside this file as bundles (safetensors, JSON, sha256 of every
part) and are checked when they are read.
"""

from __future__ import annotations

__all__ = ["embedded_card", "embedded_open_clip", "load_embedded_classifier"]

from pathlib import Path
from typing import Any

import torch

from conceptlab.assets.resnet import SceneResNet
from conceptlab.io.files import read_bundle

CLASSIFIER = Path(__file__).parent / "classifier"
ENCODER = Path(__file__).parent / "encoder"
CLASSIFIER_KIND = "EmbeddedClassifier"
ENCODER_KIND = "EmbeddedOpenCLIP"


def load_embedded_classifier(path: str | Path | None = None) -> SceneResNet:
    """Load the classifier of the ten species of scenes.

    Parameters
    ----------
    path : path-like, optional
        Another folder that ``python -m conceptlab.assets.train_classifier`` wrote.

    Returns
    -------
    SceneResNet
        In eval mode on the CPU; takes (n, 3, 64, 64) floats in [0, 1];
        ``class_names`` are those of ``load_scenes``.

    Raises
    ------
    CheckpointError
        If a file is missing or was changed.

    Examples
    --------
    >>> from conceptlab.datasets import load_scenes
    >>> scenes = load_scenes("test", 4, seed=0)
    >>> logits = load_embedded_classifier()(torch.from_numpy(scenes.images))
    >>> logits.shape
    torch.Size([4, 10])
    """
    bundle = read_bundle(path or CLASSIFIER, CLASSIFIER_KIND)
    config = bundle.data["config"]
    with torch.random.fork_rng(devices=[]):
        model = SceneResNet(**config)
    state = {name: torch.from_numpy(value) for name, value in bundle.tensors.items()}
    model.load_state_dict(state)
    return model.eval()


def embedded_card(name: str) -> dict[str, Any]:
    """Give the card of an embedded model: what it is, and what was measured.

    Parameters
    ----------
    name : {"classifier", "encoder"}

    Returns
    -------
    dict
        ``measured`` holds the figures, ``tolerance`` how far a retrained model
        may stray from them, ``training`` the settings.
    """
    from conceptlab.errors import unknown_name

    kinds = {
        "classifier": (CLASSIFIER, CLASSIFIER_KIND),
        "encoder": (ENCODER, ENCODER_KIND),
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
    """
    from conceptlab.assets.clip import load_clip

    return load_clip(Path(path or ENCODER), ENCODER_KIND)
