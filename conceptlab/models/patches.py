"""Crops of images and the activations of each, made batch by batch.

What is factorised depends on how the images are cut, so each mode is an estimand
of its own:

``"grid"``
    The released code of CRAFT: squares of side `patch_size` on a regular grid of
    stride ``int(0.8 * patch_size)``, the rest at the right and lower edge dropped,
    each resized bilinearly to the full input. A row of A is one crop, averaged
    over the layer's positions.
``"random"``
    The paper (figure 4: random crops): `n_crops` squares of each image at seeded
    random places, resized in the same way. A row is one crop.
``"none"``
    No crops: the layer is computed once for each whole image and every position
    is a row. Far cheaper; a position sees its whole receptive field, and
    concepts are never shown enlarged. Tokens before the patches (class token)
    are rows as well, because they must be coded when the model is run from its
    coefficients.
"""

from __future__ import annotations

__all__ = ["INDEX_COLUMNS", "Patches", "Rows", "crop", "pooled_activations"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn import functional

from conceptlab.arrays import as_floats
from conceptlab.datasets.images import image_source
from conceptlab.datasets.sources import stack
from conceptlab.errors import InputError, unknown_name
from conceptlab.models.images import model_images
from conceptlab.models.joined import Joined
from conceptlab.models.positions import position_rows
from conceptlab.models.rows import INDEX_COLUMNS, Passes, Rows, Sink, automatic_batch
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint
from conceptlab.seeds import RandomState, draw_seed

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel
    from conceptlab.models.store import ActivationStore

MODES = ("grid", "random", "none")
POOLS = ("mean", "max")


@dataclass(frozen=True)
class Patches:
    """How images are cut.

    Parameters
    ----------
    mode : {"grid", "random", "none"}
        See the module's text; each is another estimand.
    patch_size : int, or (int, int) for random crops
        Side in pixels; two numbers are the least and the largest side.
    stride : int, optional
        Step of the grid; ``int(0.8 * patch_size)`` by default, as released.
    n_crops : int
        Random crops of each image.
    size : int or (int, int), optional
        (height, width) that crops are resized to; by default the size of the
        images.
    seed : int
        Seed of the random crops. The crops of an image depend on the seed and its
        number only.

    Raises
    ------
    InputError
        Unknown mode, or numbers out of range; later, a patch that is larger
        than an image.

    Examples
    --------
    >>> Patches("grid", patch_size=64).places(0, 224, 224).shape
    (16, 4)
    """

    mode: str = "grid"
    patch_size: int | tuple[int, int] = 64
    stride: int | None = None
    n_crops: int = 16
    size: int | tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("mode of patches", self.mode, MODES)
        low, high = self.sides
        if self.mode == "grid" and low != high:
            raise InputError(
                f"patch_size must be one number for the grid, got {self.patch_size}. Two numbers "
                "are the range of random crops: mode='random'.",
                code="CL-INPUT-OPTION",
            )
        values = {"patch_size": low, "n_crops": self.n_crops, "stride": self.step}
        for name, value in values.items():
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}.", code="CL-INPUT-RANGE")
        if high < low:
            raise InputError(
                f"patch_size=(least, largest) got {self.patch_size}.", code="CL-INPUT-RANGE"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Least and largest side."""
        size = self.patch_size
        return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) else (size, size)

    @property
    def step(self) -> int:
        """Step of the grid in pixels."""
        return self.stride if self.stride is not None else max(int(0.8 * self.sides[0]), 1)

    def places(self, number: int, height: int, width: int) -> np.ndarray:
        """List the crops of one image.

        Parameters
        ----------
        number : int
            Number of the image.
        height, width : int
            Its size in pixels.

        Returns
        -------
        numpy.ndarray of shape (n_crops, 4), int64
            Columns :data:`INDEX_COLUMNS`, top row first.
        """
        low, high = self.sides
        if low > min(height, width):
            raise InputError(
                f"patch_size={self.patch_size} is larger than image {number}, which is {height} x "
                f"{width} (height x width). Take a smaller patch_size, such as "
                f"{max(min(height, width) // 3, 1)}, or enlarge the images.",
                code="CL-INPUT-SHAPE",
            )
        if self.mode == "grid":
            ys = np.arange(0, height - low + 1, self.step)
            xs = np.arange(0, width - low + 1, self.step)
            y, x = (part.ravel() for part in np.meshgrid(ys, xs, indexing="ij"))
            side = np.full(len(y), low)
        else:
            draw = np.random.default_rng([self.seed, number])
            side = draw.integers(low, min(high, height, width) + 1, size=self.n_crops)
            y = draw.integers(0, height - side + 1)
            x = draw.integers(0, width - side + 1)
        return np.stack([np.full(len(y), number), y, x, side], axis=1).astype(np.int64)


def crop(images: Any, place: Any, *, context: float = 1.0) -> np.ndarray:
    """Cut one square out of its image, for display.

    Parameters
    ----------
    images : images, or an ImageSource
        As given to :func:`pooled_activations`.
    place : sequence of 4 int
        A row of the index; side 0 gives the whole image.
    context : float
        Enlarge the square by this factor about its centre; it stays inside the
        image.

    Returns
    -------
    numpy.ndarray of shape (3, h, w), float32 in [0, 1]

    Examples
    --------
    >>> crop(np.arange(48.0).reshape(1, 3, 4, 4), np.array([0, 1, 2, 2])).shape
    (3, 2, 2)
    """
    row = as_floats(place, "place")
    if row.shape != (4,):
        raise InputError(
            f"place must be four integers (image, y, x, side), got shape {row.shape}.",
            code="CL-INPUT-SHAPE",
        )
    number, y, x, side = (int(value) for value in row)
    source = image_source(images, value_range="any")
    if not 0 <= number < len(source):
        raise InputError(
            f"place names image {number}, and there are {len(source)}.", code="CL-INPUT-RANGE"
        )
    image = _read(source, number, number + 1)[0]
    height, width = image.shape[1:]
    if side <= 0:
        return np.asarray(image.numpy())
    wide = round(side * context)
    top = min(max(y - (wide - side) // 2, 0), max(height - wide, 0))
    left = min(max(x - (wide - side) // 2, 0), max(width - wide, 0))
    return image[:, top : top + wide, left : left + wide].numpy().copy()


def pooled_activations(
    split: SplitModel,
    images: Any,
    *,
    mode: str = "grid",
    patch_size: int | tuple[int, int] = 64,
    stride: int | None = None,
    n_crops: int = 16,
    size: int | tuple[int, int] | None = None,
    pool: str = "mean",
    batch_size: int | str = "auto",
    index: np.ndarray | None = None,
    first: int = 0,
    into: ActivationStore | None = None,
    random_state: RandomState = 0,
    progress: Progress = None,
) -> Rows:
    """Compute the activation matrix A of crops, batch by batch.

    Only one batch of crops and of unpooled activations exists at a time, so that
    memory does not grow with the number of images beyond A itself; with `into`
    a store on disk, not at all.

    Parameters
    ----------
    split : SplitModel
        The model, cut.
    images : images, ImageSource, Joined, or a dict of tensors (text, mode ``"none"``)
        Anything that :func:`conceptlab.datasets.images.image_source` opens;
        sizes may differ for crops when `size` is given. Crops take along what goes beside
        their image.
    mode : {"grid", "random", "none"}
        How images are cut; see the module's text.
    patch_size, stride, n_crops, size : optional
        As in :class:`Patches`.
    pool : {"mean", "max"}
        How the positions of a crop become one row. Not used by ``"none"``.
    batch_size : int or "auto"
        Crops in a pass. ``"auto"`` takes some 60 MB of a first layer's maps on a
        CPU, more on a GPU, and halves when memory runs out.
    index : numpy.ndarray of shape (n_rows, 4), optional
        These crops instead of new ones, such as rows of an earlier answer at
        another layer; `mode` is not used then.
    first : int
        Number of the first image, where these are a block of a larger set: random crops and
        the index are then those of the whole set. Not with `index`.
    into : ActivationStore, optional
        Where the rows go. A store that holds some rows of the same model, layer
        and images is continued.
    random_state : int, Generator or None
        For random crops.
    progress : bool or callable, optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    Rows
        ``rows, index``.

    Raises
    ------
    InputError
        An option that does not exist, a patch larger than an image, images of
        mixed size without `size`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from conceptlab.models import SplitModel
    >>> model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1176, 2))
    >>> split = SplitModel(model, at="1")
    >>> rows, index = pooled_activations(split, torch.rand(2, 3, 16, 16), patch_size=8)
    >>> rows.shape, index[1].tolist()
    ((8, 6), [0, 0, 6, 8])
    """
    if pool not in POOLS:
        raise unknown_name("pool", pool, POOLS)
    patches = Patches(mode, patch_size, stride, n_crops, size, draw_seed(random_state))
    sink = Sink(into)
    if mode == "none" and index is None:
        found_rows = position_rows(split, images, sink, batch_size, size, progress)
        found_rows.index[:, 0] += first
        return found_rows
    beside = images.beside if isinstance(images, Joined) else None
    source = model_images(images.images if isinstance(images, Joined) else images, split)
    if into is not None:
        into.bind(
            fingerprint(
                split.fingerprint,
                pool,
                repr(patches),
                None if index is None else np.asarray(index),
                source.digest(0, len(source)),
                *([] if beside is None else [beside.kwargs, *beside.args]),
                *([first] if first else []),
            )
        )
    shape = _target_size(source, size)
    step = automatic_batch(batch_size, shape, split.device)
    passes = Passes(split, batch_size)
    found: list[np.ndarray] = []
    jobs = _by_image(index, len(source))
    batch: list[torch.Tensor] = []
    owners: list[int] = []
    skip = sink.begin(step)

    def flush(count: int) -> None:
        crops: Any = torch.stack(batch[:count])
        if beside is not None:
            crops = Joined(crops, beside.rows(torch.tensor(owners[:count])))
        del batch[:count], owners[:count]
        sink.add(_pooled(passes, crops, pool))

    for number, given in track(
        jobs, description="compute activations", progress=progress, unit="image"
    ):
        image = _read(source, number, number + 1)[0]
        places = patches.places(number + first, *image.shape[1:]) if given is None else given
        found.append(places)
        fresh = places[min(skip, len(places)) :]
        skip -= len(places) - len(fresh)
        batch.extend(_resized(image, fresh, shape))
        owners.extend([number] * len(fresh))
        while len(batch) >= step:
            flush(step)
    if batch:
        flush(len(batch))
    return Rows(sink.finish(), np.concatenate(found) if found else np.empty((0, 4), np.int64))


def _pooled(passes: Passes, crops: Any, pool: str) -> torch.Tensor:
    positions = passes.split.to_positions(passes.g(crops))
    if positions.ndim == 2:
        return torch.as_tensor(positions)
    axes = tuple(range(1, positions.ndim - 1))
    return positions.mean(axes) if pool == "mean" else positions.amax(axes)


def _read(source: Any, start: int, stop: int) -> list[torch.Tensor]:
    items = source.read(start, stop)
    if isinstance(items, torch.Tensor):
        return list(items)
    return [stack([item])[0] for item in items]


def _by_image(index: np.ndarray | None, n: int) -> list[tuple[int, np.ndarray | None]]:
    if index is None:
        return [(number, None) for number in range(n)]
    index = np.asarray(index, dtype=np.int64)
    if index.ndim != 2 or index.shape[1] != len(INDEX_COLUMNS):
        raise InputError(
            f"index must have shape (n_rows, 4) with columns {INDEX_COLUMNS}, got {index.shape}.",
            code="CL-INPUT-SHAPE",
        )
    if len(index) and not 0 <= index[:, 0].min() <= index[:, 0].max() < n:
        raise InputError(
            f"index names images {index[:, 0].min()} to {index[:, 0].max()}, but there are {n}.",
            code="CL-INPUT-RANGE",
        )
    # Neighbouring rows of one image are cut at one reading; the order stays.
    cuts = np.flatnonzero(np.diff(index[:, 0])) + 1
    return [(int(part[0, 0]), part) for part in np.split(index, cuts) if len(part)]


def _resized(image: torch.Tensor, places: np.ndarray, shape: tuple[int, int]) -> list[torch.Tensor]:
    """Cut and enlarge; crops of one side in one call."""
    if not len(places):
        return []
    cuts = [image[:, y : y + side, x : x + side] if side > 0 else image for _, y, x, side in places]
    if len({tuple(cut.shape) for cut in cuts}) == 1:
        return list(_enlarged(torch.stack(cuts), shape))
    return [_enlarged(cut[None], shape)[0] for cut in cuts]


def _enlarged(crops: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    if tuple(crops.shape[-2:]) == shape:
        return crops
    return functional.interpolate(crops, size=shape, mode="bilinear", align_corners=False)


def _target_size(source: Any, size: int | tuple[int, int] | None) -> tuple[int, int]:
    if size is not None:
        pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(pair) < 1:
            raise InputError(f"size must be at least 1, got {size}.", code="CL-INPUT-RANGE")
        return pair
    first = source.read(0, min(2, len(source)))
    if isinstance(first, torch.Tensor):
        return int(first.shape[2]), int(first.shape[3])
    shapes = {tuple(image.shape[1:]) for image in _read(source, 0, len(source))}
    if len(shapes) > 1:
        raise InputError(
            f"Images of different sizes ({', '.join(map(str, sorted(shapes)[:3]))}, ...) need the "
            "size of the model's input: size=224.",
            code="CL-INPUT-SHAPE",
        )
    return cast(tuple[int, int], next(iter(shapes)))
