"""How images are read and checked: one, a few, or a batch of them.

What an item is (a file, a picture, an array) is decided once, when it is taken.
Nothing is guessed in silence. An array whose axes look like height, width,
channels is refused with the permutation that mends it, and so are alpha
channels, bytes stored as floats, and values below zero.
"""

from __future__ import annotations

__all__ = ["ImageSource", "Images", "ValueRange", "as_fit", "open_source", "stack", "to_unit"]

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from conceptlab.arrays import ArrayKind, ArrayLike, check_finite
from conceptlab.datasets.pictures import ImageFile, as_rgb, file_bytes, is_pil, upright
from conceptlab.datasets.resize import Fit
from conceptlab.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Images = Any
"""Array or tensor (n, 3, h, w) or (3, h, w); PIL image or path; a sequence or
data set of such; a folder; or an object with ``.images``."""

ValueRange = Literal["unit", "any"]
_SLACK = 1e-4  # resampled images overshoot a little


class ImageSource:
    """Images by position, read and checked when asked for.

    Made by :func:`image_source`.

    Parameters
    ----------
    n : int
        Number of images.
    take : callable
        ``take(indices)`` gives a checked float tensor (n, 3, h, w), or a list
        of RGB PIL images and float tensors (3, h, w) of any sizes.
    digests : callable
        ``digests(start, stop)`` gives the sha256 of each image's content.
    kind : ArrayKind, optional
        What kind of array answers about the images should be: the tensors'
        own, else NumPy in float64 for float64 and in float32 otherwise.
    """

    def __init__(
        self,
        n: int,
        take: Callable[[Sequence[int]], torch.Tensor | list[Image | torch.Tensor]],
        digests: Callable[[int, int], list[bytes]],
        kind: ArrayKind | None = None,
    ) -> None:
        self._n, self.take, self.digests = n, take, digests
        self.kind = kind or ArrayKind(False, torch.float32, torch.device("cpu"))

    def read(self, start: int, stop: int) -> torch.Tensor | list[Image | torch.Tensor]:
        """Take the images from `start` to before `stop`."""
        return self.take(range(start, min(stop, self._n)))

    def digest(self, start: int, stop: int) -> str:
        """Give one sha256 for the content of the images from `start` to before `stop`."""
        return hashlib.sha256(b"".join(self.digests(start, min(stop, self._n)))).hexdigest()

    def batch(
        self,
        size: int | tuple[int, int] | None = None,
        *,
        device: torch.device | str | None = None,
        clip: bool = True,
    ) -> torch.Tensor:
        """Give all images as one float32 tensor (n, 3, h, w), scaled and cropped to `size`."""
        fit = None if size is None else as_fit(size)
        return stack(self.read(0, self._n), fit, device=device, clip=clip)

    def __len__(self) -> int:
        return self._n


def open_source(
    images: Images,
    *,
    value_range: ValueRange = "unit",
    channels_last: bool = False,
    channels: int = 3,
) -> ImageSource:
    """Open everything but folders, archives and single paths; see :func:`image_source`."""
    options = _Options(value_range, channels_last, channels)
    source = _opened(images, options)
    if channels == 3:
        return source

    def take(indices: Sequence[int]) -> torch.Tensor | list[Image | torch.Tensor]:
        found = source.take(indices)
        if isinstance(found, torch.Tensor):
            return _of_channels(found, channels)
        return [_of_channels(stack([item])[0], channels) for item in found]

    return ImageSource(len(source), take, source.digests, source.kind)


