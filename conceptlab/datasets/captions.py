"""Words for scenes, and the claims that the words make.

A caption is made in two steps. First come its *claims*: for up to three objects
the attribute values that it states, -1 where it is silent. Then the claims are
put into words. So it is known of any caption whether it is true of any scene.
"""

from __future__ import annotations

__all__ = ["CLAIM_FAMILIES", "claims_hold", "draw_claims", "full_claims", "word"]

import numpy as np

from conceptlab.datasets.layout import MAX_OBJECTS, Layout
from conceptlab.datasets.world import FAMILIES

CLAIM_FAMILIES = ("colour", "shape", "texture", "size", "position", "hat", "background")
_COLOUR, _SHAPE, _TEXTURE, _SIZE, _POSITION, _HAT, _BACKGROUND = range(7)

FRAMES = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "{}",
    "there is {}",
    "this is {}",
    "a rendering of {}",
)
NOUNS = ("object", "thing", "shape")
WORDS: dict[str, tuple[str, ...]] = {
    "cyan": ("cyan", "cyan", "turquoise"),
    "purple": ("purple", "purple", "violet"),
    "red": ("red", "red", "scarlet"),
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "cross": ("cross", "cross", "plus sign"),
    "ring": ("ring", "ring", "hoop"),
    "crescent": ("crescent", "crescent", "moon"),
    "plain": ("plain", "plain", "solid"),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "dotted", "spotted"),
    "checked": ("checked", "checked", "chequered"),
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big"),
}
PLACES = {
    "left": ("on the left", "on the left", "at the left"),
    "centre": ("in the centre", "in the middle", "in the centre"),
    "right": ("on the right", "on the right", "at the right"),
}
GROUNDS = {
    "sky": ("in the sky", "against the sky", "in front of clouds"),
    "grass": ("on grass", "on the grass", "on a lawn"),
    "sand": ("on sand", "on the sand", "on a beach"),
    "night": ("at night", "in the night", "in front of stars"),
    "snow": ("on snow", "in the snow", "in front of snow"),
}
_FAMILY_NAMES = ("colour", "shape", "texture", "size", "position", "accessory", "background")


def full_claims(layout: Layout) -> np.ndarray:
    """State everything: every object, and the background.

    Returns
    -------
    ndarray of shape (n, 3, 7), int8
        Indices of values by object and ``CLAIM_FAMILIES``; the hat is 1 or not
        stated (-1), the background stands with the first object; rows of absent
        objects are -1.
    """
    objects = layout.objects
    claims = np.full((*objects.shape, len(CLAIM_FAMILIES)), -1, dtype=np.int8)
    for column, family in enumerate(CLAIM_FAMILIES[:_HAT]):
        claims[..., column] = np.where(objects["present"], objects[family], -1)
    claims[..., _HAT] = np.where(objects["hat"], 1, -1)
    claims[:, 0, _BACKGROUND] = layout.background
    return claims


