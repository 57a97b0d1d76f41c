"""Pictures in files: read within bounds, turned upright, decoded as RGB.

A picture is what its viewer shows: EXIF's orientation is applied, wherever it comes from.
What it hides (colours under transparency) and what has no range of its own (more than 8
bits a channel) is refused.
"""

from __future__ import annotations

__all__ = [
    "PICTURE_LIMIT",
    "ImageFile",
    "as_rgb",
    "decode",
    "file_bytes",
    "is_pil",
    "open_picture",
    "picture_size",
    "see_through",
    "upright",
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
_ORIENTATION = 0x0112  # EXIF's tag
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # colours that are multiplied by alpha already


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
        """Decode the picture as upright RGB; see :func:`as_rgb`.

        Raises
        ------
        InputError
            If the bytes are no picture, or only a part of one
            (``CL-INPUT-FILE``), or hide colours or bits.
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
    """Decode a picture as upright RGB.

    Raises
    ------
    InputError
        As :func:`open_picture` and :func:`as_rgb`.
    """
    return as_rgb(open_picture(content, name), name)


def open_picture(content: bytes, name: str) -> Image:
    """Decode a picture in the mode that it has, upright.

    Raises
    ------
    InputError
        No picture, a damaged one, one of too many pixels, or one in a format whose
        pictures are programs (``CL-INPUT-FILE``).
    """
    return upright(_opened(content, name, pixels=True))


def picture_size(content: bytes, name: str) -> tuple[int, int]:
    """Read width and height of a picture, upright, without its pixels where that is possible.

    Raises
    ------
    InputError
        As :func:`open_picture`.
    """
    image = _opened(content, name, pixels=False)
    # Pillow has turned some formats before their pixels are there, and others not.
    return open_picture(content, name).size if _orientation(image) != 1 else image.size


def _opened(content: bytes, name: str, *, pixels: bool) -> Image:
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        image = pillow.open(io.BytesIO(content))
        if image.format in _PROGRAMS:
            raise UnidentifiedImageError
        if pixels:
            image.load()
        _orientation(image)
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


def _orientation(image: Image) -> int:
    return int(image.getexif().get(_ORIENTATION, 1))


def upright(image: Image) -> Image:
    """Turn and mirror a picture as its EXIF orientation says; without one it stays as it is."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if _orientation(image) in range(2, 9) else image


def see_through(image: Image) -> bool:
    """Tell whether a picture may be transparent somewhere."""
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def as_rgb(image: Image, name: str) -> Image:
    """Turn a picture upright and to RGB.

    Grey, palettes, CMYK, YCbCr and HSV are converted (without colour profiles), and so is
    alpha where it is full everywhere.

    Raises
    ------
    InputError
        Pixels that are transparent (``CL-INPUT-LAYOUT``), more than 8 bits a channel
        (``CL-INPUT-RANGE``), a mode without a way to RGB (``CL-INPUT-LAYOUT``).
    """
    image = upright(image)
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{name} has mode {image.mode!r}: more than 8 bits a channel, of unknown range. "
            "Scale it to [0, 1] yourself and give an array (3, height, width).",
            code="CL-INPUT-RANGE",
        )
    if see_through(image):
        image = image.convert(_STRAIGHT.get(image.mode, image.mode)).convert("RGBA")
        if image.getchannel("A").histogram()[255] < image.width * image.height:
            raise InputError(
                f"{name} is transparent in places, and the colours that the file holds there are "
                "not what anybody sees. Lay it on a background: canvas = "
                'Image.new("RGBA", picture.size, "white"); '
                'canvas.alpha_composite(picture.convert("RGBA")); canvas.convert("RGB").',
                code="CL-INPUT-LAYOUT",
            )
    if image.mode == "RGB":
        return image
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise InputError(
            f"{name} has mode {image.mode!r}, which cannot be turned to RGB here: {error}. Save it "
            "as RGB.",
            code="CL-INPUT-LAYOUT",
        ) from error


def is_pil(item: Any) -> bool:
    """Tell whether something is a PIL image."""
    # Pillow is not imported for people who only have arrays.
    return any(
        base.__name__ == "Image" and base.__module__ == "PIL.Image" for base in type(item).__mro__
    )
