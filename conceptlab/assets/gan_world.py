"""The scenes that the embedded generator learns: one object near the middle, 32x32 pixels."""

from __future__ import annotations

__all__ = [
    "FACTORS",
    "GAN_FAMILIES",
    "gan_factors",
    "gan_images",
    "gan_labels",
    "gan_layout",
    "gan_masks",
    "gan_scenes",
]

from dataclasses import replace

import numpy as np
import torch
from scipy.special import ndtri
from torch.nn import functional

from conceptlab.datasets.layout import Layout
from conceptlab.datasets.render import render, visible_masks
from conceptlab.datasets.scenes import load_scenes
from conceptlab.datasets.world import FAMILIES
from conceptlab.errors import unknown_name
from conceptlab.seeds import numpy_generator

GAN_FAMILIES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "yellow", "green", "blue"),
    "shape": ("circle", "square", "triangle"),
    "texture": ("plain", "checked"),
    "size": ("small", "large"),
    "accessory": ("no hat", "hat"),
}
"""What the generator can show: 96 combinations, all equally frequent."""

FACTORS = ("x", "y", "radius", "angle", "hue")
"""What else varies in a scene, beside the background."""

SIDE = 32
_RADII = (0.15, 0.25)


def gan_layout(
    n: int,
    *,
    seed: int,
    split: str = "train",
    without: str | None = None,
    varied: bool = False,
) -> Layout:
    """Draw the parameters of scenes; see :func:`gan_scenes`."""
    known = [value for values in GAN_FAMILIES.values() for value in values]
    if without is not None and without not in known:
        raise unknown_name("attribute", without, known)
    base = load_scenes(split, n, seed=seed, species=None, n_objects=1, background="snow").layout
    rng = numpy_generator(np.random.default_rng([seed, len(split)]))
    objects = base.objects.copy()
    main = objects[:, 0]
    for family, values in GAN_FAMILIES.items():
        kept = [i for i, value in enumerate(values) if value != without]
        drawn = np.array(kept)[rng.integers(len(kept), size=n)]
        if family == "accessory":
            main["hat"] = drawn == 1
        else:
            indices = np.array([FAMILIES[family].index(value) for value in values])
            main[family] = indices[drawn]
    free = 2 * rng.random((n, 4 if varied else 5)) - 1
    main["x"] = 0.5 + 0.04 * free[:, 0]
    main["y"] = 0.56 + 0.04 * free[:, 1]
    main["radius"] = np.where(main["size"] == 1, _RADII[1], _RADII[0]) * (1 + 0.04 * free[:, 2])
    main["angle"] = (0.15 if varied else 0.12) * free[:, 3]
    if not varied:
        main["hue"] = 0.99 * free[:, 4]
        main["phase_u"] = main["phase_v"] = 0
    main["position"] = FAMILIES["position"].index("centre")
    objects[:, 0] = main
    return replace(base, objects=objects)


def gan_labels(layout: Layout) -> np.ndarray:
    """Give the value of each family, (n, 5) int64, as indices into ``GAN_FAMILIES``."""
    main = layout.objects[:, 0]
    columns = []
    for family, values in GAN_FAMILIES.items():
        if family == "accessory":
            columns.append(main["hat"].astype(np.int64))
            continue
        index = np.full(len(FAMILIES[family]), -1)
        index[[FAMILIES[family].index(value) for value in values]] = np.arange(len(values))
        columns.append(index[main[family]])
    return np.stack(columns, axis=1)


def gan_factors(layout: Layout) -> torch.Tensor:
    """Give ``FACTORS`` as standard normal numbers, (n, 5) float32."""
    main = layout.objects[:, 0]
    usual = np.where(main["size"] == 1, _RADII[1], _RADII[0])
    even = [
        (main["x"] - 0.5) / 0.04,
        (main["y"] - 0.56) / 0.04,
        (main["radius"] / usual - 1) / 0.04,
        main["angle"] / 0.12,
        main["hue"] / 0.99,
    ]
    share = np.clip((np.stack(even, axis=1) + 1) / 2, 1e-3, 1 - 1e-3)
    return torch.from_numpy(ndtri(share).astype(np.float32))


def gan_masks(layout: Layout) -> torch.Tensor:
    """Tell which pixels show the object or its hat, (n, 1, 32, 32) float32."""
    parts = []
    for begin in range(0, len(layout.y), 1024):
        masks = visible_masks(layout[slice(begin, begin + 1024)], SIDE).any(1)
        parts.append(torch.from_numpy(masks)[:, None].float())
    return torch.cat(parts)


def gan_images(layout: Layout, *, seed: int, split: str) -> torch.Tensor:
    """Paint scenes, (n, 3, 32, 32) float32 in [0, 1]."""
    parts = []
    for begin in range(0, len(layout.y), 1024):
        part = layout[slice(begin, begin + 1024)]
        pixels = torch.from_numpy(render(part, 2 * SIDE, 0.0, seed=seed, split=split))
        parts.append(functional.avg_pool2d(pixels.float() / 255, 2))
    return torch.cat(parts)


def gan_scenes(
    n: int,
    *,
    seed: int = 0,
    split: str = "train",
    without: str | None = None,
    varied: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render scenes of the world that the embedded generator learns.

    Parameters
    ----------
    n : int
        Number of scenes.
    seed : int
        Same seed, same bits.
    split : {"train", "val", "test"}
        Splits draw from streams of their own.
    without : str, optional
        A value that is never drawn: the world from which it is missing.
    varied : bool
        Whether textures begin anywhere and objects lean a little more: the wider world
        that the judge learns.

    Returns
    -------
    images : Tensor of shape (n, 3, 32, 32), float32 in [0, 1]
    labels : Tensor of shape (n, 5), int64
        Indices into the values of ``GAN_FAMILIES``.

    Raises
    ------
    InputError
        If `without` is no value of the world.

    Examples
    --------
    >>> images, labels = gan_scenes(4)
    >>> images.shape, labels.shape
    (torch.Size([4, 3, 32, 32]), torch.Size([4, 5]))
    """
    layout = gan_layout(n, seed=seed, split=split, without=without, varied=varied)
    return gan_images(layout, seed=seed, split=split), torch.from_numpy(gan_labels(layout))
