"""Images by rank: each process reads its own block of a set, in batches, any number of times."""

from __future__ import annotations

__all__ = ["Shards"]

import functools
import glob
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from conceptlab.datasets.folder import IMAGE_SUFFIXES
from conceptlab.datasets.images import image_source
from conceptlab.datasets.pictures import PICTURE_LIMIT, ImageFile
from conceptlab.datasets.sources import Images, ImageSource, ValueRange
from conceptlab.distributed.world import ALONE, World
from conceptlab.errors import InputError
from conceptlab.io.reading import read_span
from conceptlab.parameters import Whole

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Shards:
    """The part of a set of images that falls to this process, in batches.

    A set is cut into batches first, and each rank gets a block of whole batches, in order: so
    the batches, and what a model answers to them, do not depend on the number of ranks.

    Parameters
    ----------
    images : folder, tar shards, data set, loader, array, or what :func:`as_image_batch` takes
        Shards are one path that ends in ``.tar``, with ``{000..127}`` for many or ``*``, or a
        list of such paths; they are read by place, as webdataset writes them. Of a
        ``DataLoader`` without shuffling the data set is read.
    batch_size : int, default=64
        Images in a batch.
    world : World
        From :func:`init`; by default a world of one, which reads all.
    size : int or (int, int), optional
        Height and width that images are scaled and cropped to.
    value_range : {"unit", "any"}
        As for :func:`as_image_batch`.

    Attributes
    ----------
    n : int
        Images of all ranks.
    block : range
        Numbers of this rank's images.
    source : ImageSource
        This rank's images by place, counted from 0.

    Raises
    ------
    InputError
        ``CL-INPUT-TYPE`` for what can be read once or in no order; ``CL-INPUT-FILE`` for a tar
        file that is missing or ends early; ``CL-INPUT-OPTION`` where ranks see other sets.

    Examples
    --------
    >>> images = torch.arange(10.0).reshape(10, 1, 1, 1).expand(10, 3, 2, 2) / 10
    >>> shards = Shards(images, batch_size=4)
    >>> [len(batch) for batch in shards], shards.block
    ([4, 4, 2], range(0, 10))
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int = 64,
        world: World = ALONE,
        size: int | tuple[int, int] | None = None,
        value_range: ValueRange = "unit",
    ) -> None:
        self.batch_size = Whole(1).check("batch_size", batch_size)
        self.world, self.size = world, size
        self._clip = value_range == "unit"
        whole = image_source(_by_place(images), value_range=value_range)
        self.n = world.agree("The number of images", len(whole))
        batches = world.share(-(-self.n // self.batch_size))
        first, last = (min(i * self.batch_size, self.n) for i in (batches.start, batches.stop))
        self.block = range(first, last)
        self.source = _part(whole, self.block)

    def __len__(self) -> int:
        """Give the number of this rank's images."""
        return len(self.block)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield this rank's batches (m, 3, h, w), float32."""
        for start in range(0, len(self), self.batch_size):
            stop = min(start + self.batch_size, len(self))
            yield _part(self.source, range(start, stop)).batch(self.size, clip=self._clip)

    def __repr__(self) -> str:
        return (
            f"Shards({len(self)} of {self.n} images, rank {self.world.rank} of {self.world.size}, "
            f"batch_size={self.batch_size})"
        )


def _part(whole: ImageSource, block: range) -> ImageSource:
    """Give the images of a block, counted from 0."""
    return ImageSource(
        len(block),
        lambda indices: whole.take(_shifted(indices, block.start)),
        lambda start, stop: whole.digests(block.start + start, block.start + min(stop, len(block))),
        whole.kind,
    )


def _shifted(indices: Sequence[int], by: int) -> Sequence[int]:
    if isinstance(indices, range):
        return range(indices.start + by, indices.stop + by, indices.step)
    return [i + by for i in indices]


def _by_place(images: Any) -> Any:
    """Turn loaders and tar shards into what can be read by place; others stay."""
    if isinstance(images, DataLoader):
        if isinstance(images.dataset, IterableDataset):
            raise _once("a DataLoader over an IterableDataset")
        if not isinstance(images.sampler, SequentialSampler):
            raise InputError(
                "The DataLoader deals its samples by a sampler, so that each pass has another "
                "order, or leaves some out. Make it without shuffle=True and without a sampler: "
                "the ranks are dealt here.",
                code="CL-INPUT-TYPE",
            )
        return images.dataset
    if isinstance(images, IterableDataset):
        raise _once("an IterableDataset")
    if isinstance(images, Iterator):
        raise _once("a generator")
    listed = [images] if isinstance(images, str | os.PathLike) else images
    if isinstance(listed, list | tuple) and listed and all(map(_is_tar, listed)):
        paths = [path for pattern in listed for path in _expand(os.fspath(pattern))]
        return [file for path in paths for file in _members(path)]
    return images


def _once(what: str) -> InputError:
    return InputError(
        f"Images cannot be read by place from {what}, which gives them in one order. Give the "
        "files: a folder, tar shards ('photos-{000..127}.tar'), or a data set with __getitem__ "
        "and __len__.",
        code="CL-INPUT-TYPE",
    )


def _is_tar(path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).endswith(".tar")


def _expand(pattern: str) -> list[str]:
    """List the files that a pattern with {000..127} or * stands for."""
    found = _BRACES.search(pattern)
    if found:
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        names = [
            pattern[: found.start()] + str(i).zfill(len(first)) + pattern[found.end() :]
            for i in numbers
        ]
        return [path for name in names for path in _expand(name)]
    if any(c in pattern for c in "*?[") and not os.path.exists(pattern):
        paths = sorted(glob.glob(pattern))
        if not paths:
            raise InputError(f"No file fits {pattern!r}.", code="CL-INPUT-FILE")
        return paths
    return [pattern]


def _members(path: str) -> list[ImageFile]:
    """List the pictures of a tar file; only its headers are read."""
    try:
        whole = not any(read_span(path, -1024, 1024))
        with tarfile.open(path, "r:") as archive:
            members = [m for m in archive.getmembers() if m.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"Cannot read the shard {path!r}: {error}. Check the path, or make it again.",
            code="CL-INPUT-FILE",
        ) from error
    if not whole:
        raise InputError(
            f"The shard {path!r} ends early: a tar file ends with 1024 zeros. It was truncated; "
            "make or copy it again.",
            code="CL-INPUT-FILE",
        )
    return [
        ImageFile(f"{path}/{m.name}", functools.partial(_read_at, path, m.offset_data, m.size))
        for m in members
        if Path(m.name).suffix.lower() in IMAGE_SUFFIXES
    ]


def _read_at(path: str, offset: int, size: int) -> bytes:
    if size > PICTURE_LIMIT:
        raise InputError(
            f"A picture in {path!r} is said to have {size} bytes; {PICTURE_LIMIT} are the most.",
            code="CL-INPUT-FILE",
        )
    return read_span(path, offset, size)
