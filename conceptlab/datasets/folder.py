"""Folders and zip archives of pictures, read lazily."""

from __future__ import annotations

__all__ = [
    "IMAGE_SUFFIXES",
    "FolderDataset",
    "PassedOverWarning",
    "load_image_folder",
    "warn_passed_over",
]

import functools
import os
import threading
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from conceptlab.datasets.pictures import PICTURE_LIMIT, ImageFile, file_bytes
from conceptlab.datasets.sources import open_source
from conceptlab.errors import InputError


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


IMAGE_SUFFIXES = _suffixes(
    "apng avif avifs bmp dib gif heic heif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx pbm pcx pgm "
    "png pnm ppm qoi sgi tga tif tiff webp"
)
"""Files that are pictures; one that cannot be decoded here is an error when it is read."""
_OTHER_SUFFIXES = _suffixes(
    "bib cfg csv db doc docx gitignore gz h5 html ini ipynb json jsonl lnk log mat md npy npz "
    "parquet pdf pkl py pyc pt pth rst safetensors sh svg tar tex tgz toml torch tsv txt url xls "
    "xlsx xml yaml yml zip"
)


class PassedOverWarning(UserWarning):
    """A folder holds files that may be pictures and are not read."""


class FolderDataset:
    """Pictures of a folder or archive, decoded when they are asked for.

    Made by :func:`load_image_folder`. Indexing with an integer decodes one
    picture; a slice, mask or list of positions gives a smaller data set.

    Parameters
    ----------
    files : sequence of ImageFile
        The pictures.
    y : array-like of int, optional
        Index of each picture's class.
    class_names : sequence of str
        The classes in order.
    size : int or (int, int), optional
        Pictures are scaled and cropped to this size; needed for :attr:`images`
        and for batches where they differ.

    Attributes
    ----------
    files : list of ImageFile
    paths : list of str
        Name of each picture.
    y : ndarray of shape (n,), int64, or None
    class_names : tuple of str

    Examples
    --------
    >>> import tempfile, PIL.Image
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("cat", "dog"):
    ...     _ = os.mkdir(f"{folder}/{name}")
    ...     PIL.Image.new("RGB", (8, 6)).save(f"{folder}/{name}/1.png")
    >>> data = load_image_folder(folder)
    >>> len(data), data.class_names, data.y, data[0].shape
    (2, ('cat', 'dog'), array([0, 1]), torch.Size([3, 6, 8]))
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        *,
        y: Any = None,
        class_names: Sequence[str] = (),
        size: int | tuple[int, int] | None = None,
    ) -> None:
        self.files = list(files)
        self.y = None if y is None else np.asarray(y, dtype=np.int64)
        self.class_names = tuple(class_names)
        self.size = size

    @property
    def paths(self) -> list[str]:
        """Name of each picture: its path, or archive and member."""
        return [file.name for file in self.files]

    @property
    def images(self) -> torch.Tensor:
        """All pictures at once, float32 (n, 3, h, w) in [0, 1]."""
        return open_source(self).batch()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return open_source(self[[int(index)]]).batch()[0]
        chosen = np.arange(len(self))[index]
        return FolderDataset(
            [self.files[i] for i in chosen],
            y=None if self.y is None else self.y[chosen],
            class_names=self.class_names,
            size=self.size,
        )

    def __repr__(self) -> str:
        kinds = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"FolderDataset({len(self)} images{kinds})"


def load_image_folder(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    classes: bool = True,
    subfolder: str | None = None,
) -> FolderDataset:
    """Open a folder, or a zip archive, of pictures.

    Sub-folders are classes, in alphabetical order, and pictures are sorted by
    path; a folder without sub-folders has no classes. Hidden files are passed over,
    and so are texts, tables and archives; of any other file that is left out a
    :class:`PassedOverWarning` tells. Archives are read in place: nothing is unpacked.

    Parameters
    ----------
    path : path-like
        The folder or ``.zip`` file.
    size : int or (int, int), optional
        Size to scale and crop pictures to; see
        :func:`conceptlab.datasets.as_image_batch`.
    classes : bool
        False takes all pictures below `path` without classes.
    subfolder : str, optional
        Part to look at, such as ``"test"``.

    Returns
    -------
    FolderDataset

    Raises
    ------
    InputError
        No such folder, no archive, or an archive with members that point
        outside (``CL-INPUT-FILE``); no pictures in it (``CL-INPUT-EMPTY``);
        pictures both beside and inside class folders (``CL-INPUT-LABELS``).

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> for name in ("cat", "dog"):
    ...     Path("photos", name).mkdir(parents=True)
    ...     Image.new("RGB", (8, 6)).save(Path("photos", name, "0.png"))
    >>> photos = load_image_folder("photos", size=4)
    >>> len(photos), photos.class_names, tuple(photos[0].shape)
    (2, ('cat', 'dog'), (3, 4, 4))
    """
    root = Path(path)
    if os.path.isdir(root):
        found = _walk(root / subfolder if subfolder else root)
    elif os.path.isfile(root) and zipfile.is_zipfile(root):
        found = _zip_members(root, subfolder)
    else:
        kind = "neither a folder nor a zip archive" if os.path.exists(root) else "not there"
        raise InputError(f"{root} is {kind}. Give a folder of images.", code="CL-INPUT-FILE")
    if not found:
        where = f"{root}{'/' + subfolder if subfolder else ''}"
        raise InputError(
            f"{where} holds no images. Looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and in "
            "its sub-folders; hidden files do not count.",
            code="CL-INPUT-EMPTY",
        )
    found.sort(key=lambda pair: pair[0].parts)
    files = [file for _, file in found]
    tops = [relative.parts[0] if len(relative.parts) > 1 else None for relative, _ in found]
    if not classes or all(top is None for top in tops):
        return FolderDataset(files, size=size)
    if None in tops:
        raise InputError(
            f"{root} has images beside class folders, such as {found[tops.index(None)][0]}. Move "
            "them into a class folder, or use classes=False to take all without classes.",
            code="CL-INPUT-LABELS",
        )
    names = sorted({top for top in tops if top is not None})
    return FolderDataset(
        files,
        y=[names.index(str(top)) for top in tops],
        class_names=[_as_text(name) for name in names],
        size=size,
    )


def _as_text(name: str) -> str:
    """Write bytes of a file's name that are no UTF-8 as numbers: half characters are no text."""
    halves = [letter for letter in name if "\ud800" <= letter <= "\udfff"]
    if all("\udc80" <= half <= "\udcff" for half in halves):
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name.encode("utf-8", "replace").decode()


