"""What a head accepts: rows and types of numbers."""

from __future__ import annotations

__all__ = ["checked_matrix", "compute_dtype"]

from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayKind, ArrayLike, check_features, check_finite
from conceptlab.errors import unknown_name

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_ROWS = 1 << 14


def checked_matrix(estimator: Any, X: ArrayLike) -> Any:
    """Check rows for fit; a memory map stays one and is looked through in chunks."""
    if not isinstance(X, np.memmap) or X.ndim != 2 or X.dtype.kind != "f" or min(X.shape) < 1:
        return check_features(estimator, X, reset=True)
    estimator.n_features_in_ = int(X.shape[1])
    if hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    for start in range(0, len(X), _ROWS):
        check_finite(np.array(X[start : start + _ROWS]), "X")
    return X


def compute_dtype(name: str, X: ArrayLike) -> torch.dtype:
    """Choose the type of the products."""
    if name == "auto":
        return ArrayKind.of(X).compute_dtype
    if not isinstance(name, str) or name not in _DTYPES:
        raise unknown_name("dtype", name, ["auto", *_DTYPES])
    return _DTYPES[name]
