"""What a head accepts: parameters, rows and labels."""

from __future__ import annotations

__all__ = ["checked_matrix", "checked_target", "compute_dtype"]

from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayKind, ArrayLike, check_features, check_finite
from conceptlab.errors import InputError, unknown_name
from conceptlab.zeroshot.labels import checked_labels

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


def checked_target(estimator: Any, y: ArrayLike, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Give the classes, sorted, and the class of every row as int64."""
    if y is None:
        raise InputError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None. "
            "Give one label a row.",
            code="CL-INPUT-LABELS",
        )
    labels = checked_labels(y, X)
    classes, target = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"A classifier needs at least two classes, got 1 class: {classes.tolist()}. Give rows "
            "of another class too.",
            code="CL-INPUT-FEW",
        )
    return classes, target.astype(np.int64)


def compute_dtype(name: str, X: ArrayLike) -> torch.dtype:
    """Choose the type of the products."""
    if name == "auto":
        return ArrayKind.of(X).compute_dtype
    if not isinstance(name, str) or name not in _DTYPES:
        raise unknown_name("dtype", name, ["auto", *_DTYPES])
    return _DTYPES[name]
