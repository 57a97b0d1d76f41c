"""The five backgrounds, each a blend of two colours by a drawn field."""

from __future__ import annotations

__all__ = ["draw_backgrounds"]

from functools import lru_cache

import numpy as np

from conceptlab.datasets.world import BACKGROUNDS

Array = np.ndarray
PLAIN = (0.55, 0.55, 0.55)

# From the first colour (field 0) to the second (field 1).
_PALETTES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "sky": ((0.42, 0.62, 0.86), (0.97, 0.98, 1.00)),
    "grass": ((0.20, 0.30, 0.12), (0.52, 0.62, 0.32)),
    "sand": ((0.70, 0.58, 0.38), (0.90, 0.82, 0.64)),
    "night": ((0.09, 0.10, 0.22), (0.95, 0.95, 0.85)),
    "snow": ((0.70, 0.77, 0.88), (0.97, 0.98, 1.00)),
}


@lru_cache(maxsize=8)
def _noise_fields(size: int) -> tuple[Array, Array]:
    """Give smooth noise and grain of twice the image's side, in [0, 1]; read-only."""
    rng = np.random.Generator(np.random.Philox(key=np.array([20, 26], dtype=np.uint64)))
    smooth = np.zeros((2 * size, 2 * size))
    for cells, weight in ((3, 0.5), (6, 0.3), (12, 0.2)):
        smooth += weight * _value_noise(rng.random((2 * cells, 2 * cells)), 2 * size)
    grain = 0.6 * _value_noise(rng.random((64, 64)), 2 * size)
    grain = grain + 0.4 * _value_noise(rng.random((128, 128)), 2 * size)
    fields = []
    for field in (smooth, grain):
        low, high = np.min(field), np.max(field)
        fields.append(((field - low) / (high - low)).astype(np.float32))
        fields[-1].flags.writeable = False
    return fields[0], fields[1]


def _value_noise(grid: Array, side: int) -> Array:
    """Interpolate a periodic grid of random values smoothly to `side` pixels."""
    cells = len(grid)
    at = (np.arange(side) + 0.5) * cells / side
    low = np.floor(at).astype(np.int64) % cells
    part = at - np.floor(at)
    part = part * part * (3 - 2 * part)
    high = (low + 1) % cells
    rows = grid[low] * (1 - part[:, None]) + grid[high] * part[:, None]
    mixed: Array = rows[:, low] * (1 - part) + rows[:, high] * part
    return mixed


def _crop(field: Array, size: int, across: Array, down: Array) -> Array:
    """Cut a window from a noise field for each scene, (b, size, size)."""
    x0 = (across * size).astype(np.int64)
    y0 = (down * size).astype(np.int64)
    return np.stack([field[y : y + size, x : x + size] for x, y in zip(x0, y0, strict=True)])


def _fields(kind: str, free: Array, size: int) -> Array:
    """Draw the blending field of one kind, (b, size, size) float32 in [0, 1]."""
    smooth, grain = _noise_fields(size)
    f = free.astype(np.float32)[:, :, None, None]
    down = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size))[:, None]
    soft = _crop(smooth, size, free[:, 0], free[:, 1])
    if kind == "sky":
        field = soft * np.float32(2.0) - np.float32(1.1) + f[:, 2] * np.float32(0.2)
        field = np.maximum(field, np.float32(0)) + down * np.float32(0.25)
    elif kind == "snow":
        field = soft * np.float32(0.9) + np.float32(0.5) - down * np.float32(0.35) * f[:, 2]
    elif kind == "sand":
        phase = down * (np.float32(6) + np.float32(4) * f[:, 2]) + soft * np.float32(2)
        field = np.abs(phase - np.floor(phase) - np.float32(0.5)) * np.float32(1.0)
        field = field + np.float32(0.5) * _crop(grain, size, free[:, 4], free[:, 5])
    elif kind == "grass":
        blades = _crop(grain, size, free[:, 4], free[:, 5])
        field = np.float32(0.8) * blades + np.float32(0.4) * soft - np.float32(0.1)
    else:
        stars = _crop(grain, size, free[:, 4], free[:, 5]) - np.float32(0.86)
        field = np.maximum(stars, np.float32(0)) * np.float32(9.0) + down * np.float32(0.08)
        field = field + soft * np.float32(0.07)
    clipped: Array = np.minimum(np.maximum(field, np.float32(0)), np.float32(1))
    return clipped


def draw_backgrounds(kinds: Array, free: Array, size: int) -> Array:
    """Paint the backgrounds of some scenes.

    Parameters
    ----------
    kinds : ndarray of shape (b,)
        Index into ``BACKGROUNDS``, or -1 for plain grey.
    free : ndarray of shape (b, 8)
        Free parameters in [0, 1).
    size : int
        Side in pixels.

    Returns
    -------
    ndarray of shape (b, 3, size, size), float32 in [0, 1]
    """
    canvas = np.empty((len(kinds), 3, size, size), dtype=np.float32)
    light = (0.94 + 0.12 * free[:, 6]).astype(np.float32)[:, None, None, None]
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        if kind < 0:
            canvas[rows] = np.array(PLAIN, dtype=np.float32)[:, None, None]
            continue
        name = BACKGROUNDS[kind]
        first, second = (np.array(c, dtype=np.float32)[:, None, None] for c in _PALETTES[name])
        field = _fields(name, free[rows], size)[:, None]
        canvas[rows] = (field * (second - first) + first) * light[rows]
    return canvas