def _of_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Take one channel of grey images (..., 3, h, w) for a model of one; others stay."""
    if channels == 1 and torch.equal(images[..., :1, :, :].expand_as(images), images):
        return images[..., :1, :, :]
    return images


@dataclass(frozen=True)
class _Options:
    value_range: ValueRange
    channels_last: bool
    channels: int = 3


def _opened(images: Images, options: _Options) -> ImageSource:
    files = getattr(images, "files", None)
    if isinstance(files, list) and all(isinstance(file, ImageFile) for file in files[:1]):
        if getattr(images, "size", None) is not None:
            return _from_files(files, as_fit(images.size))
        images = files
    elif _holds_images(images):
        images = images.images
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUS":
        images = images.ravel().tolist()
    if isinstance(images, ImageFile) or is_pil(images):
        images = [images]
    if isinstance(images, np.ndarray | torch.Tensor):
        return _from_batch(images, options)
    if hasattr(images, "__array__") and not hasattr(images, "__getitem__"):
        return _from_batch(np.asarray(images), options)
    return _from_items(images, options)


def _holds_images(given: Any) -> bool:
    """Tell what stands for its ``.images`` from a data set, whose items are what it gives."""
    if isinstance(given, np.ndarray | torch.Tensor | Dataset):
        return False
    transformed = any(
        getattr(given, name, None) is not None for name in ("transform", "transforms")
    )
    return hasattr(given, "images") and not (transformed and hasattr(given, "__getitem__"))


def as_fit(size: int | tuple[int, int]) -> Fit:
    """Give the plan that scales and crops images to `size`, a side or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return Fit(height, width)


def _from_files(files: Sequence[ImageFile], fit: Fit) -> ImageSource:
    def take(indices: Sequence[int]) -> list[Image | torch.Tensor]:
        return [fit.pil(files[i].open()) for i in indices]

    def digests(start: int, stop: int) -> list[bytes]:
        return [
            hashlib.sha256(prefix + file.read()).digest()
            for file in files[start : min(stop, len(files))]
        ]

    prefix = f"files:{fit}:".encode()
    return ImageSource(len(files), take, digests)


def stack(
    items: torch.Tensor | np.ndarray | list[Image | torch.Tensor],
    fit: Fit | None = None,
    *,
    device: torch.device | str | None = None,
    clip: bool = True,
) -> torch.Tensor:
    """Fit what an :class:`ImageSource` has read, and stack it to (n, 3, h, w) in float32.

    `device` is where tensors are resized and where the answer lives; pictures
    travel there as bytes.
    """
    if items is None or isinstance(items, str | Mapping):
        raise _type_error(items)
    if isinstance(items, np.ndarray):
        items = to_unit(items)
    if isinstance(items, torch.Tensor):
        moved = items if device is None else items.to(device)
        return moved if fit is None else fit.tensor(moved, clip=clip)
    if all(is_pil(item) for item in items):
        pictures = [_fitted(item, fit) for item in items]
        _check_same_size([(p.height, p.width) for p in pictures])
        arrays = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
        return arrays.to(device).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    tensors = []
    for item in items:
        one: Any = [item]
        if isinstance(item, torch.Tensor | np.ndarray):
            one = item[None]
        elif not is_pil(item):
            raise _type_error(item)
        tensors.append(stack(one, fit, device=device, clip=clip)[0])
    _check_same_size([(t.shape[-2], t.shape[-1]) for t in tensors])
    return torch.stack(tensors)


def _fitted(picture: Any, fit: Fit | None) -> Image:
    return picture if fit is None else fit.pil(picture)


def to_unit(
    array: np.ndarray | torch.Tensor,
    *,
    value_range: ValueRange = "unit",
    channels_last: bool = False,
    channels: int = 3,
    name: str = "images",
) -> torch.Tensor:
    """Check one array (n, 3, h, w) or (3, h, w) and give it in float32.

    Bytes are divided by 255. See :func:`as_image_batch` for the errors.
    """
    _check_shape(array, channels_last, name, channels)
    tensor = array if isinstance(array, torch.Tensor) else _tensor_of(array, name)
    if channels_last:
        tensor = tensor.movedim(-1, -3)
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.float32) / 255
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} has dtype {tensor.dtype}: expected uint8 in 0–255 or floats in [0, 1]. "
            "Convert with images.astype('uint8') or images.to(torch.uint8).",
            code="CL-INPUT-TYPE",
        )
    check_finite(tensor.detach(), name)
    if value_range == "unit":
        _check_unit(tensor.detach(), name)
    return tensor.to(torch.float32)


