"""Folders of safetensors and JSON with a hash for every file.

A bundle is a folder with ``manifest.json`` (kind, format version, sha256 of
every other file), ``data.json`` and ``tensors.safetensors``. It is written
beside its place and renamed, so that a crash leaves the old state or the new
one and nothing between. Nothing here can run code when it is read.
"""

from __future__ import annotations

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "atomic_write",
    "is_vacant",
    "json_bytes",
    "read_bundle",
    "write_bundle",
]

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from conceptlab.errors import CheckpointError
from conceptlab.io.reading import read_plain_file, strict_json
from conceptlab.io.swap import replace_folder
from conceptlab.provenance import provenance

FORMAT_VERSION = 1
MANIFEST, DATA, TENSORS = "manifest.json", "data.json", "tensors.safetensors"


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds.

    Attributes
    ----------
    kind : str
        Name of the class that wrote it.
    data : dict
        JSON values.
    tensors : dict of str to numpy.ndarray
        Arrays by name.
    files : dict of str to bytes
        Further files by their plain name.

    Examples
    --------
    >>> path = write_bundle("colours", Bundle("Colours", {"n": 2}, {"rgb": np.eye(3)[:2]}))
    >>> read_bundle("colours", "Colours").tensors["rgb"].shape
    (2, 3)
    """

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def write_bundle(
    path: str | os.PathLike[str],
    bundle: Bundle,
    *,
    parts: Mapping[str, Callable[[Path], object]] | None = None,
) -> Path:
    """Write `bundle` as the folder `path`, replacing an older bundle there.

    Parameters
    ----------
    path : path-like
        The folder; its parents are made.
    bundle : Bundle
        What to write.
    parts : dict of str to callable, optional
        Objects with bundles of their own: the name of a folder inside this one, and
        a function that writes a bundle there, such as another object's ``save``.
        They come into place together with the rest, or not at all.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    CheckpointError
        If something that is no bundle stands there, or the place cannot be
        written (``CL-CHECKPOINT-TARGET``). What stood there stays.

    Examples
    --------
    >>> write_bundle("colours", Bundle("Colours", {"n": 2})).name
    'colours'
    """
    target = Path(path)
    if not is_vacant(target) and not _is_replaceable(target):
        raise CheckpointError(
            f"{target} exists and was not written by conceptlab. Choose another folder, or "
            "remove it.",
            code="CL-CHECKPOINT-TARGET",
        )
    contents = {
        DATA: json_bytes(bundle.data),
        TENSORS: save_tensors({k: np.ascontiguousarray(v) for k, v in bundle.tensors.items()}),
    }
    for name, content in bundle.files.items():
        _check_plain(name)
        contents[name] = content
    for name in parts or {}:
        _check_plain(name)
    manifest: dict[str, Any] = {
        "format": "conceptlab",
        "format_version": FORMAT_VERSION,
        "kind": bundle.kind,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "size": {name: len(content) for name, content in contents.items()},
        "written_by": provenance()["versions"],
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
    except (OSError, ValueError) as error:
        raise _not_writable(target, error) from error
    try:
        manifest["parts"] = {}
        for name, write in (parts or {}).items():
            write(staging / name)
            content = (staging / name / MANIFEST).read_bytes()
            manifest["parts"][name] = hashlib.sha256(content).hexdigest()
        contents[MANIFEST] = json_bytes(manifest)
        for name, content in contents.items():
            _write_through(staging / name, content)
        staging.chmod(0o755)
        replace_folder(staging, target)
    except OSError as error:
        raise _not_writable(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def read_bundle(path: str | os.PathLike[str], kind: str) -> Bundle:
    """Read the bundle at `path` after checking every hash.

    Parameters
    ----------
    path : path-like
        The folder.
    kind : str
        The kind that the caller can use.

    Returns
    -------
    Bundle

    Raises
    ------
    CheckpointError
        Missing, damaged, newer, or another kind; names the file and what was
        expected.

    Examples
    --------
    >>> path = write_bundle("colours", Bundle("Colours", {"n": 2}))
    >>> read_bundle("colours", "Colours").data
    {'n': 2}
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    if manifest.get("kind") != kind:
        raise CheckpointError(
            f"{folder} holds a {manifest.get('kind')!r}, expected a {kind!r}. "
            "Load it with that class.",
            code="CL-CHECKPOINT-KIND",
        )
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or not {DATA, TENSORS} <= set(hashes):
        raise CheckpointError(f"{folder / MANIFEST} lists no files. Get the folder again.")
    parts, sizes = manifest.get("parts") or {}, manifest.get("size") or {}
    if not isinstance(parts, dict) or not isinstance(sizes, dict):
        raise CheckpointError(f"{folder / MANIFEST} is not a manifest of conceptlab.")
    contents = {
        name: _read_checked(folder, name, digest, sizes.get(name))
        for name, digest in hashes.items()
    }
    for name, digest in parts.items():
        # What a part holds is checked against its own manifest when it is read.
        _check_inside(folder, name)
        _read_checked(folder / name, MANIFEST, digest)
    try:
        data = strict_json(contents.pop(DATA))
        if not isinstance(data, dict):
            raise ValueError(f"{DATA} holds a {type(data).__name__}, expected an object")
        tensors = load_tensors(contents.pop(TENSORS))
    except (ValueError, SafetensorError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} is not readable: {error}. Get the folder again."
        ) from error
    return Bundle(kind, data, tensors, contents)


