"""Reading what may be damaged or hostile: strict JSON, plain files, one kind of error."""

from __future__ import annotations

__all__ = [
    "check_plain_file",
    "check_plain_folder",
    "file_digest",
    "is_utf8",
    "read_plain_file",
    "read_span",
    "rebuilding",
    "strict_json",
]

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, NoReturn

from conceptlab.errors import CheckpointError, DependencyError, SpaceMismatchError

_WRONG_CONTENT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def strict_json(content: bytes | str) -> Any:
    """Parse JSON without the liberties that Python's parser takes.

    Parameters
    ----------
    content : bytes or str
        In UTF-8.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        No JSON, NaN or infinity, a key that comes twice, or nested without end.
    """
    try:
        return json.loads(content, parse_constant=_no_number, object_pairs_hook=_each_key_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_plain_file(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """Read a file that fits in memory; pipes and devices, which may never end, are refused.

    Every file of others is read in this way. Where a library opens the file itself,
    :func:`check_plain_file` comes first.

    Parameters
    ----------
    path : path-like
        The file; a link to one is followed.
    limit : int, optional
        The most bytes that are read; half of the machine's memory by default.

    Returns
    -------
    bytes

    Raises
    ------
    OSError
        Missing, no plain file, or larger than `limit`; ``strerror`` says which.
    """
    size = check_plain_file(path, limit=_half_of_memory() if limit is None else limit)
    with open(path, "rb") as stream:
        return stream.read(size)


def read_span(path: str | os.PathLike[str], start: int, size: int) -> bytes:
    """Read `size` bytes of a plain file from `start`, counted from its end if that is negative.

    Raises
    ------
    OSError
        As :func:`read_plain_file`.
    """
    whole = check_plain_file(path)
    with open(path, "rb") as stream:
        stream.seek(max(whole + start, 0) if start < 0 else start)
        return stream.read(size)


def check_plain_file(path: str | os.PathLike[str], *, limit: int | None = None) -> int:
    """Find out whether opening a file may wait, or reading it never end.

    Parameters
    ----------
    path : path-like
        The file; a link to one is followed.
    limit : int, optional
        The most bytes that it may have.

    Returns
    -------
    int
        Its bytes.

    Raises
    ------
    OSError
        As :func:`read_plain_file`.
    """
    name = os.fspath(path)
    try:
        found = os.stat(path)
    except ValueError as error:  # a name with a zero byte
        raise FileNotFoundError(errno.ENOENT, str(error), name) from error
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", name)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", name)
    if limit is not None and found.st_size > limit:
        raise OSError(
            errno.EFBIG, f"it has {found.st_size} bytes, more than the {limit} that are read", name
        )
    return found.st_size


def check_plain_folder(folder: str | os.PathLike[str]) -> None:
    """Do as :func:`check_plain_file` for all that a folder holds, but for folders in it."""
    for entry in os.scandir(folder):
        if not entry.is_dir():
            check_plain_file(entry.path)


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Tell whether libraries in other languages can open a file of that name themselves."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def file_digest(path: str | os.PathLike[str]) -> str:
    """Give the sha256 of a file of any length."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def rebuilding(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Say that a sound file has the wrong content, whatever that made the code inside raise.

    Parameters
    ----------
    path : path-like
        What is read.
    kind : str
        What it should describe.

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-DAMAGED``, in place of a ``KeyError`` and its like.
    """
    try:
        yield
    except (CheckpointError, DependencyError, SpaceMismatchError):
        raise
    except _WRONG_CONTENT as error:
        what = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path} does not describe a whole {kind}: {what[:300]}. Get it again, or make it anew."
        ) from error


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**33


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {twice[:60]!r} comes twice")
    return found
