"""Scenes: rendered images of which everything is known."""

from __future__ import annotations

__all__ = ["Scene", "Scenes", "load_scenes"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from conceptlab.datasets import captions as _captions
from conceptlab.datasets import render as _render
from conceptlab.datasets.layout import MAX_OBJECTS, SPLITS, Layout, draw_layout
from conceptlab.datasets.world import (
    ATTRIBUTE_NAMES,
    BACKGROUNDS,
    FAMILIES,
    Species,
    resolve_species,
)
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Real, Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

_COMBINATIONS = ("all", "seen", "held_out")
_OBJECT_FAMILIES = ("colour", "shape", "texture", "size", "position")
_OFFSETS = dict(
    zip(FAMILIES, np.cumsum([0, *map(len, FAMILIES.values())])[:-1].tolist(), strict=True)
)


@dataclass(frozen=True)
class Scene:
    """One image with what is known of it.

    Attributes
    ----------
    image : ndarray of shape (3, size, size), float32 in [0, 1]
    y : int
        Species, -1 without.
    caption : str
    attributes : tuple of str
        What the image shows.
    masks : ndarray of shape (3, size, size), bool
        The visible part of each object; the first is the main one.

    Examples
    --------
    >>> from conceptlab.datasets import load_scenes
    >>> scene = next(iter(load_scenes("test", 1, seed=0)))
    >>> scene.image.shape, scene.masks.dtype
    ((3, 64, 64), dtype('bool'))
    """

    image: np.ndarray
    y: int
    caption: str
    attributes: tuple[str, ...]
    masks: np.ndarray


class Scenes:
    """A set of scenes; made by :func:`load_scenes`.

    Images, masks and captions are made when they are first asked for.
    Indexing with an integer gives a :class:`Scene`, with a slice, a list or a
    mask of booleans the :class:`Scenes` of those rows.

    Attributes
    ----------
    split : str
    seed : int
    size : int
        Side of the images in pixels.
    noise : float
    species : tuple of Species
    class_names : list of str
    attribute_names : list of str
        Names of the columns of :attr:`attributes`.
    index : ndarray of shape (n,), int64
        Number of each scene in its split.
    y : ndarray of shape (n,), int64
        Species of the main object; -1 where there are no species.
    layout : Layout
        Every parameter of the scenes.
    objects : ndarray of shape (n, 3), structured
        Per object: present, colour, shape, texture, size, position (indices
        into ``FAMILIES``), hat, x, y, radius (shares of the side, origin at the
        top left), angle, depth (0 is far). Object 0 is the main one.

    Examples
    --------
    >>> from conceptlab.datasets import load_scenes
    >>> scenes = load_scenes("test", 4, seed=0)
    >>> scenes.images.shape, scenes.y.shape
    ((4, 3, 64, 64), (4,))
    >>> scenes.without(0).shape  # the same images without their first object
    (4, 3, 64, 64)
    """

    def __init__(
        self,
        layout: Layout,
        *,
        split: str,
        seed: int,
        size: int,
        noise: float,
        species: tuple[Species, ...],
    ) -> None:
        self.layout = layout
        self.split = split
        self.seed = seed
        self.size = size
        self.noise = noise
        self.species = species
        self.class_names = [s.name for s in species]
        self.attribute_names = list(ATTRIBUTE_NAMES)
        self.index = layout.index
        self.y = layout.y
        self.objects = layout.objects

    def __len__(self) -> int:
        return len(self.y)

    @overload
    def __getitem__(self, rows: int) -> Scene: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> Scenes: ...
    def __getitem__(self, rows: Any) -> Scene | Scenes:
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"scene {rows} of {len(self)}")
            i = int(rows) % len(self)
            one = self if "pixels" in self.__dict__ else self[[i]]
            at = i if one is self else 0
            return Scene(
                image=one.pixels[at].astype(np.float32) / np.float32(255),
                y=int(self.y[i]),
                caption=self[[i]].captions[0],
                attributes=tuple(np.array(ATTRIBUTE_NAMES)[self.attributes[i]].tolist()),
                masks=self[[i]].masks[0],
            )
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(chosen, np.ndarray) and chosen.size == 0:
            chosen = chosen.astype(np.int64)
        part = Scenes(
            self.layout[chosen],
            split=self.split,
            seed=self.seed,
            size=self.size,
            noise=self.noise,
            species=self.species,
        )
        if "pixels" in self.__dict__:
            part.__dict__["pixels"] = self.pixels[chosen]
        return part

    def __iter__(self) -> Iterator[Scene]:
        for i in range(len(self)):
            yield self[i]

    def __repr__(self) -> str:
        kinds = f"{len(self.species)} species" if self.species else "no species"
        return (
            f"Scenes({self.split!r}, n={len(self)}, seed={self.seed}, {kinds}, "
            f"{self.size}x{self.size} px)"
        )

    @cached_property
    def pixels(self) -> np.ndarray:
        """The images as bytes, (n, 3, size, size) uint8; a quarter of the memory of `images`."""
        return self._paint(None)

    @cached_property
    def images(self) -> np.ndarray:
        """The images, (n, 3, size, size) float32 in [0, 1]."""
        return self.pixels.astype(np.float32) / np.float32(255)

    @cached_property
    def captions(self) -> list[str]:
        """One full caption an image: every object, its place, and the background."""
        return _captions.word(_captions.full_claims(self.layout))

    def sample_captions(self, random_state: RandomState = None) -> tuple[list[str], np.ndarray]:
        """Draw captions that tell a part of the truth, in varied words.

        Parameters
        ----------
        random_state : int, RandomState, Generator or None

        Returns
        -------
        captions : list of str
        true : ndarray of shape (n, n), bool
            ``true[j, i]``: caption j holds for image i.
        """
        rng = numpy_generator(random_state)
        claims = _captions.draw_claims(self.layout, rng)
        text = _captions.word(claims, rng.random(len(self)))
        return text, _captions.claims_hold(claims, self.layout)

    @cached_property
    def object_attributes(self) -> np.ndarray:
        """What each object has, (n, 3, n_attributes) bool; backgrounds belong to none."""
        table = np.zeros((*self.objects.shape, len(ATTRIBUTE_NAMES)), dtype=bool)
        present = self.objects["present"]
        for family in _OBJECT_FAMILIES:
            for value in range(len(FAMILIES[family])):
                has = present & (self.objects[family] == value)
                table[..., _OFFSETS[family] + value] = has
        table[..., _OFFSETS["accessory"]] = self.objects["hat"]
        return table

    @cached_property
    def attributes(self) -> np.ndarray:
        """What each image shows, (n, n_attributes) bool: any object has it, or it is the ground."""
        table = np.asarray(self.object_attributes.any(axis=1))
        ground = self.layout.background
        rows = np.flatnonzero(ground >= 0)
        table[rows, _OFFSETS["background"] + ground[rows]] = True
        return table

    @property
    def main_attributes(self) -> np.ndarray:
        """What the main object has, (n, n_attributes) bool, with the background."""
        table = self.attributes.copy()
        first = _OFFSETS["background"]
        ground = slice(first, first + len(BACKGROUNDS))
        main: np.ndarray = self.object_attributes[:, 0].copy()
        main[:, ground] = table[:, ground]
        return main

    @property
    def class_attributes(self) -> np.ndarray:
        """The planted truth, (n_classes, n_attributes) bool: the signature of each species."""
        table = np.zeros((len(self.species), len(ATTRIBUTE_NAMES)), dtype=bool)
        for row, species in zip(table, self.species, strict=True):
            row[[ATTRIBUTE_NAMES.index(name) for name in species.attributes]] = True
        return table

    @cached_property
    def _visible(self) -> np.ndarray:
        return _render.visible_masks(self.layout, self.size)

    @cached_property
    def masks(self) -> np.ndarray:
        """The visible part of each object, hat included, (n, 3, size, size) bool."""
        return _with_hat(self._visible)

    @cached_property
    def amodal_masks(self) -> np.ndarray:
        """Each object in full, as if nothing stood before it, (n, 3, size, size) bool."""
        return _with_hat(_render.amodal_masks(self.layout, self.size))

    @property
    def hat_masks(self) -> np.ndarray:
        """The visible part of the hat, (n, size, size) bool."""
        return self._visible[:, _render.HAT]

    def attribute_masks(self, name: str) -> np.ndarray:
        """Tell where in the images an attribute is.

        Parameters
        ----------
        name : str
            One of ``attribute_names``.

        Returns
        -------
        ndarray of shape (n, size, size), bool
            The visible parts of the objects that have it (without their hats);
            for a background all that no object covers, where it is there.
        """
        if name not in ATTRIBUTE_NAMES:
            raise unknown_name("attribute", name, ATTRIBUTE_NAMES)
        column = ATTRIBUTE_NAMES.index(name)
        if name == "hat":
            return self.hat_masks.copy()
        if name in BACKGROUNDS:
            free = ~self._visible.any(axis=1)
            return free & self.attributes[:, column, None, None]
        has = self.object_attributes[..., column]
        masks: np.ndarray = (self._visible[:, :MAX_OBJECTS] & has[..., None, None]).any(axis=1)
        return masks

    def without(self, what: int | str | np.ndarray) -> np.ndarray:
        """Paint the images with something taken out and all else to the bit the same.

        Noise and background stay, and what the object hid is seen.

        Parameters
        ----------
        what : int, "hat", or bool ndarray of shape (n, 3)
            An object by its number (0 is the main one; its hat goes with it),
            the hat alone, or per image which objects.

        Returns
        -------
        ndarray of shape (n, 3, size, size), float32 in [0, 1]
            Unchanged where an image has no such object.

        Raises
        ------
        InputError
            A number beyond 2, another word, or a mask of another shape.

        Examples
        --------
        >>> scenes = load_scenes("test", 4, seed=0)
        >>> scenes.without(0).shape
        (4, 3, 64, 64)
        """
        drop = np.zeros((len(self), MAX_OBJECTS + 1), dtype=bool)
        if isinstance(what, str):
            if what != "hat":
                raise unknown_name("part of a scene", what, ["hat"], hint="Or an object's number.")
            drop[:, _render.HAT] = True
        elif isinstance(what, int | np.integer) and not isinstance(what, bool):
            if not 0 <= what < MAX_OBJECTS:
                raise InputError(
                    f"Objects have the numbers 0 to {MAX_OBJECTS - 1}, got {what}.",
                    code="CL-INPUT-RANGE",
                )
            drop[:, what] = True
        else:
            mask = np.asarray(what)
            if mask.shape != (len(self), MAX_OBJECTS) or mask.dtype != bool:
                raise InputError(
                    f"what must be an object's number, 'hat', or a bool array of shape "
                    f"{(len(self), MAX_OBJECTS)}, got {mask.dtype} of shape {mask.shape}.",
                    code="CL-INPUT-SHAPE",
                )
            drop[:, :MAX_OBJECTS] = mask
        return self._paint(drop).astype(np.float32) / np.float32(255)

    def without_attribute(self, name: str) -> np.ndarray:
        """Paint the images without the objects that have an attribute.

        Parameters
        ----------
        name : str
            A colour, shape, texture, size or position, or ``"hat"`` for the hat.

        Returns
        -------
        ndarray of shape (n, 3, size, size), float32 in [0, 1]
        """
        if name == "hat":
            return self.without("hat")
        if name not in ATTRIBUTE_NAMES or name in BACKGROUNDS:
            raise unknown_name(
                "removable attribute", name, [a for a in ATTRIBUTE_NAMES if a not in BACKGROUNDS]
            )
        return self.without(self.object_attributes[..., ATTRIBUTE_NAMES.index(name)])

    def _paint(self, drop: np.ndarray | None) -> np.ndarray:
        return _render.render(
            self.layout, self.size, self.noise, seed=self.seed, split=self.split, drop=drop
        )


