"""Where in an image a concept is, and the window that holds most of it."""

from __future__ import annotations

__all__ = ["best_window", "concept_position_maps", "find_position_layer", "occlusion_window_maps"]

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from conceptlab.errors import InputError
from unlearning.heads import features_and_logits, frozen


def find_position_layer(model: nn.Module, images: torch.Tensor, head: str) -> str | None:
    """Find the layer whose mean over positions is what enters the head.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    images : torch.Tensor of shape (n, c, h, w)
        A few, on the model's device.
    head : str
        Name of the head.

    Returns
    -------
    str or None
        Its name; None where features are not the mean of a map (no global
        average pooling, or one position only).

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                     nn.Linear(4, 2))
    >>> find_position_layer(net, torch.rand(2, 1, 8, 8), "4")
    '1'
    """
    means: dict[str, torch.Tensor] = {}

    def keep(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor) and value.ndim == 4 and value[0, 0].numel() > 1:
            means[name] = value.detach().mean(dim=(2, 3))

    handles = [
        module.register_forward_hook(lambda _m, _a, value, name=name: keep(name, value))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with frozen(model), torch.no_grad():
            features, _ = features_and_logits(model, images, head)
    finally:
        for handle in handles:
            handle.remove()
    for name in reversed(means):
        if means[name].shape == features.shape and torch.allclose(
            means[name], features, rtol=1e-4, atol=1e-5
        ):
            return name
    return None


def concept_position_maps(
    model: nn.Module, images: torch.Tensor, layer: str, direction: torch.Tensor
) -> torch.Tensor:
    """Score each position of a layer on a concept, and resize to the image.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    images : torch.Tensor of shape (n, c, h, w)
        On the model's device.
    layer : str
        As :func:`find_position_layer` gives it: its mean over positions is the
        features, so the mean of a map is the concept's score.
    direction : torch.Tensor of shape (d,)
        The concept, of length one.

    Returns
    -------
    torch.Tensor of shape (n, h, w)
    """
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _m, _a, value: seen.append(value.detach())
    )
    try:
        with frozen(model), torch.no_grad():
            model(images)
    finally:
        handle.remove()
    scores = torch.einsum("nchw,c->nhw", seen[-1], direction.to(seen[-1]))
    size = tuple(images.shape[2:])
    return functional.interpolate(scores[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def occlusion_window_maps(
    score: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    size: tuple[int, int],
    stride: int,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Score windows by what the concept loses when they are covered.

    Parameters
    ----------
    score : callable
        From images to the concept's scores (n,).
    images : torch.Tensor of shape (n, c, h, w)
        The images.
    size : (int, int)
        Height and width of the windows.
    stride : int
        Pixels from one window to the next; the last ones touch the border.
    fill : torch.Tensor, broadcast to the images
        What covers a window.

    Returns
    -------
    torch.Tensor of shape (n, h, w)
        The loss of each window at its centre, 0 elsewhere least of all: pixels
        carry the mean over the windows that hold them.
    """
    n, _, h, w = images.shape
    total = torch.zeros(n, h, w, device=images.device)
    count = torch.zeros(1, h, w, device=images.device)
    cover = fill.to(images).expand_as(images)
    with torch.no_grad():
        whole = score(images)
        for top in _starts(h, size[0], stride):
            for left in _starts(w, size[1], stride):
                rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
                covered = images.clone()
                covered[:, :, rows, columns] = cover[:, :, rows, columns]
                total[:, rows, columns] += (whole - score(covered))[:, None, None]
                count[:, rows, columns] += 1
    return total / count.clamp_min(1)


def best_window(maps: torch.Tensor, size: tuple[int, int], stride: int = 1) -> torch.Tensor:
    """Find the window that holds the largest sum of a map.

    Parameters
    ----------
    maps : torch.Tensor of shape (n, h, w)
        Concept maps.
    size : (int, int)
        Height and width of the window.
    stride : int
        Pixels from one window to the next.

    Returns
    -------
    torch.Tensor of shape (n, 2), int64
        Top row and left column.

    Examples
    --------
    >>> maps = torch.zeros(1, 6, 6)
    >>> maps[0, 3:5, 1:3] = 1
    >>> best_window(maps, (2, 2)).tolist()
    [[3, 1]]
    """
    h, w = maps.shape[1:]
    if not (1 <= size[0] <= h and 1 <= size[1] <= w):
        raise InputError(
            f"A window of {size} does not fit into maps of {(h, w)}. Use a smaller patch_size.",
            code="CL-INPUT-RANGE",
        )
    sums = functional.avg_pool2d(maps[:, None].double(), size, stride=1)[:, 0]
    tops, lefts = _starts(h, size[0], stride), _starts(w, size[1], stride)
    grid = sums[:, tops][:, :, lefts]
    place = grid.flatten(1).argmax(dim=1).cpu()
    return torch.stack(
        [torch.tensor(tops)[place // len(lefts)], torch.tensor(lefts)[place % len(lefts)]], dim=1
    )


def _starts(length: int, window: int, stride: int) -> list[int]:
    found = list(range(0, length - window + 1, max(1, stride)))
    if found[-1] != length - window:
        found.append(length - window)
    return found