def _check_shape(
    array: np.ndarray | torch.Tensor, channels_last: bool, name: str, channels: int = 3
) -> None:
    shape = tuple(array.shape)
    if len(shape) not in (3, 4):
        raise InputError(
            f"{name} must have the axes (n, 3, height, width) or (3, height, width), got shape "
            f"{shape}. {_rank_hint(shape)}",
            code="CL-INPUT-RANK",
        )
    if 0 in shape:
        raise InputError(
            f"{name} is empty: shape {shape}. Give at least one image of at least one pixel.",
            code="CL-INPUT-EMPTY",
        )
    if channels_last and shape[-1] != channels:
        raise InputError(
            f"channels_last=True, but the last axis of {name} has {shape[-1]} entries, not "
            f"{channels}: "
            f"shape {shape}. Leave channels_last out for (n, 3, height, width).",
            code="CL-INPUT-LAYOUT",
        )
    if not channels_last and shape[-3] not in (channels, 3):
        if channels != 3:
            raise InputError(
                f"{name} must have the {channels} channel(s) of the model's first layer, "
                f"(n, {channels}, height, width), or be RGB, got shape {shape}. Bring the channels "
                "to that axis, or give images of as many.",
                code="CL-INPUT-LAYOUT",
            )
        raise _layout_error(array, shape, name)


def _from_batch(batch: np.ndarray | torch.Tensor, options: _Options) -> ImageSource:
    _check_shape(batch, options.channels_last, "images", options.channels)
    whole = batch[None] if batch.ndim == 3 else batch

    def take(indices: Sequence[int]) -> torch.Tensor:
        part = len(indices) < len(whole)
        if isinstance(indices, range) and indices.step == 1:
            rows = whole[indices.start : indices.stop]
        else:
            rows = whole[list(indices)]
        name = f"images[{indices[0]}:{indices[-1] + 1}]" if part and len(indices) else "images"
        return to_unit(rows, **vars(options), name=name)

    def digests(start: int, stop: int) -> list[bytes]:
        found = []
        for first in range(start, min(stop, len(whole)), 256):  # never all on the CPU at once
            rows = whole[first : min(first + 256, stop)]
            rows = rows.detach().cpu() if isinstance(rows, torch.Tensor) else np.asarray(rows)
            found += [_digest_array(row, prefix) for row in rows]
        return found

    prefix = f"batch:{options.channels_last}:{options.value_range}:".encode()
    return ImageSource(len(whole), take, digests, _kind_of(batch))


def _from_items(items: Any, options: _Options) -> ImageSource:
    if isinstance(items, dict | bytes) or items is None:
        raise _type_error(items)
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        if type(items).__name__ == "DataLoader" or not isinstance(items, Iterable):
            raise _type_error(items)
        items = list(items)
    if hasattr(items, "iloc"):  # of pandas
        if getattr(items, "ndim", 1) != 1:
            columns = ", ".join(repr(name) for name in list(items.columns)[:10])
            raise InputError(
                f"images cannot be a table; its columns are {columns}. Give the column of paths: "
                "frame['path'].",
                code="CL-INPUT-TYPE",
            )
        items = items.tolist()
    n = len(items)
    if n == 0:
        raise InputError(
            "images is empty. Give at least one image.",
            code="CL-INPUT-EMPTY",
        )
    prefix = f"upright:{options.channels_last}:{options.value_range}:".encode()

    def item(index: int) -> _Item:
        return _item_of(items[index], f"images[{index}]", options)

    def take(indices: Sequence[int]) -> list[Image | torch.Tensor]:
        return [item(i).read() for i in indices]

    def digests(start: int, stop: int) -> list[bytes]:
        return [item(i).digest(prefix) for i in range(start, min(stop, n))]

    listed = isinstance(items, list | tuple) and isinstance(items[0], torch.Tensor)
    return ImageSource(n, take, digests, _kind_of(items[0]) if listed else None)