def _with_hat(layers: np.ndarray) -> np.ndarray:
    masks = layers[:, :MAX_OBJECTS].copy()
    masks[:, 0] |= layers[:, _render.HAT]
    return masks


def load_scenes(
    split: str = "train",
    n: int = 1000,
    seed: int = 0,
    *,
    n_objects: int | tuple[int, int] = (1, 3),
    size: int = 64,
    noise: float = 0.03,
    occlusion: float = 0.3,
    background: str | Sequence[str] = "mixed",
    context_correlation: float = 0.0,
    species: str | Sequence[str | Species] | None = "default",
    hats: float = 0.0,
    combinations: str = "all",
    start: int = 0,
) -> Scenes:
    """Render a set of scenes of which everything is known.

    The label is the species of the main object: the largest, and the only one
    that can wear a hat. Alone it is small or large; beside others it is large
    and they are small. The others may be anything. Scene i depends on the
    split, the seed and i alone, so a longer set begins with the shorter one,
    and a knob changes nothing but what it names.

    Parameters
    ----------
    split : {"train", "val", "test"}
        Splits draw from streams of their own.
    n : int
        Number of scenes.
    seed : int
        Same seed, same bits.
    n_objects : int or (int, int)
        Least and largest number of objects, 1 to 3.
    size : int
        Side of the images in pixels, at least 16.
    noise : float
        Standard deviation of the pixel noise, in units of the full range.
    occlusion : float
        Probability that the circle about a further object cuts the main one's,
        before or behind it; the shapes themselves then overlap two times in three.
    background : "mixed", "plain", a name, or a list of names
        Of ``BACKGROUNDS``; mixed draws from all five, plain is an even grey.
    context_correlation : float
        Probability that a scene has its species' own background, whatever
        `background` says: 0 is none, 1 ties it to the class.
    species : "default", None, or a list of names or Species
        The classes. With None the main object is anything and ``y`` is -1.
    hats : float
        Probability that the main object wears a hat; a species' own share wins.
    combinations : {"all", "seen", "held_out"}
        Which triples of colour, shape and texture free objects have: those that
        the embedded encoder was trained on, or the 32 that it never saw.
    start : int
        Number of the first scene: long sets can be made in parts.

    Returns
    -------
    Scenes

    Raises
    ------
    InputError
        An argument that is out of range, or a name that does not exist.

    Examples
    --------
    >>> scenes = load_scenes("train", 8, seed=0)
    >>> scenes.images.shape, scenes.y.shape
    ((8, 3, 64, 64), (8,))
    >>> bool((scenes.images == load_scenes("train", 100, seed=0).images[:8]).all())
    True
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if combinations not in _COMBINATIONS:
        raise unknown_name("combinations", combinations, _COMBINATIONS)
    low, high = (n_objects, n_objects) if isinstance(n_objects, int) else tuple(n_objects)
    if not 1 <= low <= high <= MAX_OBJECTS:
        raise InputError(
            f"n_objects must be a number or a pair within 1 to {MAX_OBJECTS}, got {n_objects!r}.",
            code="CL-INPUT-RANGE",
        )
    Whole(1).check("n", n)
    Whole(0).check("start", start)
    Whole(16).check("size", size)
    for name, value in (
        ("noise", noise),
        ("occlusion", occlusion),
        ("context_correlation", context_correlation),
        ("hats", hats),
    ):
        Real(least=0, most=1).check(name, value)
    chosen = resolve_species(species)
    seed = draw_seed(seed)
    layout = draw_layout(
        seed,
        split,
        np.arange(start, start + n),
        n_objects=(low, high),
        species=chosen,
        backgrounds=_grounds(background),
        occlusion=occlusion,
        context_correlation=context_correlation,
        hats=hats,
        combinations=combinations,
    )
    return Scenes(layout, split=split, seed=seed, size=size, noise=noise, species=chosen)


def _grounds(background: str | Sequence[str]) -> tuple[int, ...]:
    if background == "mixed":
        return tuple(range(len(BACKGROUNDS)))
    names = [background] if isinstance(background, str) else list(background)
    if not names:
        raise InputError("background names no background.", code="CL-INPUT-EMPTY")
    options = ["mixed", "plain", *BACKGROUNDS]
    for name in names:
        if name != "plain" and name not in BACKGROUNDS:
            raise unknown_name("background", name, options)
    return tuple(-1 if name == "plain" else BACKGROUNDS.index(name) for name in names)
