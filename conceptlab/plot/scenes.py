"""Pictures of the rendered world."""

from __future__ import annotations

__all__ = ["scene_counterfactuals", "scene_grid"]

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from conceptlab.plot.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from conceptlab.datasets import Scenes

_OBJECT_COLOURS = np.array(
    [(0.90, 0.10, 0.60), (0.10, 0.55, 0.95), (0.95, 0.60, 0.05)], dtype=np.float32
)


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure = new_figure(columns * width, rows * height)
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False))
    for ax in axes.flat:
        ax.axis("off")
    return figure, axes


def _show(ax: Axes, image: np.ndarray, title: str = "") -> None:
    ax.imshow(np.moveaxis(image, 0, -1), interpolation="nearest")
    if title:
        ax.set_title(title, fontsize=8, wrap=False)


def _with_masks(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Fade what belongs to no object, and rim each visible part in its own colour."""
    free = ~masks.any(axis=0)
    shown = np.where(free, 0.35 * image + 0.60, image)
    for mask, colour in zip(masks, _OBJECT_COLOURS, strict=True):
        around = np.pad(mask, 1)
        inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        shown = np.where(mask & ~inner, colour[:, None, None], shown)
    return np.asarray(shown)


def scene_grid(
    scenes: Scenes, *, n: int = 12, columns: int = 4, captions: bool = True, masks: bool = False
) -> Figure:
    """Show scenes in a grid, with their species and captions.

    Parameters
    ----------
    scenes : Scenes
    n : int
        At most this many, from the first on.
    columns : int
        Images in a row.
    captions : bool
        Whether to print species and caption above each image.
    masks : bool
        Whether to rim the visible part of each object (pink the main one, then
        blue and orange) and to fade the background.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from conceptlab.datasets import load_scenes
    >>> figure = scene_grid(load_scenes("test", 4, seed=0), n=4)
    """
    part = scenes[: min(n, len(scenes))]
    rows = -(-len(part) // columns)
    titles = [_title(part, i) if captions else "" for i in range(len(part))]
    lines = max((title.count("\n") + 1 for title in titles if title), default=0)
    figure, axes = _figure(rows, columns, 1.9, 1.9 + 0.155 * lines)
    for i, (title, ax) in enumerate(zip(titles, axes.flat, strict=False)):
        image = _with_masks(part.images[i], part.masks[i]) if masks else part.images[i]
        _show(ax, image, title)
    return figure


def _title(scenes: Scenes, i: int) -> str:
    name = f"{scenes.class_names[scenes.y[i]]}\n" if scenes.class_names else ""
    return name + textwrap.fill(scenes.captions[i].removeprefix("a photo of "), 34)


def scene_counterfactuals(scenes: Scenes, *, n: int = 4) -> Figure:
    """Show scenes, their masks, and the same scenes with each object taken out.

    Parameters
    ----------
    scenes : Scenes
    n : int
        At most this many, from the first on; one row each.

    Returns
    -------
    matplotlib.figure.Figure
        Columns: image, masks, without object 0, 1, 2; an object that a scene
        does not have leaves its place empty.

    Examples
    --------
    >>> from conceptlab.datasets import load_scenes
    >>> figure = scene_counterfactuals(load_scenes("test", 4, seed=0), n=2)
    """
    part = scenes[: min(n, len(scenes))]
    figure, axes = _figure(len(part), 5, 1.7, 1.75)
    removed = [part.without(j) for j in range(3)]
    for i, row in enumerate(axes):
        top = i == 0
        _show(row[0], part.images[i], "image" if top else "")
        _show(row[1], _with_masks(part.images[i], part.masks[i]), "masks" if top else "")
        for j in range(3):
            if top:
                row[2 + j].set_title(f"without object {j}", fontsize=8)
            if part.objects["present"][i, j]:
                _show(row[2 + j], removed[j][i], f"without object {j}" if top else "")
    return figure
