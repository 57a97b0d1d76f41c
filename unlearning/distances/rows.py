"""Feature matrices at the door: numbers, finite, a row for each image."""

from __future__ import annotations

__all__ = ["check_pair", "feature_tensor", "placed", "unit_rows"]

from typing import Any

import torch

from conceptlab.arrays import ArrayLike, as_tensor, check_finite, check_scale, resolve_device
from conceptlab.errors import InputError


def feature_tensor(X: Any, name: str, *, device: str | torch.device = "auto") -> torch.Tensor:
    """Check a feature matrix and give it in float64 on `device`.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Numbers of any kind.
    name : str
        What messages call it.
    device : str or torch.device
        ``"auto"`` takes a tensor's own; NumPy arrays stay on the CPU.

    Returns
    -------
    Tensor of shape (n, d), float64
        On the CPU where the device has no float64.

    Raises
    ------
    InputError
        Not 2-D or no numbers, NaN or infinity, no feature, or numbers whose powers
        leave float64 (``CL-INPUT-RANGE``).
    """
    if _on_mps(X):
        X = X.detach().cpu()
    tensor = as_tensor(X, dtype=torch.float64, name=name)
    if tensor.ndim != 2 or tensor.shape[1] < 1:
        raise InputError(
            f"{name} must be features of shape (n, d), got {tuple(tensor.shape)}. Images go "
            "through an encoder first: encoder.encode_image(images).",
            code="CL-INPUT-RANK",
        )
    tensor = placed(tensor.detach(), device)
    check_finite(tensor, name)
    check_scale(tensor, name)
    return tensor


def placed(rows: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Give checked rows on `device`: ``"auto"`` where they are, the CPU for want of float64."""
    if device == "auto":
        return rows
    chosen = resolve_device(device)
    return rows.to("cpu" if chosen.type == "mps" else chosen)


def _on_mps(X: ArrayLike) -> bool:
    return isinstance(X, torch.Tensor) and X.device.type == "mps"


def unit_rows(X: ArrayLike, name: str = "X") -> torch.Tensor:
    """Scale rows to length one in float64; a row of zeros is an error."""
    rows = feature_tensor(X, name)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        first = int((lengths == 0).flatten().nonzero()[0])
        raise InputError(
            f"Row {first} of {name} is zero and has no direction. Check that image.",
            code="CL-INPUT-ZERO",
        )
    return rows / lengths


def check_pair(X: torch.Tensor, Y: torch.Tensor) -> None:
    """Refuse sets of different features, or of a single row."""
    if X.shape[1] != Y.shape[1]:
        raise InputError(
            f"X has {X.shape[1]} features, Y has {Y.shape[1]}. Both must come from one extractor.",
            code="CL-INPUT-FEATURES",
        )
    if min(len(X), len(Y)) < 2:
        raise InputError(
            f"X has {len(X)} and Y {len(Y)} rows; each needs at least 2. Give more images.",
            code="CL-INPUT-FEW",
        )
