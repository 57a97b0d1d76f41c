"""Concept maps over images: where each concept is."""

from __future__ import annotations

__all__ = ["blend_maps", "map_grid", "map_pairs"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.plot.style import bare, concept_color, new_figure, shorten, to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blend_maps(
    image: Any,
    maps: Any,
    concepts: Sequence[int],
    *,
    strength: float = 0.75,
    quantile: float = 0.8,
    peaks: Any = None,
) -> np.ndarray:
    """Lay concept maps over an image, each in its concept's colour.

    Parameters
    ----------
    image : array-like of shape (3, H, W)
        The picture; it is greyed and brightened under the colours.
    maps : array-like of shape (k, H, W)
        One map a concept; negative values count as zero.
    concepts : sequence of int
        Which maps to lay on.
    strength : float
        Opacity at a map's peak, in [0, 1].
    quantile : float
        Values below this quantile of a map are left clear.
    peaks : array-like of shape (k,), optional
        The value that is drawn at `strength`, by default the maximum of each
        map. One value for all images lets a concept that is hardly there look so.

    Returns
    -------
    numpy.ndarray of shape (H, W, 3), float32 in [0, 1]

    Examples
    --------
    >>> image, maps = np.ones((3, 8, 8)), np.random.default_rng(0).random((2, 8, 8))
    >>> blend_maps(image, maps, [0, 1]).shape
    (8, 8, 3)
    """
    from matplotlib.colors import to_rgb

    picture = to_picture(image)
    grey = picture.mean(axis=-1, keepdims=True)
    result = 0.35 + 0.65 * (0.55 * grey + 0.45 * picture)
    positive = np.maximum(as_numpy(maps), 0)
    for concept in concepts:
        values = positive[concept]
        floor = float(np.quantile(values, quantile))
        peak = float(values.max() if peaks is None else peaks[concept])
        if peak <= floor:
            continue
        opacity = strength * ((values - floor) / (peak - floor)).clip(0, 1)[..., None] ** 0.7
        result = result * (1 - opacity) + np.asarray(to_rgb(concept_color(concept))) * opacity
    return result.clip(0, 1).astype(np.float32)


def map_grid(
    images: Any,
    maps: ArrayLike,
    names: Sequence[str],
    *,
    concepts: Sequence[int],
    captions: Sequence[str] | None = None,
    size: float = 1.35,
    quantile: float = 0.8,
    peaks: ArrayLike | None = None,
) -> Figure:
    """Draw each image beside its concept maps, one column a concept.

    Parameters
    ----------
    images : array-like of shape (n, 3, H, W)
        The pictures.
    maps : array-like of shape (n, k, H, W)
        Concept maps on the images' grid.
    names : sequence of str
        One name a concept.
    concepts : sequence of int
        The concepts to show, in this order.
    captions : sequence of str, optional
        A line above each image, such as the prediction.
    size : float
        Side of a picture in inches.
    quantile : float
        Values of a map below this quantile are left clear.
    peaks : array-like of shape (k,), optional
        The value of each concept that is drawn in full colour; by default its
        maximum over these images, so that strength can be compared down a column.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> images, maps = rng.random((4, 3, 8, 8)), rng.random((4, 2, 8, 8))
    >>> figure = map_grid(images, maps, ["red", "round"], concepts=[0, 1])
    """
    images, maps = as_numpy(images), as_numpy(maps)
    n_rows, n_columns = len(images), len(concepts) + 2
    if peaks is None:
        peaks = np.maximum(maps, 0).max(axis=(0, 2, 3), initial=0.0)
    figure = new_figure(n_columns * size, n_rows * (size + (0.16 if captions else 0.0)) + 0.25)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for row in range(n_rows):
        axes[row, 0].imshow(to_picture(images[row]), interpolation="nearest")
        axes[row, 0].set_title(
            shorten(captions[row], 22) if captions is not None else "", fontsize=8, pad=2
        )
        axes[row, 1].imshow(
            blend_maps(images[row], maps[row], concepts, quantile=max(quantile, 0.85), peaks=peaks)
        )
        for column, concept in enumerate(concepts, start=2):
            axes[row, column].imshow(
                blend_maps(images[row], maps[row], [concept], quantile=quantile, peaks=peaks)
            )
    axes[0, 1].set_title("all of these", fontsize=8, pad=2)
    for column, concept in enumerate(concepts, start=2):
        axes[0, column].set_title(
            shorten(names[concept], 20), fontsize=8, pad=2, color=concept_color(concept)
        )
    for ax in axes.flat:
        bare(ax)
    return figure


def map_pairs(
    images: Any,
    before: Any,
    after: Any,
    names: Sequence[str],
    *,
    concepts: Sequence[int],
    titles: tuple[str, str] = ("before", "after"),
    size: float = 1.3,
    quantile: float = 0.8,
) -> Figure:
    """Draw concept maps of two models side by side, on one scale.

    Parameters
    ----------
    images : array-like of shape (n, 3, H, W)
        The pictures.
    before, after : array-like of shape (n, k, H, W)
        Concept maps of the two models.
    names : sequence of str
        One name a concept.
    concepts : sequence of int
        The concepts to show, in this order.
    titles : tuple of str
        What the two models are called.
    size : float
        Side of a picture in inches.
    quantile : float
        Values of a map below this quantile are left clear.

    Returns
    -------
    matplotlib.figure.Figure
        Full colour is the largest value of the first model, for each concept.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> images, maps = rng.random((2, 3, 8, 8)), rng.random((2, 2, 8, 8))
    >>> figure = map_pairs(images, maps, 0 * maps, ["red", "round"], concepts=[0, 1])
    """
    images = as_numpy(images)
    models = (as_numpy(before), as_numpy(after))
    peaks = np.maximum(models[0], 0).max(axis=(0, 2, 3), initial=0.0)
    gap = 0.18
    widths = [1.0] + [gap, 1.0, 1.0] * len(concepts)
    figure = new_figure(sum(widths) * size, len(images) * (size - 0.02) + 0.4)
    axes = figure.subplots(
        len(images), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    for row, image in enumerate(images):
        axes[row, 0].imshow(to_picture(image), interpolation="nearest")
        for place, concept in enumerate(concepts):
            for side in (0, 1):
                axes[row, 3 * place + 2 + side].imshow(
                    blend_maps(image, models[side][row], [concept], quantile=quantile, peaks=peaks)
                )
            axes[row, 3 * place + 1].set_visible(False)
    for place, concept in enumerate(concepts):
        for side in (0, 1):
            first = shorten(names[concept], 16) if side == 0 else ""
            axes[0, 3 * place + 2 + side].set_title(
                f"{first}\n{titles[side]}", fontsize=8, pad=2, color=concept_color(concept)
            )
    for ax in axes.flat:
        bare(ax)
    return figure