def _hidden(relative: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in relative.parts)


def warn_passed_over(where: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Tell of files that may be pictures and are not read; texts, tables and archives are none."""
    left = [name for name in names if PurePosixPath(name).suffix.lower() not in _OTHER_SUFFIXES]
    if left:
        shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        warnings.warn(
            f"{os.fspath(where)}: {len(left)} file(s) are no pictures by their suffix and are "
            f"passed over ({shown}). Convert pictures among them to PNG or JPEG.",
            PassedOverWarning,
            stacklevel=4,
        )


def _walk(root: Path) -> list[tuple[PurePosixPath, ImageFile]]:
    found, left = [], []
    for folder, _, names in os.walk(root):
        for name in names:
            full = Path(folder, name)
            relative = PurePosixPath(full.relative_to(root).as_posix())
            if _hidden(relative):
                continue
            if relative.suffix.lower() in IMAGE_SUFFIXES:
                found.append((relative, ImageFile(str(full), functools.partial(file_bytes, full))))
            else:
                left.append(str(relative))
    warn_passed_over(root, sorted(left))
    return found


def _zip_members(path: Path, subfolder: str | None) -> list[tuple[PurePosixPath, ImageFile]]:
    archive = _Archive(path)
    found, left = [], []
    for info in archive.open().infolist():
        member = PurePosixPath(info.filename.replace("\\", "/"))
        if member.is_absolute() or ".." in member.parts:
            raise InputError(
                f"{path} holds a member that points outside of it: {info.filename!r}. Such "
                "archives are refused; pack the images again.",
                code="CL-INPUT-FILE",
            )
        if info.is_dir() or _hidden(member):
            continue
        if subfolder:
            if not member.is_relative_to(subfolder):
                continue
            relative = member.relative_to(subfolder)
        else:
            relative = member
        if relative.suffix.lower() not in IMAGE_SUFFIXES:
            left.append(str(relative))
            continue
        read = functools.partial(archive.read, info.filename)
        found.append((relative, ImageFile(f"{path}!{info.filename}", read)))
    warn_passed_over(path, sorted(left))
    return found


class _Archive:
    """A zip file that is opened on first use, again after unpickling, and locked while read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._lock = threading.RLock()

    def open(self) -> zipfile.ZipFile:
        with self._lock:
            if self._zip is None:
                try:
                    self._zip = zipfile.ZipFile(self.path)
                except (OSError, zipfile.BadZipFile) as error:
                    raise InputError(
                        f"Cannot open {self.path}: {error}. Get the archive again.",
                        code="CL-INPUT-FILE",
                    ) from error
            return self._zip

    def read(self, member: str) -> bytes:
        try:
            with self._lock:
                archive = self.open()
                if archive.getinfo(member).file_size > PICTURE_LIMIT:
                    raise OSError("it unpacks to more than 1 GiB")
                return archive.read(member)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise InputError(
                f"Cannot read {member!r} in {self.path}: {error}. Get the archive again, without a "
                "password.",
                code="CL-INPUT-FILE",
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _Archive, (self.path,)