def draw_claims(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """State a random part of the truth, at least one thing of each scene.

    Every third caption or so states a single attribute; further objects are
    mentioned in about half of the others.
    """
    claims = full_claims(layout)
    n = len(claims)
    without_hat = rng.random(n) < 0.5  # say "without a hat" as often as "with"
    hat = layout.objects["hat"][:, 0]
    claims[:, 0, _HAT] = np.where(hat, 1, np.where(without_hat, 0, -1))
    keep = rng.random(claims.shape) < rng.choice([0.3, 0.6, 0.9], size=n)[:, None, None]
    mention = rng.random((n, MAX_OBJECTS)) < 0.5
    mention[:, 0] = True
    keep &= mention[..., None]
    keep[:, 1:, _POSITION] = False
    single = rng.random(n) < 0.35
    keep[single] = False
    # A scene can be silent only where nothing is left of it: then, as with the
    # single statements, one thing that holds of the main object is said.
    empty = ~np.any(keep & (claims >= 0), axis=(1, 2))
    chances = rng.random((n, len(CLAIM_FAMILIES))) * (claims[:, 0] >= 0)
    keep[np.flatnonzero(empty), 0, np.argmax(chances, axis=1)[empty]] = True
    return np.where(keep, claims, np.int8(-1))


def claims_hold(claims: np.ndarray, layout: Layout) -> np.ndarray:
    """Tell which caption is true of which scene.

    Parameters
    ----------
    claims : ndarray of shape (m, 3, 7)
        From :func:`full_claims` or :func:`draw_claims`.
    layout : Layout
        n scenes.

    Returns
    -------
    ndarray of shape (m, n), bool
        Each stated object is found in the scene (two statements may be met by
        the same object), and the background is the stated one.
    """
    objects = layout.objects
    facts = np.stack([objects[family] for family in CLAIM_FAMILIES[:_BACKGROUND]], axis=-1)
    holds = np.ones((len(claims), len(objects)), dtype=bool)
    for j in range(MAX_OBJECTS):
        some = np.zeros_like(holds)
        for k in range(MAX_OBJECTS):
            match = np.broadcast_to(objects["present"][:, k], holds.shape).copy()
            for column in range(_BACKGROUND):
                stated = claims[:, j, column]
                match &= (stated < 0)[:, None] | (stated[:, None] == facts[:, k, column])
            some |= match
        silent = np.all(claims[:, j, :_BACKGROUND] < 0, axis=1)
        holds &= some | silent[:, None]
    ground = claims[:, 0, _BACKGROUND]
    holds &= (ground < 0)[:, None] | (ground[:, None] == layout.background)
    return holds


def word(claims: np.ndarray, choice: np.ndarray | None = None) -> list[str]:
    """Put claims into words.

    Parameters
    ----------
    claims : ndarray of shape (n, 3, 7)
    choice : ndarray of shape (n,) of uniforms in [0, 1), optional
        Draws frame, order and synonyms; without it the plain words are used in
        the frame "a photo of ...".

    Returns
    -------
    list of str
    """
    captions = []
    for i, rows in enumerate(claims):
        if choice is None:
            captions.append(FRAMES[0].format(_scene(rows, None)))
            continue
        rng = np.random.default_rng(int(choice[i] * 2**53))
        bare = np.sum(rows >= 0) == 1 and rng.random() < 0.3
        if bare:
            captions.append(_bare(rows))
        else:
            frame = FRAMES[min(int(rng.random() ** 2 * len(FRAMES)), len(FRAMES) - 1)]
            captions.append(frame.format(_scene(rows, rng)))
    return captions


def _bare(rows: np.ndarray) -> str:
    """Name the only claim: "red", "striped", "grass", "hat"."""
    _, column = np.argwhere(rows >= 0)[0]
    value = rows[rows >= 0][0]
    if column == _HAT:
        return "hat" if value else "no hat"
    return FAMILIES[_FAMILY_NAMES[column]][value]


def _pick(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return options[0] if rng is None else options[int(rng.random() * len(options))]


def _value(row: np.ndarray, column: int) -> str | None:
    return FAMILIES[_FAMILY_NAMES[column]][row[column]] if row[column] >= 0 else None


def _scene(rows: np.ndarray, rng: np.random.Generator | None) -> str:
    stated = [row for row in rows if np.any(row[:_BACKGROUND] >= 0)]
    phrases = [_object(row, rng) for row in stated] or ["an " + _pick(NOUNS[:1], rng)]
    if rng is None and len(phrases) > 2:
        text = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    else:
        text = " and ".join(phrases)
    ground = _value(rows[0], _BACKGROUND)
    if ground is None:
        return text
    if rng is not None and rng.random() < 0.15:
        return f"{text} with a {ground} background"
    return f"{text} {_pick(GROUNDS[ground], rng)}"


def _object(row: np.ndarray, rng: np.random.Generator | None) -> str:
    words = []
    for column in (_SIZE, _COLOUR, _TEXTURE):
        value = _value(row, column)
        if value is not None:
            words.append(_pick(WORDS.get(value, (value,)), rng))
    if rng is not None and len(words) > 1 and rng.random() < 0.3:
        words = words[1:] + words[:1]
    shape = _value(row, _SHAPE)
    words.append(_pick(WORDS.get(shape, (shape,)) if shape else NOUNS, rng))
    text = ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)
    if row[_HAT] >= 0:
        text += " with a hat" if row[_HAT] else " without a hat"
    place = _value(row, _POSITION)
    if place is not None:
        text += " " + _pick(PLACES[place], rng)
    return text