def _kind_of(array: np.ndarray | torch.Tensor) -> ArrayKind:
    if isinstance(array, torch.Tensor):
        return ArrayKind.of(array)
    dtype = torch.float64 if array.dtype == np.float64 else torch.float32
    return ArrayKind(False, dtype, torch.device("cpu"))


def _unwrap(item: Any) -> Any:
    """Take the image out of an ``(image, label)`` pair or a row of named fields."""
    if isinstance(item, tuple) and item:
        return item[0]
    if isinstance(item, dict):
        for key in ("image", "img", "images"):
            if key in item:
                return item[key]
    return item


@dataclass(frozen=True)
class _Item:
    """One image, of which it is known what it is: how it is read, and hashed after a prefix."""

    read: Callable[[], Image | torch.Tensor]
    digest: Callable[[bytes], bytes]


def _item_of(item: Any, name: str, options: _Options) -> _Item:
    item = _unwrap(item)
    if isinstance(item, str | os.PathLike) and not isinstance(item, ImageFile):
        item = ImageFile(os.fspath(item), functools.partial(file_bytes, item))
    if isinstance(item, ImageFile):
        return _Item(item.open, lambda prefix: hashlib.sha256(prefix + item.read()).digest())
    if is_pil(item):
        return _Item(lambda: as_rgb(item, name), lambda prefix: _digest_picture(item, prefix))
    if isinstance(item, np.ndarray | torch.Tensor):

        def read() -> torch.Tensor:
            if item.ndim != 3:
                raise InputError(
                    f"{name} must have the axes (3, height, width), got shape "
                    f"{tuple(item.shape)}. {_rank_hint(tuple(item.shape))}",
                    code="CL-INPUT-RANK",
                )
            return to_unit(item, **vars(options), name=name)

        return _Item(read, lambda prefix: _digest_array(item, prefix))
    if isinstance(item, Mapping):
        keys = ", ".join(repr(key) for key in list(item)[:10])
        raise InputError(
            f"{name} is a row of named fields ({keys}), none of them 'image', 'img' or 'images'. "
            "Rename the column, or give the column itself.",
            code="CL-INPUT-TYPE",
        )
    raise InputError(
        f"{name} is a {type(item).__name__}; expected a PIL image, a path, or an array or tensor "
        "(3, height, width).",
        code="CL-INPUT-TYPE",
    )


def _digest_picture(picture: Image, prefix: bytes) -> bytes:
    palette = bytes(picture.getpalette() or []) if picture.mode in ("P", "PA") else b""
    if "transparency" in picture.info:
        palette += repr(picture.info["transparency"]).encode()
    turned = upright(picture)
    head = f"{picture.mode}:{turned.size}:".encode()
    return hashlib.sha256(prefix + head + palette + turned.tobytes()).digest()


def _digest_array(array: np.ndarray | torch.Tensor, prefix: bytes) -> bytes:
    hasher = hashlib.sha256(prefix)
    if isinstance(array, torch.Tensor):
        flat = array.detach().cpu().contiguous()
        hasher.update(f"{str(flat.dtype).removeprefix('torch.')}:{tuple(flat.shape)}:".encode())
        hasher.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    else:
        plain = np.ascontiguousarray(array)
        hasher.update(f"{plain.dtype.name}:{plain.shape}:".encode())
        hasher.update(plain.reshape(-1).view(np.uint8).data)
    return hasher.digest()


def _tensor_of(array: np.ndarray, name: str) -> torch.Tensor:
    if array.dtype.kind not in "fiub" or array.dtype == np.longdouble:
        raise InputError(
            f"{name} has dtype {array.dtype}: expected uint8 in 0–255 or floats in [0, 1].",
            code="CL-INPUT-TYPE",
        )
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        raise InputError(
            f"{name} has dtype {array.dtype}: expected uint8 in 0–255 or floats in [0, 1]. Divide "
            "by the largest value that it can have (65535 for 16 bits).",
            code="CL-INPUT-TYPE",
        )
    plain = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not plain.flags.writeable or any(stride < 0 for stride in plain.strides):
        plain = plain.copy()
    return torch.from_numpy(plain)


