"""Put a folder in the place of another, or take it away, in one step."""

from __future__ import annotations

__all__ = ["remove_folder", "replace_folder"]

import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path

_HERE = -100  # AT_FDCWD: relative paths start at the working folder
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


def replace_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`; what stood there is removed.

    Linux and macOS exchange the two, so that a process that is killed leaves the one or
    the other. Where the file system cannot, the older folder is moved aside first, and put
    back when the second step fails.

    Parameters
    ----------
    new : pathlib.Path
        A folder beside `target`.
    target : pathlib.Path
        A folder, or nothing.

    Raises
    ------
    OSError
        If it cannot be done; then `target` is as it was.
    """
    if not os.path.lexists(target):
        os.rename(new, target)
        return
    if _exchange(new, target):
        if os.path.islink(new):
            os.unlink(new)
        shutil.rmtree(new, ignore_errors=True)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-old-", dir=target.parent))
    os.rename(target, aside / "old")
    try:
        os.rename(new, target)
    except OSError:
        os.rename(aside / "old", target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(target: Path) -> None:
    """Remove `target`; a process that is killed meanwhile leaves the whole of it or nothing.

    It is moved aside first, since a folder that is half removed cannot be read, and the run
    that it belongs to could not go on. What cannot be removed stays without an error.

    Parameters
    ----------
    target : pathlib.Path
        A folder.
    """
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-old-", dir=target.parent))
    except OSError:
        return
    try:
        os.rename(target, aside / "old")
    except OSError:  # the next run finds it whole, and goes on from it
        pass
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names where system and file system know how; tell whether they did."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(first), os.fsencode(second)
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, _EXCHANGE) == 0)
        return bool(library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):  # Windows, or an old C library
        return False
