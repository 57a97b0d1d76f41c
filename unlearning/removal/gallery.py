"""The pictures that a report shows: the worst and the best of each remover."""

from __future__ import annotations

__all__ = ["gallery"]

from typing import Any

import numpy as np
import torch

from unlearning.removal.cache import RemovalCache
from unlearning.removal.collecting import Collected
from unlearning.removal.datasets.base import RemovalDataset
from unlearning.removal.masks import grow


def gallery(
    dataset: RemovalDataset,
    name: str,
    data: Collected,
    *,
    count: int,
    cache: RemovalCache | None,
    seed: int,
    dilation: int,
) -> dict[str, dict[str, Any]]:
    """Remove again where it went worst and best, and keep the pictures.

    Parameters
    ----------
    dataset : RemovalDataset
        Where the images are.
    name : str
        The class.
    data : Collected
        What was found.
    count : int
        Pictures of either kind.
    cache, seed, dilation
        As when they were made first.

    Returns
    -------
    dict
        Per remover: ``ids``, ``labels``, ``images`` (2 count, k, 3, H, W) uint8 of
        original, removed and (with truth) true removal, the worst first; and ``by``, the
        score that they were chosen by.
    """
    found = {}
    for setup in data.setups:
        by, badness = _badness(data, setup.label)
        order = np.argsort(-badness, kind="stable")
        count = min(count, len(order) // 2)
        chosen = np.concatenate([order[:count], order[::-1][:count]])
        ids = data.ids[chosen]
        images = dataset.images(ids)
        masks = grow(np.asarray(dataset.masks(name, ids)), dilation)
        truth = dataset.truth(name, ids) if dataset.has_truth else None
        removed = setup.run(images, masks, seed=seed, truth=truth, cache=cache)
        shown = [images, removed, *([] if truth is None else [truth])]
        found[setup.label] = {
            "by": by,
            "labels": [dataset.label(int(i)) for i in ids],
            "images": (torch.stack(shown, dim=1) * 255).round().to(torch.uint8).numpy(),
        }
    return found


def _badness(data: Collected, label: str) -> tuple[str, np.ndarray]:
    values = data.values[label]
    if "psnr_mask" in values:
        return "PSNR to the truth in the mask", -np.minimum(values["psnr_mask"], 1e6)
    if data.crops:
        return "presence of the class in the hole", data.crops[label]
    centre = data.comparison.mean(axis=0)
    spread = data.comparison.std(axis=0) + 1e-12
    far = np.square((data.removed[label] - centre) / spread).mean(axis=1)
    return "distance from images without the class", far
