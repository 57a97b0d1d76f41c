"""Draw what stands where: from counter-based random numbers to scene parameters.

Scene i of a split has a Philox stream of its own, keyed by (seed, split) with i
in the counter. It therefore does not depend on how many scenes are asked for,
and since every choice has its own column of uniforms, a knob changes only what
it names: the same scene with less noise is the same scene with less noise.
"""

from __future__ import annotations

__all__ = ["MAX_OBJECTS", "OBJECT_DTYPE", "SPLITS", "Layout", "draw_layout", "noise_bytes"]

from dataclasses import dataclass

import numpy as np

from conceptlab.datasets.world import (
    BACKGROUNDS,
    COLOURS,
    COMBINATIONS,
    HELD_OUT,
    SHAPES,
    TEXTURES,
    Species,
)

SPLITS = ("train", "val", "test")
MAX_OBJECTS = 3
N_CANDIDATES = 10
HAT_RISE = 0.55  # how far a hat rises above its object, in radii

OBJECT_DTYPE = np.dtype(
    [
        ("present", "?"),
        ("colour", "i1"),
        ("shape", "i1"),
        ("texture", "i1"),
        ("size", "i1"),
        ("position", "i1"),
        ("hat", "?"),
        ("x", "f4"),
        ("y", "f4"),
        ("radius", "f4"),
        ("angle", "f4"),
        ("phase_u", "f4"),
        ("phase_v", "f4"),
        ("hue", "f4"),
        ("depth", "i1"),
    ]
)
"""One object. Colour, shape, texture, size and position are indices into
``FAMILIES``; x, y, radius are shares of the image side; the angle is in radians;
depth 0 is the farthest."""

# Columns of the uniform numbers of a scene.
_SPECIES, _COUNT, _BACKGROUND, _CONTEXT, _HAT, _LEADING = range(6)
_CAPTION = 6
_FIELD = 8  # eight numbers for the background
_OBJECT = 16  # then twelve a object
_PER_OBJECT = 12
_PLACES = _OBJECT + _PER_OBJECT * MAX_OBJECTS
N_UNIFORMS = _PLACES + 3 * N_CANDIDATES * (MAX_OBJECTS - 1)