def is_vacant(path: str | os.PathLike[str]) -> bool:
    """Tell whether nothing stands at `path`, or an empty folder.

    Raises
    ------
    CheckpointError
        If a folder stands there that cannot be looked into (``CL-CHECKPOINT-TARGET``).
    """
    if not os.path.isdir(path):
        return not os.path.lexists(path)
    try:
        return not os.listdir(path)
    except OSError as error:
        raise _not_writable(Path(path), error) from error


def atomic_write(
    path: str | os.PathLike[str], content: bytes | str, *, durable: bool = True
) -> Path:
    """Write one file so that a reader sees the old content or the new, never a part.

    Parameters
    ----------
    path : path-like
        The file; its parents are made.
    content : bytes or str
        Text is written as UTF-8; halves of characters, as in names of files that are no
        UTF-8, become question marks.
    durable : bool
        Whether to wait until the disk has it. Without, a machine that loses power may keep
        a damaged file: for caches that find that out and cost less than the wait.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> atomic_write("notes.txt", "red").read_text()
    'red'
    """
    target = Path(path)
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}-", dir=target.parent)
        os.close(handle)
        staging = Path(name)
        raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
        _write_through(staging, raw, durable)
        staging.chmod(0o644)
        os.replace(staging, target)
        staging = None
    except (OSError, ValueError) as error:
        raise _not_writable(target, error) from error
    finally:
        if staging is not None:
            staging.unlink(missing_ok=True)
    return target


def _is_replaceable(target: Path) -> bool:
    try:
        # Browser extensions and others have files of that name, too.
        return _is_manifest(strict_json(read_plain_file(target / MANIFEST)))
    except (OSError, ValueError):
        return False


def _is_manifest(value: Any) -> bool:
    return isinstance(value, dict) and value.get("format") == "conceptlab"


def _write_through(path: Path, content: bytes, durable: bool = True) -> None:
    with open(path, "wb") as stream:
        stream.write(content)
        stream.flush()
        if durable:
            os.fsync(stream.fileno())


def json_bytes(value: Any, indent: int = 2) -> bytes:
    """Write JSON for people to read; halves of characters stay what they are."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # names of files that are no UTF-8
        return json.dumps(value, indent=indent, allow_nan=False).encode()


def _not_writable(target: Path, error: Exception) -> CheckpointError:
    why = getattr(error, "strerror", None) or error
    return CheckpointError(
        f"Cannot write {target}: {why}. Choose a folder that is writable and has room; what stood "
        "there before is unchanged.",
        code="CL-CHECKPOINT-TARGET",
    )


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    if os.path.isfile(folder):
        raise CheckpointError(
            f"{folder} is a file; a conceptlab checkpoint is a folder with {MANIFEST}. Pickled "
            "files (.pt, .pkl, .joblib) are never read, because they can run code.",
            code="CL-CHECKPOINT-UNSAFE",
        )
    try:
        manifest = strict_json(read_plain_file(folder / MANIFEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST} does not exist. Give the folder that save() returned.",
            code="CL-CHECKPOINT-MISSING",
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is not readable: {error}.") from error
    if not _is_manifest(manifest):
        raise CheckpointError(f"{folder / MANIFEST} is not a manifest of conceptlab.")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format version {version}; this conceptlab reads up to {FORMAT_VERSION}. "
            "Upgrade with: pip install -U conceptlab",
            code="CL-CHECKPOINT-NEWER",
        )
    return dict(manifest)


def _check_plain(name: str) -> None:
    if name != os.path.basename(name) or name in {MANIFEST, DATA, TENSORS, "", ".", ".."}:
        raise CheckpointError(f"{name!r} is no plain file name.", code="CL-CHECKPOINT-TARGET")


def _check_inside(folder: Path, name: str) -> None:
    if name != os.path.basename(name) or name in {"", ".", ".."}:
        raise CheckpointError(
            f"{folder / MANIFEST} names {name!r}, which lies outside the folder.",
            code="CL-CHECKPOINT-UNSAFE",
        )


def _read_checked(folder: Path, name: str, expected: object, size: Any = None) -> bytes:
    _check_inside(folder, name)
    path = folder / name
    try:
        length = os.path.getsize(path)
        if size is not None and length != size:  # seen before a huge file fills the memory
            raise _changed(path, f"it has {length} bytes, the manifest says {size!r:.20}")
        content = read_plain_file(path)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. "
            "Get the folder again.",
            code="CL-CHECKPOINT-MISSING",
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise _changed(
            path,
            f"its sha256 is {found[:16]}..., the manifest says {str(expected)[:16]}...",
        )
    return content


def _changed(path: Path, how: str) -> CheckpointError:
    return CheckpointError(f"{path} was changed or truncated: {how}. Get the folder again.")
