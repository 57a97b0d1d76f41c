"""Removers by name."""

from __future__ import annotations

__all__ = ["DEFAULT_REMOVERS", "REMOVERS", "available_removers", "make_remover"]

import re
from collections.abc import Callable
from typing import Any

from conceptlab.errors import DependencyError, unknown_name
from unlearning.removal.removers.base import CallableRemover, RemoverSetup
from unlearning.removal.removers.biharmonic import Biharmonic
from unlearning.removal.removers.controls import Oracle
from unlearning.removal.removers.opencv import NavierStokes, Telea
from unlearning.removal.removers.patchmatch import PatchMatch
from unlearning.removal.removers.simple import GaussianBlur, MeanFill, Nothing
from unlearning.removal.removers.torchscript import TorchScriptRemover

REMOVERS: dict[str, Callable[[], Any]] = {
    "nothing": Nothing,
    "mean_fill": MeanFill,
    "blur": GaussianBlur,
    "telea": Telea,
    "navier_stokes": NavierStokes,
    "biharmonic": Biharmonic,
    "patchmatch": PatchMatch,
    "oracle": Oracle,
}
"""Removers that need no weights."""

DEFAULT_REMOVERS = (
    "blur",
    "telea",
    "telea+2",
    "telea-2",
    "navier_stokes",
    "biharmonic",
    "patchmatch",
)
"""What is compared when nobody says what; controls are always added."""

_SPEC = re.compile(r"^(?P<name>.+?)(?P<dilation>[+-]\d+)?$")


def make_remover(spec: Any) -> RemoverSetup:
    """Make a remover with its mask policy from a short name.

    Parameters
    ----------
    spec : str, Remover, callable or RemoverSetup
        A name of ``REMOVERS``, optionally with the dilation in pixels: ``"telea"``,
        ``"telea+3"``, ``"telea-2"``; or ``"torchscript:FILE"``, also with a dilation.

    Returns
    -------
    RemoverSetup

    Raises
    ------
    InputError
        For an unknown name.
    DependencyError
        If the remover's package is missing.

    Examples
    --------
    >>> make_remover("mean_fill+2")
    RemoverSetup('mean_fill +2')
    """
    if isinstance(spec, RemoverSetup):
        return spec
    if not isinstance(spec, str):
        return RemoverSetup(spec if hasattr(spec, "remove") else CallableRemover(spec))
    parts = _SPEC.match(spec)
    name = parts["name"] if parts else spec
    dilation = int(parts["dilation"] or 0) if parts else 0
    if name.startswith("torchscript:"):
        return RemoverSetup(TorchScriptRemover(name.partition(":")[2]), dilation)
    if name not in REMOVERS:
        raise unknown_name(
            "remover", name, REMOVERS, hint="Or torchscript:FILE. Add +3 to grow masks by 3 pixels."
        )
    return RemoverSetup(REMOVERS[name](), dilation)


def available_removers(specs: Any = DEFAULT_REMOVERS) -> tuple[list[RemoverSetup], dict[str, str]]:
    """Make those removers whose packages are installed.

    Parameters
    ----------
    specs : sequence
        See :func:`make_remover`.

    Returns
    -------
    found : list of RemoverSetup
        Those that can run.
    missing : dict of str to str
        The others, with the reason.

    Examples
    --------
    >>> found, missing = available_removers(["blur", "mean_fill"])
    >>> [setup.label for setup in found], missing
    (['blur', 'mean_fill'], {})
    """
    found, missing = [], {}
    for spec in specs:
        try:
            found.append(make_remover(spec))
        except DependencyError as error:
            missing[str(spec)] = str(error)
    return found, missing
