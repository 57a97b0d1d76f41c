"""Pictures in files: read within bounds, decoded as RGB."""

from __future__ import annotations

__all__ = [
    "PICTURE_LIMIT",
    "ImageFile",
    "as_rgb",
    "decode",
    "file_bytes",
    "is_pil",
    "open_picture",
]

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conceptlab.errors import InputError
from conceptlab.io.reading import read_plain_file

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_LIMIT = 2**30
"""The most bytes of a picture, packed or not."""
_PROGRAMS = {"EPS", "WMF"}  # Pillow runs other programs to draw them


@dataclass(frozen=True)
class ImageFile:
    """A picture in a file or an archive, decoded when it is asked for.

    Attributes
    ----------
    name : str
        Path for people and messages.
    read : callable
        Gives the encoded bytes.
    """

    name: str
    read: Callable[[], bytes]

    def open(self) -> Image:
        """Decode the picture as RGB.

        Raises
        ------
        InputError
            If the bytes are no picture, or only a part of one
            (``CL-INPUT-FILE``).
        """
        return decode(self.read(), self.name)

    def __fspath__(self) -> str:
        return self.name


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a picture's file.

    Raises
    ------
    InputError
        If it is not there, no plain file, or larger than :data:`PICTURE_LIMIT`
        (``CL-INPUT-FILE``).
    """
    try:
        return read_plain_file(path, limit=PICTURE_LIMIT)
    except OSError as error:
        raise InputError(
            f"Cannot read the image {os.fspath(path)!r}: {error.strerror or error}. "
            "Check the path and the rights of the file.",
            code="CL-INPUT-FILE",
        ) from error


def decode(content: bytes, name: str) -> Image:
    """Decode a picture as RGB.

    Raises
    ------
    InputError
        As :func:`open_picture`; more than 8 bits a channel (``CL-INPUT-RANGE``).
    """
    return as_rgb(open_picture(content, name), name)


def open_picture(content: bytes, name: str, *, pixels: bool = True) -> Image:
    """Decode a picture in the mode that it has; without `pixels` its size and mode alone.

    Raises
    ------
    InputError
        No picture, a damaged one, one of too many pixels, or one in a format whose
        pictures are programs (``CL-INPUT-FILE``).
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        image = pillow.open(io.BytesIO(content))
        if image.format in _PROGRAMS:
            raise UnidentifiedImageError
        if pixels:
            image.load()
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a picture that can be read ({len(content)} bytes). "
            "Remove it, or convert it to PNG or JPEG.",
            code="CL-INPUT-FILE",
        ) from error
    except Exception as error:  # each format has errors of its own
        raise InputError(
            f"The picture {name} is damaged, truncated or too large: {error}. Get the file again, "
            "or leave it out.",
            code="CL-INPUT-FILE",
        ) from error
    return image


def as_rgb(image: Image, name: str) -> Image:
    """Turn a picture of 8 bits a channel to RGB; refuse others (``CL-INPUT-RANGE``)."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{name} has mode {image.mode!r}: more than 8 bits a channel, of unknown range. "
            "Scale it to [0, 1] yourself and give an array (3, height, width).",
            code="CL-INPUT-RANGE",
        )
    return image.convert("RGB")


def is_pil(item: Any) -> bool:
    """Tell whether something is a PIL image."""
    # Pillow is not imported for people who only have arrays.
    return any(
        base.__name__ == "Image" and base.__module__ == "PIL.Image" for base in type(item).__mro__
    )
