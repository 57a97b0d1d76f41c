"""Rendered scenes, of which the true removals are known."""

from __future__ import annotations

__all__ = ["SceneRemovals"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from conceptlab.datasets.scenes import Scenes, load_scenes
from conceptlab.datasets.world import ATTRIBUTE_NAMES, BACKGROUNDS, FAMILIES
from conceptlab.errors import InputError, unknown_name
from conceptlab.seeds import RandomState, draw_seed
from unlearning.removal.datasets.base import RemovalDataset

_REMOVABLE = tuple(name for family in ("shape", "colour", "texture") for name in FAMILIES[family])
_CHUNK = 2000
_LIMIT = 400_000
_COMPARISON = 1_000_000_000  # numbers of images without the class start here


class SceneRemovals(RemovalDataset):
    """Scenes with objects of a class, the same scenes without them, and others without.

    The comparison set is made by the same process: other scenes whose objects of the
    class were never drawn. So the true removals and the comparison set are two samples of
    one law, unless `context_shift` says otherwise.

    Parameters
    ----------
    classes : sequence of str
        Shapes, colours or textures; an object is of the class when it has it.
    n : int
        Images with each class.
    n_comparison : int, optional
        Images without; as many as with by default.
    context_shift : float
        In [0, 0.5): night is the background with probability 0.5 + shift in images with
        the class and 0.5 - shift in those without, sand otherwise. None mixes all five
        backgrounds alike.
    min_area : float
        Least share of the picture that the objects of the class cover, or would cover.
    size : int
        Side in pixels.
    random_state : int, RandomState, Generator or None
        Which scenes.
    **options
        Of :func:`conceptlab.datasets.load_scenes`, such as ``noise``.

    Examples
    --------
    >>> data = SceneRemovals(("star",), n=20, random_state=0)
    >>> ids = data.with_class("star")
    >>> data.images(ids).shape, data.masks("star", ids).shape
    (torch.Size([20, 3, 64, 64]), (20, 1, 64, 64))
    """

    has_truth = True

    def __init__(
        self,
        classes: Sequence[str] = ("circle", "red"),
        n: int = 600,
        *,
        n_comparison: int | None = None,
        context_shift: float | None = None,
        min_area: float = 0.01,
        size: int = 64,
        random_state: RandomState = 0,
        **options: Any,
    ) -> None:
        names = (classes,) if isinstance(classes, str) else tuple(classes)
        for name in names:
            if name not in _REMOVABLE:
                raise unknown_name("class of scenes", name, _REMOVABLE)
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"classes must be different names, got {list(names)}.", code="CL-INPUT-NAMES"
            )
        if n < 2 or (n_comparison is not None and n_comparison < 2):
            raise InputError(f"n must be at least 2, got {n}.", code="CL-INPUT-FEW")
        if context_shift is not None and not 0 <= context_shift < 0.5:
            raise InputError(
                f"context_shift must lie in [0, 0.5), got {context_shift}.", code="CL-INPUT-RANGE"
            )
        self.name = "scenes"
        self.class_names = names
        self.size = (size, size)
        self.concepts = tuple(a for a in ATTRIBUTE_NAMES if a not in ("hat", *FAMILIES["position"]))
        self.n, self.n_comparison = n, n if n_comparison is None else n_comparison
        self.context_shift, self.min_area = context_shift, min_area
        self.seed = draw_seed(random_state)
        self.options = options
        self._parts: dict[tuple[str, bool], Scenes] = {}

    def with_class(self, name: str, *, min_area: float = 0.0, max_area: float = 1.0) -> np.ndarray:
        """Give the images that hold the class within these shares of the area, (n,) int64."""
        share = self._part(name, False).attribute_masks(name).mean(axis=(1, 2))
        rows = np.flatnonzero((share >= max(min_area, 1e-9)) & (share <= max_area))
        return rows + self._offset(name)

    def without_class(self, name: str) -> np.ndarray:
        """Give the images without any instance of the class, (n,) int64."""
        self.check_class(name)
        return np.arange(self.n_comparison) + self._offset(name) + _COMPARISON

    def images(self, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Render images, (n, 3, H, W) float32 in [0, 1]."""
        found = [self._one(int(i)) for i in ids]
        order = np.arange(len(found))
        out = torch.empty(len(found), 3, *self.size)
        for key in dict.fromkeys(key for key, _ in found):
            at = order[[key == k for k, _ in found]]
            part = self._part(*key)[np.array([found[i][1] for i in at])]
            # In the comparison set the class was never drawn.
            pixels = part.without_attribute(key[0]) if key[1] else part.images
            out[torch.from_numpy(at)] = torch.from_numpy(pixels)
        return out

    def masks(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Give the visible parts of all objects of the class, (n, 1, H, W) bool."""
        rows = np.array([self._one(int(i))[1] for i in ids], dtype=np.int64)
        return self._part(name, False)[rows].attribute_masks(name)[:, None]

    def truth(self, name: str, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Render the same scenes without the class, (n, 3, H, W) float32 in [0, 1]."""
        rows = np.array([self._one(int(i))[1] for i in ids], dtype=np.int64)
        return torch.from_numpy(self._part(name, False)[rows].without_attribute(name))

    def places(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Give the visible parts of the objects that were never drawn, (n, 1, H, W) bool."""
        rows = np.array([self._one(int(i))[1] for i in ids], dtype=np.int64)
        return self._part(name, True)[rows].attribute_masks(name)[:, None]

    def prompts(self, name: str) -> list[str]:
        """Give the words of the scenes' captions for the class."""
        self.check_class(name)
        return [f"a {name}"] if name in FAMILIES["shape"] else [name]

    def label(self, index: int) -> str:
        """Name a scene."""
        (name, comparison), row = self._one(int(index))
        return f"{'without' if comparison else 'with'} {name} {row}"

    def _offset(self, name: str) -> int:
        self.check_class(name)
        return self.class_names.index(name) * 10_000_000

    def _one(self, index: int) -> tuple[tuple[str, bool], int]:
        comparison, rest = divmod(index, _COMPARISON)
        number, row = divmod(rest, 10_000_000)
        return (self.class_names[number], bool(comparison)), row

    def _part(self, name: str, comparison: bool) -> Scenes:
        self.check_class(name)
        key = (name, comparison)
        if key not in self._parts:
            self._parts[key] = self._draw(name, comparison)
        return self._parts[key]

    def _draw(self, name: str, comparison: bool) -> Scenes:
        wanted = self.n_comparison if comparison else self.n
        options: dict[str, Any] = {"species": None, "size": self.size[0], **self.options}
        if self.context_shift is not None:
            share = round(100 * (0.5 + self.context_shift * (-1 if comparison else 1)))
            options["background"] = [BACKGROUNDS[3]] * share + [BACKGROUNDS[2]] * (100 - share)
        # Two splits are two streams of scenes that never meet.
        split = "val" if comparison else "test"
        column = ATTRIBUTE_NAMES.index(name)
        found: list[int] = []
        start = 0
        while len(found) < wanted and start < _LIMIT:
            part = load_scenes(split, _CHUNK, self.seed, start=start, **options)
            has = part.object_attributes[..., column].any(axis=1)
            rows = np.flatnonzero(has)
            share = part[rows].attribute_masks(name).mean(axis=(1, 2))
            kept = (share > 0) & (share >= self.min_area)
            found += (rows[kept] + start).tolist()
            start += _CHUNK
        if len(found) < wanted:
            raise InputError(
                f"Only {len(found)} of {_LIMIT} scenes hold {name!r}; {wanted} were asked for.",
                code="CL-INPUT-FEW",
            )
        whole = load_scenes(split, start, self.seed, **options)
        return whole[np.array(found[:wanted])]