def _check_unit(tensor: torch.Tensor, name: str) -> None:
    low, high = (float(value) for value in torch.aminmax(tensor))
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    if low < -_SLACK:
        guess = (
            "They look normalised already: give images in [0, 1], the model's own normalisation "
            "follows inside; for images in [-1, 1] use (images + 1) / 2."
        )
    elif high <= 255 + 0.5:
        guess = "They look like bytes stored as floats: divide by 255, or give uint8."
    else:
        guess = "Scale them to [0, 1]."
    raise InputError(
        f"{name} must lie in [0, 1], but the values go from {low:.4g} to {high:.4g}. {guess}",
        code="CL-INPUT-RANGE",
    )


def _layout_error(array: ArrayLike, shape: tuple[int, ...], name: str) -> InputError:
    axes = "(n, 3, height, width)" if len(shape) == 4 else "(3, height, width)"
    order = (0, 3, 1, 2) if len(shape) == 4 else (2, 0, 1)
    call = "permute" if isinstance(array, torch.Tensor) else "transpose"
    every = ":, " if len(shape) == 4 else ""
    turn = f"images.{call}{order}"
    if shape[-1] == 3:
        guess = (
            f"It looks like channels last ({'NHWC' if len(shape) == 4 else 'HWC'}): use {turn}, or "
            "channels_last=True where that is offered."
        )
    elif shape[-1] == 4 and shape[-3] != 4:
        guess = f"It looks like channels last with an alpha channel: use {turn}[{every}:3]."
    elif shape[-3] == 4:
        guess = f"It looks like RGB with an alpha channel: drop it with images[{every}:3]."
    elif shape[-3] == 1:
        repeat = "images.expand(-1, 3, -1, -1)" if len(shape) == 4 else "images.expand(3, -1, -1)"
        if call == "transpose":
            repeat = f"np.repeat(images, 3, axis={len(shape) - 3})"
        guess = f"It looks grey: repeat the channel with {repeat}."
    elif shape[-1] == 1:
        guess = f"It looks grey with channels last: use {turn} and repeat the channel 3 times."
    else:
        guess = "Give RGB images with the three channels on that axis."
    return InputError(
        f"{name} must be channels-first RGB {axes}, got {shape} with {shape[-3]} entries on the "
        f"channel axis. {guess}",
        code="CL-INPUT-LAYOUT",
    )


def _rank_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "For one grey image repeat the channel: np.repeat(image[None], 3, axis=0)."
    if len(shape) == 4:
        return "Give the images of a batch one by one, or join batches with np.concatenate."
    if len(shape) == 5:
        return (
            "For video or crops, merge the first two axes: images.reshape(-1, *images.shape[2:])."
        )
    return "Give a batch of images."


def _check_same_size(sizes: list[tuple[int, int]]) -> None:
    if len(set(sizes)) > 1:
        other = next(i for i, size in enumerate(sizes) if size != sizes[0])
        raise InputError(
            f"The images differ in size: images[0] is {sizes[0][0]}×{sizes[0][1]}, images[{other}] "
            f"is {sizes[other][0]}×{sizes[other][1]} (height×width). Give size=224, or another "
            "size that all are scaled and cropped to.",
            code="CL-INPUT-SHAPE",
        )


def _type_error(images: Any) -> InputError:
    what = type(images).__name__
    mend = (
        "Give the loader's data set instead (loader.dataset), or one batch of it."
        if what == "DataLoader"
        else "Expected an array or tensor (n, 3, height, width), PIL images, paths, or a data set."
    )
    return InputError(f"images cannot be a {what}. {mend}", code="CL-INPUT-TYPE")
