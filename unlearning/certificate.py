"""What was done to a model, in a form that can be checked later."""

from __future__ import annotations

__all__ = ["describe_parameters", "make_certificate", "verify_certificate"]

from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.models.identity import describe_callable
from conceptlab.provenance import fingerprint, provenance
from unlearning.data import Samples, as_samples


def describe_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Turn a method's parameters into JSON values; objects become their sha256."""
    return {key: _plain(value) for key, value in parameters.items()}


def make_certificate(
    *,
    method: str,
    parameters: dict[str, Any],
    seed: int,
    before: str,
    after: str,
    forget: Samples,
    retain: Samples,
    steps: int,
    cpu_seconds: float,
    stopped: str,
    device: str,
) -> dict[str, Any]:
    """Collect the facts of a run.

    Parameters
    ----------
    method : str
        Name of the class.
    parameters : dict
        As :func:`describe_parameters` gives them.
    seed : int
        Of all generators.
    before, after : str
        sha256 of the model.
    forget, retain : Samples
        Only their digests are kept, never a sample.
    steps : int
        Optimiser steps.
    cpu_seconds : float
        Of the process.
    stopped : str
        Why the run ended.
    device : str
        Where it was computed.

    Returns
    -------
    dict
        JSON values.
    """
    return provenance(
        method=method,
        parameters=parameters,
        seed=seed,
        classes_forgotten=forget.classes,
        n_forget=len(forget),
        n_retain=len(retain),
        sha256_before=before,
        sha256_after=after,
        digest_forget=forget.digest,
        digest_retain=retain.digest,
        steps=steps,
        cpu_seconds=round(cpu_seconds, 3),
        stopped=stopped,
        device=device,
    )


def verify_certificate(
    certificate: dict[str, Any],
    *,
    before: nn.Module | None = None,
    after: nn.Module | None = None,
    forget: Any = None,
    retain: Any = None,
) -> dict[str, bool]:
    """Compare models and data with what a certificate says.

    It tells whether these are the weights and data of that run. It cannot tell
    whether the class is forgotten; :func:`unlearning.audit.audit` measures that.

    Parameters
    ----------
    certificate : dict
        ``UnlearnResult.certificate``.
    before, after : torch.nn.Module, optional
        The models.
    forget, retain : object, optional
        The data, as they were given, in the same order.

    Returns
    -------
    dict of str to bool
        One answer for each argument that was given.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> certificate = {"sha256_after": fingerprint(model)}
    >>> verify_certificate(certificate, after=model)
    {'after': True}
    """
    found: dict[str, bool] = {}
    for name, model in (("before", before), ("after", after)):
        if model is not None:
            found[name] = fingerprint(model) == certificate.get(f"sha256_{name}")
    for name, data in (("forget", forget), ("retain", retain)):
        if data is not None:
            digest = as_samples(data, name=name).digest
            found[name] = digest == certificate.get(f"digest_{name}")
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, torch.device):
        return str(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{name} sha256:{_digest(value)[:16]}"


def _digest(value: Any) -> str:
    if isinstance(value, nn.Module | torch.Tensor | np.ndarray):
        return fingerprint(value)
    described = describe_callable(value) if callable(value) else getattr(value, "fingerprint", "")
    return fingerprint(described if isinstance(described, str | list) else repr(type(value)))
