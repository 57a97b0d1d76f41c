"""Losses of unlearning in generators; means over a batch."""

from __future__ import annotations

__all__ = [
    "directional_loss",
    "identity_loss",
    "margin_loss",
    "perceptual_loss",
    "retain_divergence",
]

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional


def directional_loss(
    moved: torch.Tensor, still: torch.Tensor, direction: torch.Tensor
) -> torch.Tensor:
    """Measure how far embeddings do not move along a direction: 1 - cos(moved - still, direction).

    Parameters
    ----------
    moved, still : Tensor of shape (n, d)
        Embeddings of the images of the trained and of the frozen generator.
    direction : Tensor of shape (d,) or (n, d)

    Returns
    -------
    Tensor of shape ()

    References
    ----------
    Gal et al. 2022, StyleGAN-NADA, eq. 2.

    Examples
    --------
    >>> still, direction = torch.zeros(2, 3), torch.tensor([1.0, 0.0, 0.0])
    >>> directional_loss(still + direction, still, direction).item()
    0.0
    """
    step = moved - still
    return (1 - functional.cosine_similarity(step, direction.expand_as(step), dim=1)).mean()


def margin_loss(scores: torch.Tensor, margin: float = 1.0) -> torch.Tensor:
    """Push scores below -margin; 0 where they are.

    Parameters
    ----------
    scores : Tensor of shape (n,)
        Of :meth:`Gate.score`: excess over the threshold in units of the gap.
    margin : float

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> margin_loss(torch.tensor([-2.0, 0.0]), 0.5).item()
    0.25
    """
    return functional.relu(scores + margin).mean()


def retain_divergence(
    moved: torch.Tensor,
    still: torch.Tensor,
    families: Mapping[str, torch.Tensor],
    scale: float,
) -> torch.Tensor:
    """Kullback-Leibler divergence of zero-shot distributions, mean over families.

    Parameters
    ----------
    moved, still : Tensor of shape (n, d)
        Unit embeddings after and before.
    families : mapping of str to Tensor of shape (k, d)
        Unit vectors of the texts of each family.
    scale : float
        Factor from cosine to logit.

    Returns
    -------
    Tensor of shape ()
        Mean over rows and families of KL(before ‖ after), in nats.

    Examples
    --------
    >>> e = torch.eye(3)[:2]
    >>> retain_divergence(e, e, {"which": torch.eye(3)}, 10.0).item()
    0.0
    """
    total = moved.new_zeros(())
    for vectors in families.values():
        before = (scale * still @ vectors.T).log_softmax(1)
        after = (scale * moved @ vectors.T).log_softmax(1)
        total = total + functional.kl_div(after, before, reduction="batchmean", log_target=True)
    return total / max(len(families), 1)


def perceptual_loss(moved: torch.Tensor, still: torch.Tensor, levels: int = 3) -> torch.Tensor:
    """Mean absolute difference of images, summed over a pyramid of halved sizes.

    Needs no trained network; give ``perceptual=`` a function of two batches, such as
    LPIPS, to use another.

    Parameters
    ----------
    moved, still : Tensor of shape (n, 3, height, width)
    levels : int

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> images = torch.zeros(1, 3, 8, 8)
    >>> round(perceptual_loss(images + 0.5, images, levels=2).item(), 3)
    1.0
    """
    total = functional.l1_loss(moved, still)
    for _ in range(levels - 1):
        if min(moved.shape[2:]) < 4:
            break
        moved, still = functional.avg_pool2d(moved, 2), functional.avg_pool2d(still, 2)
        total = total + functional.l1_loss(moved, still)
    return total


def identity_loss(moved: torch.Tensor, still: torch.Tensor, network: Any) -> torch.Tensor:
    """Cosine distance of the features that an identity network gives two batches of images.

    Parameters
    ----------
    moved, still : Tensor of shape (n, 3, height, width)
    network : callable
        From images in [0, 1] to features (n, d).

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> images = torch.rand(4, 3, 8, 8)
    >>> float(identity_loss(images, images, lambda x: x.mean(dim=(2, 3)))) < 1e-6
    True
    """
    with torch.no_grad():
        known = network(still)
    return (1 - functional.cosine_similarity(network(moved), known, dim=1)).mean()