@dataclass
class Layout:
    """Parameters of n scenes.

    Attributes
    ----------
    index : ndarray of shape (n,), int64
        Number of the scene in its split.
    y : ndarray of shape (n,), int64
        Species; -1 where there are none.
    background : ndarray of shape (n,), int64
        Index into ``BACKGROUNDS``; -1 is a plain grey.
    field : ndarray of shape (n, 8), float64
        Free parameters of the background, in [0, 1).
    caption : ndarray of shape (n,), float64
        Chooses the wording.
    objects : ndarray of shape (n, 3), OBJECT_DTYPE
    """

    index: np.ndarray
    y: np.ndarray
    background: np.ndarray
    field: np.ndarray
    caption: np.ndarray
    objects: np.ndarray

    def __getitem__(self, rows: np.ndarray | slice) -> Layout:
        return Layout(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _key(seed: int, split: str) -> np.ndarray:
    return np.random.SeedSequence([seed, SPLITS.index(split)]).generate_state(2, np.uint64)


def _streams(seed: int, split: str, index: np.ndarray, purpose: int) -> list[np.random.Philox]:
    key = _key(seed, split)
    streams = []
    for i in index:
        counter = np.array([0, i, purpose, 0], dtype=np.uint64)
        streams.append(np.random.Philox(key=key, counter=counter))
    return streams


def noise_bytes(seed: int, split: str, index: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` random bytes for each scene, (n, count) uint8."""
    words = -(-count // 8)
    raw = [stream.random_raw(words) for stream in _streams(seed, split, index, purpose=1)]
    return np.stack(raw).astype("<u8", copy=False).view(np.uint8)[:, :count]


def draw_layout(
    seed: int,
    split: str,
    index: np.ndarray,
    *,
    n_objects: tuple[int, int],
    species: tuple[Species, ...],
    backgrounds: tuple[int, ...],
    occlusion: float,
    context_correlation: float,
    hats: float,
    combinations: str,
) -> Layout:
    """Draw the parameters of the scenes with the numbers `index`."""
    n = len(index)
    u = np.empty((n, N_UNIFORMS))
    for row, stream in zip(u, _streams(seed, split, index, purpose=0), strict=True):
        np.random.Generator(stream).random(out=row)

    low, high = n_objects
    count = low + _choose(u[:, _COUNT], high - low + 1)
    y = _choose(u[:, _SPECIES], len(species)) if species else np.full(n, -1)
    choice = np.array(backgrounds)[_choose(u[:, _BACKGROUND], len(backgrounds))]
    hat_share: np.ndarray | float = hats
    if species:
        home = np.array([BACKGROUNDS.index(s.background) for s in species])[y]
        choice = np.where(u[:, _CONTEXT] < context_correlation, home, choice)
        hat_share = np.array([hats if s.hats is None else s.hats for s in species])[y]

    objects = np.zeros((n, MAX_OBJECTS), dtype=OBJECT_DTYPE)
    v = u[:, _OBJECT:_PLACES].reshape(n, MAX_OBJECTS, _PER_OBJECT)
    objects["present"] = np.arange(MAX_OBJECTS) < count[:, None]
    allowed = {
        "all": COMBINATIONS,
        "seen": COMBINATIONS[~HELD_OUT],
        "held_out": COMBINATIONS[HELD_OUT],
    }
    triples = allowed[combinations][_choose(v[..., 0], len(allowed[combinations]))]
    if species:
        signatures = np.array([_signature(s) for s in species])
        triples[:, 0] = signatures[y]
    objects["colour"], objects["shape"], objects["texture"] = np.moveaxis(triples, -1, 0)
    objects["hue"] = 2 * v[..., 1] - 1
    objects["angle"] = (2 * v[..., 2] - 1) * 0.3
    objects["phase_u"], objects["phase_v"] = v[..., 3], v[..., 4]
    objects["hat"][:, 0] = u[:, _HAT] < hat_share

    # The main object is the largest: beside others it is large and they are small.
    alone = count == 1
    large = np.zeros((n, MAX_OBJECTS), dtype=bool)
    large[:, 0] = ~alone | (v[:, 0, 5] < 0.5)
    objects["size"] = large
    objects["radius"] = np.where(large, 0.20 + 0.035 * v[..., 6], 0.12 + 0.02 * v[..., 6])
    _place_main(objects, v)
    _place_others(objects, u, v, occlusion)
    objects["position"] = np.digitize(objects["x"], [0.405, 0.595])
    objects["depth"] = _depths(u[:, _LEADING], v)
    objects[~objects["present"]] = np.zeros((), dtype=OBJECT_DTYPE)
    return Layout(
        index=np.asarray(index, dtype=np.int64),
        y=y.astype(np.int64),
        background=choice.astype(np.int64),
        field=u[:, _FIELD : _FIELD + 8],
        caption=u[:, _CAPTION],
        objects=objects,
    )


def _choose(u: np.ndarray, options: int) -> np.ndarray:
    return np.minimum((u * options).astype(np.int64), options - 1)


def _signature(species: Species) -> list[int]:
    return [
        COLOURS.index(species.colour),
        SHAPES.index(species.shape),
        TEXTURES.index(species.texture),
    ]


def _limits(objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the margin to the sides and to the top that an object needs."""
    side = objects["radius"] * 1.04 + 0.02
    return side, side + objects["hat"] * HAT_RISE * objects["radius"]


def _place_main(objects: np.ndarray, v: np.ndarray) -> None:
    main = objects[:, 0]
    side, top = _limits(main)
    bins = _choose(v[:, 0, 7], 3)
    low = np.choose(bins, [side, 0.44, 0.63])
    high = np.choose(bins, [0.37, 0.56, 1 - side])
    objects["x"][:, 0] = low + v[:, 0, 8] * (high - low)
    objects["y"][:, 0] = top + v[:, 0, 9] * (1 - side - top)


def _place_others(objects: np.ndarray, u: np.ndarray, v: np.ndarray, occlusion: float) -> None:
    """Give each further object the candidate place that fits best.

    An object that shall overlap stands at 0.75 to 1 of the sum of radii from
    the main one, so that most of either stays visible; the others stand as
    clear of everything as the candidates allow.
    """
    n = len(objects)
    w = u[:, _PLACES:].reshape(n, MAX_OBJECTS - 1, N_CANDIDATES, 3)
    for j in range(1, MAX_OBJECTS):
        one = objects[:, j]
        side, _ = _limits(one)
        margin = side[:, None]
        place = margin[..., None] + w[:, j - 1, :, :2] * (1 - 2 * margin[..., None])
        overlap = v[:, j, 10] < occlusion
        reach = (objects["radius"][:, 0] + one["radius"])[:, None]
        distance = reach * (0.75 + 0.25 * w[:, j - 1, :, 2])
        turn = 2 * np.pi * w[:, j - 1, :, 0]
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * distance[..., None]
        near = np.stack([objects["x"][:, 0], objects["y"][:, 0]], axis=-1)[:, None] + ring
        inside = np.all((near >= margin[..., None]) & (near <= 1 - margin[..., None]), axis=-1)
        candidates = np.where(overlap[:, None, None], near, place)
        clearance = np.full((n, N_CANDIDATES), 9.0)
        for k in range(j):
            other = objects[:, k]
            away = np.hypot(
                candidates[..., 0] - other["x"][:, None], candidates[..., 1] - other["y"][:, None]
            )
            gap = away - (other["radius"] + one["radius"])[:, None]
            counts = ~overlap if k == 0 else np.ones(n, dtype=bool)
            counts = counts & other["present"]
            clearance = np.where(counts[:, None], np.minimum(clearance, gap), clearance)
        clearance = np.minimum(clearance, 0.03)  # clear is clear: the first such place is taken
        clearance -= 5.0 * (overlap[:, None] & ~inside)
        best = candidates[np.arange(n), np.argmax(clearance, axis=1)]
        best = np.clip(best, margin, 1 - margin)
        objects["x"][:, j], objects["y"][:, j] = best[:, 0], best[:, 1]


def _depths(leading: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Order the objects from far to near; the main one is in front in half of the scenes."""
    score = v[..., 11].copy()
    score[:, 0] = np.where(leading < 0.5, 2.0, -1.0)
    ranks: np.ndarray = np.argsort(np.argsort(score, axis=1), axis=1)
    return ranks
