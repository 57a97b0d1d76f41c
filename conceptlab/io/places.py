"""Where a command writes: found and tried before the work, so that none of it is lost."""

from __future__ import annotations

__all__ = ["RUNNING", "check_writable", "hold_folder", "report_file"]

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conceptlab.errors import CheckpointError

RUNNING = ".running"
"""File by which a run holds its folder."""


def check_writable(folder: Path, option: str = "--out") -> None:
    """Find out whether files can be written in a folder, which need not be there yet.

    Parameters
    ----------
    folder : Path
    option : str
        The option that named it, for the message.

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-TARGET``.
    """
    places = [folder.absolute(), *folder.absolute().parents]
    above = next(place for place in places if os.path.exists(place))
    if not os.path.isdir(above) or not os.access(above, os.W_OK):
        raise CheckpointError(
            f"{option} {folder} cannot be written; name a folder that is writable.",
            code="CL-CHECKPOINT-TARGET",
        )


def report_file(out: Path, name: str) -> Path:
    """Give the file of a report, once it is known that it can be written.

    Parameters
    ----------
    out : Path
        A file, or a folder: what is one already, or has no suffix.
    name : str
        Of the file in a folder, such as ``"explain.html"``.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-TARGET``.

    Examples
    --------
    >>> report_file(Path("seen"), "explain.html").as_posix()
    'seen/explain.html'
    >>> report_file(Path("seen.html"), "explain.html").as_posix()
    'seen.html'
    """
    if os.path.isdir(out) or (not out.suffix and not os.path.exists(out)):
        out = out / name
    check_writable(out.parent)
    if os.path.isdir(out):
        raise CheckpointError(
            f"--out {out} is a folder; name a file, such as report.html.",
            code="CL-CHECKPOINT-TARGET",
        )
    return out


@contextmanager
def hold_folder(folder: Path) -> Iterator[bool]:
    """Make a folder and hold it for one run, which lets go when it ends in any way.

    Parameters
    ----------
    folder : Path

    Yields
    ------
    bool
        False where another run holds it. On Windows, which has no such locks, always True.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / RUNNING, "w") as file:
        yield _locked(file.fileno())


def _locked(file: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
