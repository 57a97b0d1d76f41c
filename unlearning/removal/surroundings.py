"""A reference-free score: does the filled hole look like what is around it?"""

from __future__ import annotations

__all__ = ["remove_score"]


import numpy as np
import torch
from torch.nn import functional

from conceptlab.arrays import ArrayLike, as_tensor
from conceptlab.errors import InputError
from unlearning.removal.masks import as_masks


def remove_score(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """Compare the mean feature inside each hole with that outside.

    Parameters
    ----------
    maps : array-like of shape (n, c, h, w)
        A feature map of each removed image: the published score uses the encoder of SAM
        ViT-H; here it is any map that you have.
    masks : array-like of shape (n, 1, H, W), bool
        The holes, at any resolution.

    Returns
    -------
    ndarray of shape (n,), float64
        Cosines in [-1, 1], higher is better; NaN where no cell is free of the hole.

    Raises
    ------
    InputError
        Maps that are not 4-D, or another number of masks.

    Notes
    -----
    Chandrasekar et al. 2024 (ReMOVE). Cells count as inside when the hole covers them
    whole, or, where there is none such, when it covers them most. The score compares with
    *any* background, and a smooth fill gets more than the truth: read it beside the others.

    Examples
    --------
    >>> mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> mask[..., :4, :4] = True
    >>> remove_score(torch.ones(1, 3, 4, 4), mask)
    array([1.])
    """
    features = as_tensor(maps).detach().double()
    holes = as_masks(masks)
    if features.ndim != 4 or len(features) != len(holes):
        raise InputError(
            f"maps have shape {tuple(features.shape)} for {len(holes)} masks; expected "
            "(n, channels, height, width).",
            code="CL-INPUT-RANK",
        )
    share = functional.adaptive_avg_pool2d(
        holes.to(features), (features.shape[-2], features.shape[-1])
    )
    most = share.amax(dim=(2, 3), keepdim=True)
    inside = (share >= most.clamp_max(1 - 1e-9)).double()
    outside = (share == 0).double()
    means = [(features * w).sum(dim=(2, 3)) / w.sum(dim=(2, 3)) for w in (inside, outside)]
    found: torch.Tensor = functional.cosine_similarity(means[0], means[1], dim=1)
    found = torch.where(outside.sum(dim=(1, 2, 3)) > 0, found, torch.nan)
    return np.asarray(found.cpu().numpy())
