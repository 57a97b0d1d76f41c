"""Import of heavy packages with an answer that helps when it fails."""

from __future__ import annotations

__all__ = ["cannot_load", "import_package"]

import importlib
import importlib.metadata
from typing import Any

from conceptlab.errors import CheckpointError, DependencyError

_TOLD = ("torch", "torchvision", "open_clip_torch", "transformers", "numpy")


def import_package(module: str, distribution: str) -> Any:
    """Import `module`, or say which package is missing or does not fit.

    Parameters
    ----------
    module : str
        Name to import, such as ``"open_clip"``.
    distribution : str
        Name to install, such as ``"open_clip_torch"``.

    Returns
    -------
    module

    Raises
    ------
    DependencyError
        ``CL-DEPENDENCY-MISSING`` if it is not installed,
        ``CL-DEPENDENCY-BROKEN`` if it is but cannot be imported, such as a
        torchvision that was built for another torch; names the versions.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken build raises RuntimeError, OSError, AttributeError, ...
        missing = (
            isinstance(error, ModuleNotFoundError)
            and (error.name or "").split(".")[0] == (module.split(".")[0])
        )
        if missing:
            raise DependencyError(
                f"{distribution} is needed for this and is not installed. "
                f"Install it with: pip install {distribution}",
                code="CL-DEPENDENCY-MISSING",
            ) from error
        raise DependencyError(
            f"{distribution} is installed but cannot be imported: {type(error).__name__}: {error}. "
            f"Found {_versions()}. They have to fit together: "
            f"pip install --upgrade torch torchvision {distribution}",
            code="CL-DEPENDENCY-BROKEN",
        ) from error


def cannot_load(source: str, error: Exception, mend: str) -> CheckpointError:
    """Say why a library could not load a model.

    Parameters
    ----------
    source : str
        The model, as the user named it.
    error : Exception
        What the library raised.
    mend : str
        What to give instead.

    Returns
    -------
    CheckpointError
        ``CL-CHECKPOINT-UNSAFE`` if the model would bring code of its own, else
        ``CL-CHECKPOINT-MISSING``.
    """
    if "trust_remote_code" in str(error):
        return CheckpointError(
            f"{source} asks to run code of its own, which is never done. Look into it, build the "
            "model yourself, and give the model.",
            code="CL-CHECKPOINT-UNSAFE",
        )
    return CheckpointError(
        f"Cannot load {source}: {type(error).__name__}: {error}. {mend}",
        code="CL-CHECKPOINT-MISSING",
    )


def _versions() -> str:
    found = []
    for name in _TOLD:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
