"""The vocabulary of the rendered world: attribute families, species, combinations.

A scene holds one to three objects in front of a background. An object has a
colour, a shape and a texture (256 combinations), a size and a place. A
*species* is a class of scenes whose main object carries one combination.
"""

from __future__ import annotations

__all__ = [
    "ATTRIBUTE_NAMES",
    "BACKGROUNDS",
    "COLOURS",
    "COMBINATIONS",
    "FAMILIES",
    "HELD_OUT",
    "POSITIONS",
    "SHAPES",
    "SIZES",
    "SPECIES",
    "TEXTURES",
    "Species",
    "resolve_species",
]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conceptlab.errors import InputError, unknown_name

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = ("small", "large")
POSITIONS = ("left", "centre", "right")
BACKGROUNDS = ("sky", "grass", "sand", "night", "snow")

FAMILIES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "texture": TEXTURES,
    "size": SIZES,
    "position": POSITIONS,
    "background": BACKGROUNDS,
    "accessory": ("hat",),
}
"""Every attribute family with its values, in the order of ``ATTRIBUTE_NAMES``."""

ATTRIBUTE_NAMES: tuple[str, ...] = tuple(v for values in FAMILIES.values() for v in values)
"""All attributes: the columns of every attribute matrix."""

COMBINATIONS: np.ndarray = np.stack(
    np.meshgrid(np.arange(8), np.arange(8), np.arange(4), indexing="ij"), axis=-1
).reshape(-1, 3)
"""All (colour, shape, texture) triples as indices, (256, 3) int64."""

HELD_OUT: np.ndarray = (COMBINATIONS @ np.array([1, 3, 2])) % 8 == 0
"""Which triples the embedded encoder never sees in training, (256,) bool: 32 of
them, with every colour and shape in four and every texture in eight."""


@dataclass(frozen=True)
class Species:
    """A class of scenes, defined by its main object.

    Attributes
    ----------
    name : str
        Class name.
    colour, shape, texture : str
        The signature: every image of the class has these three.
    background : str
        Where it lives when ``context_correlation`` is above 0.
    hats : float or None
        Share of the class that wears a hat; None follows ``load_scenes``.

    Examples
    --------
    >>> SPECIES[0].signature
    'red striped circle'
    """

    name: str
    colour: str
    shape: str
    texture: str
    background: str = "grass"
    hats: float | None = None

    def __post_init__(self) -> None:
        for family in ("colour", "shape", "texture", "background"):
            value = getattr(self, family)
            if value not in FAMILIES[family]:
                raise unknown_name(family, value, FAMILIES[family])
        if self.hats is not None and not 0 <= self.hats <= 1:
            raise InputError(
                f"hats of species {self.name!r} is a share in [0, 1], got {self.hats}.",
                code="CL-INPUT-RANGE",
            )

    @property
    def attributes(self) -> tuple[str, str, str]:
        """The three attributes that define the class."""
        return self.colour, self.shape, self.texture

    @property
    def signature(self) -> str:
        """Words for the main object, such as ``"red striped circle"``."""
        return f"{self.colour} {self.texture} {self.shape}"


# The first eight form a cube: to know the species one must know its colour and
# its shape and its texture, since each face is shared by four of them. The last
# two share their colour and have a shape and a texture of their own.
SPECIES: tuple[Species, ...] = (
    Species("arvo", "red", "circle", "striped", "sky"),
    Species("belu", "red", "circle", "dotted", "grass"),
    Species("cindo", "red", "star", "striped", "sand"),
    Species("dorla", "red", "star", "dotted", "night"),
    Species("embo", "blue", "circle", "striped", "snow"),
    Species("fyra", "blue", "circle", "dotted", "sky"),
    Species("gondo", "blue", "star", "striped", "grass"),
    Species("hesta", "blue", "star", "dotted", "sand"),
    Species("ilko", "yellow", "heart", "checked", "night"),
    Species("jura", "yellow", "cross", "plain", "snow"),
)
"""The ten default species."""


def resolve_species(species: object) -> tuple[Species, ...]:
    """Give the species that the user's argument stands for.

    Parameters
    ----------
    species : "default", None, or sequence of str or Species
        The ten default ones, none, or a choice of them in that order.

    Returns
    -------
    tuple of Species
        Empty for None.

    Raises
    ------
    InputError
        Unknown names, names twice, or an empty sequence.
    """
    if species is None:
        return ()
    if isinstance(species, str):
        if species != "default":
            raise unknown_name("species", species, ["default"], hint="A list of names works too.")
        return SPECIES
    if not isinstance(species, Sequence) or not len(species):
        raise InputError(
            "species must be 'default', None, or a non-empty list of names or Species, "
            f"got {species!r}.",
            code="CL-INPUT-TYPE",
        )
    known = {s.name: s for s in SPECIES}
    chosen = []
    for item in species:
        if isinstance(item, Species):
            chosen.append(item)
        elif item in known:
            chosen.append(known[item])
        else:
            raise unknown_name("species", item, known)
    if len({s.name for s in chosen}) < len(chosen):
        raise InputError(
            f"Species names must differ, got {[s.name for s in chosen]}.", code="CL-INPUT-NAMES"
        )
    return tuple(chosen)
