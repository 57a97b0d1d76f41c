"""What a result came from: versions, machine, seeds, fingerprints."""

from __future__ import annotations

__all__ = ["fingerprint", "provenance"]

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_PACKAGES = ("conceptlab", "torch", "numpy", "scipy", "scikit-learn")


def provenance(**facts: Any) -> dict[str, Any]:
    """Collect versions and machine beside the given facts.

    Parameters
    ----------
    **facts
        What else to record: seed, fingerprints, settings (JSON values).

    Returns
    -------
    dict
        ``{"versions": {...}, "python": ..., "machine": ..., "threads": ..., **facts}``

    Examples
    --------
    >>> facts = provenance(seed=3)
    >>> facts["seed"], "python" in facts
    (3, True)
    """
    return {
        "versions": dict(_versions()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        **facts,
    }


@functools.cache
def _versions() -> dict[str, str]:
    """Read the metadata of the packages once; that takes milliseconds each time."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def fingerprint(*parts: Any) -> str:
    """Hash weights, arrays and settings to a sha256 hex digest.

    Parameters
    ----------
    *parts : Module, Tensor, ndarray, mapping, str, bytes or JSON value
        A module counts by the names, dtypes, shapes and bytes of its
        parameters and buffers, and by its class names.

    Returns
    -------
    str
        64 hexadecimal digits; equal parts give equal digits on any machine.

    Examples
    --------
    >>> fingerprint("a", [1, 2]) == fingerprint("a", [1, 2])
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def _feed(digest: Any, part: Any) -> None:
    if isinstance(part, torch.nn.Module):
        digest.update(b"module:" + repr(part).encode())
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            _feed(digest, tensor if isinstance(tensor, torch.Tensor) else repr(tensor))
    elif isinstance(part, torch.Tensor):
        flat = part.detach().cpu().contiguous()
        digest.update(
            f"array:{str(flat.dtype).removeprefix('torch.')}:{tuple(flat.shape)}:".encode()
        )
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(part, np.ndarray):
        flat_array = np.ascontiguousarray(part)
        digest.update(f"array:{flat_array.dtype.name}:{flat_array.shape}:".encode())
        digest.update(flat_array.tobytes())
    elif isinstance(part, bytes):
        digest.update(b"bytes:" + part)
    elif isinstance(part, Mapping):
        digest.update(b"mapping:")
        for key in sorted(part, key=str):
            digest.update(str(key).encode())
            _feed(digest, part[key])
    else:
        digest.update(b"json:" + json.dumps(part, sort_keys=True, default=_plain).encode())


def _plain(value: Any) -> str:
    """Write what JSON has no word for; of an array its text would leave out most."""
    return fingerprint(value) if isinstance(value, torch.Tensor | np.ndarray) else str(value)
