"""Paint scenes: layers with soft edges, composed from far to near.

Each object is drawn in a window about its own size, for all objects of one
shape and size class at once; then the windows are laid on the canvas.
"""

from __future__ import annotations

__all__ = ["HAT", "amodal_masks", "render", "visible_masks"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from conceptlab.datasets.backgrounds import draw_backgrounds
from conceptlab.datasets.layout import MAX_OBJECTS, Layout, noise_bytes
from conceptlab.datasets.shapes import PERIOD, distance, hat_distance, tone
from conceptlab.datasets.world import SHAPES

Array = np.ndarray
BLOCK = 64  # scenes painted at once: the working set stays in the cache
HAT = MAX_OBJECTS  # the slot of the hat, beside the objects' 0, 1, 2
_HAT_KIND = len(SHAPES)
_EDGE = np.float32(0.55)  # tone of the outline
_HAT_TONE = 0.42

_RGB = np.array(
    [
        (0.88, 0.10, 0.10),  # red
        (0.98, 0.52, 0.05),  # orange
        (0.98, 0.90, 0.12),  # yellow
        (0.08, 0.66, 0.16),  # green
        (0.05, 0.82, 0.84),  # cyan
        (0.12, 0.28, 0.92),  # blue
        (0.56, 0.16, 0.80),  # purple
        (0.99, 0.52, 0.76),  # pink
    ],
    dtype=np.float32,
)
# Where each colour goes when its hue is shifted, by up to one of these steps.
_SHIFT = np.array(
    [
        (0.05, 0.05, 0.03),
        (0.00, 0.05, 0.04),
        (0.00, 0.05, 0.06),
        (0.06, 0.06, 0.05),
        (0.05, 0.06, 0.05),
        (0.06, 0.07, 0.05),
        (0.06, 0.05, 0.08),
        (0.00, 0.06, 0.06),
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class _Layer:
    image: int
    slot: int
    rows: slice
    columns: slice
    alpha: Array  # (w, w)
    rgb: Array | None  # (3, w, w)


def render(
    layout: Layout,
    size: int,
    noise: float,
    *,
    seed: int,
    split: str,
    drop: Array | None = None,
) -> Array:
    """Paint scenes.

    Parameters
    ----------
    layout : Layout
        n scenes.
    size : int
        Side in pixels.
    noise : float
        Standard deviation of the pixel noise, in units of the full range.
    seed, split : int, str
        Choose the noise.
    drop : ndarray of shape (n, 4), bool, optional
        Objects (and, last, the hat) to leave out; all else stays to the bit.

    Returns
    -------
    ndarray of shape (n, 3, size, size), uint8
    """
    n = len(layout.y)
    pixels = np.empty((n, 3, size, size), dtype=np.uint8)
    quantiles = ndtri((np.arange(256) + 0.5) / 256) * (255 * noise) + 0.5
    table = quantiles.astype(np.float32)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        part = layout[rows]
        canvas = draw_backgrounds(part.background, part.field, size)
        for layer in _layers(part, size, None if drop is None else drop[rows], paint=True):
            view = canvas[layer.image, :, layer.rows, layer.columns]
            view += layer.alpha * (layer.rgb - view)
        canvas *= np.float32(255)
        if noise > 0:
            grain = noise_bytes(seed, split, part.index, 3 * size * size)
            canvas += np.take(table, grain).reshape(canvas.shape)
        else:
            canvas += np.float32(0.5)
        np.clip(canvas, 0, 255, out=canvas)
        pixels[rows] = canvas
    return pixels


def visible_masks(layout: Layout, size: int) -> Array:
    """Give what can be seen of each object and of the hat, (n, 4, size, size) bool.

    A pixel belongs to the nearest object that covers at least half of it.
    """
    n = len(layout.y)
    masks = np.zeros((n, MAX_OBJECTS + 1, size, size), dtype=bool)
    for start in range(0, n, BLOCK):
        for layer in _layers(layout[start : start + BLOCK], size, None, paint=False):
            view = masks[start + layer.image, :, layer.rows, layer.columns]
            covered = layer.alpha > 0.5
            view &= ~covered
            view[layer.slot] |= covered
    return masks


def amodal_masks(layout: Layout, size: int) -> Array:
    """Give each object and the hat as if nothing stood before it, (n, 4, size, size) bool."""
    n = len(layout.y)
    masks = np.zeros((n, MAX_OBJECTS + 1, size, size), dtype=bool)
    for start in range(0, n, BLOCK):
        for layer in _layers(layout[start : start + BLOCK], size, None, paint=False):
            masks[start + layer.image, layer.slot, layer.rows, layer.columns] = layer.alpha > 0.5
    return masks


def _layers(layout: Layout, size: int, drop: Array | None, *, paint: bool) -> Iterator[_Layer]:
    """Yield the layers of a block, image by image from far to near."""
    objects = layout.objects
    wanted = np.zeros((len(objects), MAX_OBJECTS + 1), dtype=bool)
    wanted[:, :HAT] = objects["present"]
    wanted[:, HAT] = objects["hat"][:, 0]
    if drop is not None:
        wanted &= ~drop
        wanted[:, HAT] &= ~drop[:, 0]
    image, slot = np.nonzero(wanted)
    is_hat = slot == HAT
    item = objects[image, np.where(is_hat, 0, slot)]
    kind = np.where(is_hat, _HAT_KIND, item["shape"]).astype(np.int64)
    rank = 2 * item["depth"].astype(np.int64) + is_hat
    order = np.lexsort((rank, image))

    radius = item["radius"]
    middle_x, middle_y = item["x"], item["y"] - np.where(is_hat, np.float32(1.14), 0) * radius
    reach = np.where(is_hat, 0.68, 1.14) * np.where(item["size"] == 1, 0.235, 0.14)
    width = np.minimum(np.ceil(2 * reach * size).astype(np.int64) + 2, size)
    x0 = np.clip(np.rint(middle_x * size - width / 2), 0, size - width).astype(np.int64)
    y0 = np.clip(np.rint(middle_y * size - width / 2), 0, size - width).astype(np.int64)

    alphas: list[Array] = [np.empty(0)] * len(image)
    colours: list[Array | None] = [None] * len(image)
    groups = kind * (size + 1) + width
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        side = int(width[members[0]])
        alpha, rgb = _draw(
            int(kind[members[0]]), item[members], x0[members], y0[members], side, size, paint
        )
        for k, member in enumerate(members):
            alphas[member] = alpha[k]
            colours[member] = rgb[k] if rgb is not None else None
    for k in order:
        yield _Layer(
            int(image[k]),
            int(slot[k]),
            slice(int(y0[k]), int(y0[k] + width[k])),
            slice(int(x0[k]), int(x0[k] + width[k])),
            alphas[k],
            colours[k],
        )


def _draw(
    kind: int, item: Array, x0: Array, y0: Array, side: int, size: int, paint: bool
) -> tuple[Array, Array | None]:
    """Draw layers of one kind: coverage (m, w, w) and colour (m, 3, w, w)."""
    steps = np.arange(side, dtype=np.float32) + np.float32(0.5)
    pixel = np.float32(1 / size)
    radius = item["radius"][:, None, None]
    scale = np.float32(1) / radius
    x = ((x0.astype(np.float32)[:, None] + steps) * pixel - item["x"][:, None])[:, None, :] * scale
    y = ((y0.astype(np.float32)[:, None] + steps) * pixel - item["y"][:, None])[:, :, None] * scale
    soft = radius * np.float32(size)  # pixels in a radius
    half, zero, one = np.float32(0.5), np.float32(0), np.float32(1)
    if kind == _HAT_KIND:
        gap = hat_distance(x, y) * soft
        alpha = np.minimum(np.maximum(half - gap, zero), one)
        if not paint:
            return alpha, None
        band = np.minimum(np.maximum((y + np.float32(1.07)) * soft, zero), one)
        band -= np.minimum(np.maximum((y + np.float32(0.95)) * soft, zero), one)
        shade = np.float32(_HAT_TONE) + np.float32(0.5) * band
        shade = np.broadcast_to(shade, alpha.shape) * _outline(gap)
        return alpha, np.repeat(shade[:, None], 3, axis=1)
    turn = item["angle"].astype(np.float64)
    cos = np.cos(turn).astype(np.float32)[:, None, None]
    sin = np.sin(turn).astype(np.float32)[:, None, None]
    u, v = x * cos + y * sin, y * cos - x * sin
    gap = distance(kind, u, v) * soft
    alpha = np.minimum(np.maximum(half - gap, zero), one)
    if not paint:
        return alpha, None
    shade = _outline(gap) * (np.float32(1.04) - np.float32(0.10) * y)
    for texture in np.unique(item["texture"]):
        rows = np.flatnonzero(item["texture"] == texture)
        scaled = radius[rows] / PERIOD
        shade[rows] *= tone(
            int(texture),
            u[rows] * scaled + item["phase_u"][rows, None, None],
            v[rows] * scaled + item["phase_v"][rows, None, None],
            float(PERIOD) * size,
        )
    colour = _RGB[item["colour"]] + item["hue"][:, None] * _SHIFT[item["colour"]]
    rgb = np.minimum(np.maximum(colour, zero), one)[:, :, None, None] * shade[:, None]
    return alpha, rgb


def _outline(gap: Array) -> Array:
    """Darken the last pixel before the edge."""
    inner = np.minimum(np.maximum(-gap - np.float32(0.4), np.float32(0)), np.float32(1))
    return _EDGE + (np.float32(1) - _EDGE) * inner
