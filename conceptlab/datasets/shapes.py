"""Signed distances of the shapes and the tones of the textures.

All take arrays of pixels and use additions, products, square roots and
comparisons only, which IEEE arithmetic rounds the same everywhere: the same
seed gives the same bits on another machine.
"""

from __future__ import annotations

__all__ = ["distance", "hat_distance", "tone"]

from collections.abc import Callable

import numpy as np

from conceptlab.datasets.world import SHAPES, TEXTURES

Array = np.ndarray
DARK = np.float32(0.22)  # tone of the dark half of a texture
PERIOD = np.float32(0.086)  # of a texture, as a share of the image side: 5.5 pixels of 64


def _f(value: float) -> np.float32:
    return np.float32(value)


def _circle(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y) - _f(0.98)


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - _f(half_width), np.abs(y) - _f(half_height))


def _square(x: Array, y: Array) -> Array:
    return _box(x, y, 0.80, 0.80)


def _triangle(x: Array, y: Array) -> Array:
    slanted = np.abs(x) * _f(0.8944272) - (y + _f(1.0)) * _f(0.4472136)
    return np.maximum(slanted, y - _f(0.80))


def _star(x: Array, y: Array) -> Array:
    # Fold the plane into one tenth of the star, then take the line from its tip
    # (0, -1.1) to the inner corner at radius 0.52 and 36 degrees.
    x = np.abs(x)
    y = -y
    for nx, ny in ((0.8090170, -0.5877853), (-0.8090170, -0.5877853)):
        beyond = _f(2.0) * np.maximum(x * _f(nx) + y * _f(ny), _f(0.0))
        x = x - beyond * _f(nx)
        y = y - beyond * _f(ny)
    x = np.abs(x)
    tip, inner_x, inner_y = 1.1, 0.52 * 0.5877853, 0.52 * 0.8090170
    length = float(np.hypot(inner_x, tip - inner_y))
    normal_x, normal_y = (tip - inner_y) / length, inner_x / length
    return x * _f(normal_x) + (y - _f(tip)) * _f(normal_y)


def _cross(x: Array, y: Array) -> Array:
    return np.minimum(_box(x, y, 0.98, 0.37), _box(x, y, 0.37, 0.98))


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.sqrt(x * x + y * y) - _f(0.74)) - _f(0.27)


def _heart(x: Array, y: Array) -> Array:
    # A square on its corner with a disc on each upper side.
    side = 0.62
    x = np.abs(x)
    y = y - _f(0.08)
    square = (x + np.abs(y) - _f(side * 1.4142136)) * _f(0.7071068)
    dx, dy = x - _f(side * 0.7071068), y + _f(side * 0.7071068)
    return np.minimum(square, np.sqrt(dx * dx + dy * dy) - _f(side))


def _crescent(x: Array, y: Array) -> Array:
    dx = x - _f(0.50)
    bite = _f(0.70) - np.sqrt(dx * dx + y * y)
    return np.maximum(np.sqrt(x * x + y * y) - _f(1.03), bite)


_DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "crescent": _crescent,
}


def distance(shape: int, x: Array, y: Array) -> Array:
    """Give the signed distance to a shape of radius 1, negative inside.

    Parameters
    ----------
    shape : int
        Index into ``SHAPES``.
    x, y : ndarray, float32
        Coordinates in the object's frame, y downwards.

    Returns
    -------
    ndarray, float32
    """
    return _DISTANCES[SHAPES[shape]](x, y)


def hat_distance(x: Array, y: Array) -> Array:
    """Give the signed distance to the hat of an object of radius 1.

    The brim lies at y = -0.85, the crown reaches to y = -1.5.
    """
    brim = _box(x, y + _f(0.88), 0.62, 0.10)
    return np.minimum(brim, _box(x, y + _f(1.17), 0.36, 0.33))


def _wave(x: Array) -> Array:
    """Triangle wave of period 1 between -1 and 1."""
    return np.abs(x - np.floor(x) - _f(0.5)) * _f(4.0) - _f(1.0)


def tone(texture: int, u: Array, v: Array, sharpness: float) -> Array:
    """Give the brightness factor of a texture, between ``DARK`` and 1.

    Parameters
    ----------
    texture : int
        Index into ``TEXTURES``.
    u, v : ndarray, float32
        Coordinates on the object in periods.
    sharpness : float
        Pixels in a period: how steep an edge is drawn.

    Returns
    -------
    ndarray, float32
    """
    name = TEXTURES[texture]
    if name == "plain":
        return np.ones_like(u)
    steep = _f(sharpness / 4)
    if name == "striped":
        light = _wave(v) * steep
    elif name == "dotted":
        du, dv = u - np.floor(u) - _f(0.5), v - np.floor(v) - _f(0.5)
        light = (np.sqrt(du * du + dv * dv) - _f(0.31)) * (_f(4.0) * steep)
    else:
        light = _wave(u * _f(0.6)) * _wave(v * _f(0.6)) * (_f(2.0) * steep)
    clipped: Array = np.minimum(np.maximum(light + _f(0.5), _f(0.0)), _f(1.0))
    return DARK + (_f(1.0) - DARK) * clipped
