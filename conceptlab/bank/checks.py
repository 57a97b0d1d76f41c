"""What a bank accepts."""

from __future__ import annotations

__all__ = ["check_vectors", "checked_meta", "checked_names", "checked_parents", "frozen"]

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError


def frozen(values: ArrayLike, dtype: Any = None) -> np.ndarray:
    """Copy to a read-only floating array."""
    if isinstance(values, torch.Tensor) and values.dtype == torch.float16:
        array = values.detach().cpu().numpy().copy()
    else:
        array = np.array(as_numpy(values))
    if array.dtype not in (np.float16, np.float32, np.float64):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"Expected numbers, got an array of {array.dtype}.", code="CL-INPUT-TYPE"
            ) from error
    array = array if dtype is None else array.astype(dtype)
    array.setflags(write=False)
    return array


def checked_names(names: Any) -> tuple[str, ...]:
    """Give names as a tuple, or say which are duplicate, empty or no strings."""
    if isinstance(names, str):
        raise InputError(
            f"names must be a sequence of strings, got the string {names!r}.", code="CL-INPUT-NAMES"
        )
    items = list(names)
    strange = [name for name in items if not isinstance(name, str)]
    if strange:
        raise InputError(
            f"Concept names must be strings; {len(strange)} are not: {strange[:5]!r}.",
            code="CL-INPUT-NAMES",
        )
    empty = [index for index, name in enumerate(items) if not name.strip()]
    if empty:
        raise InputError(
            f"Concept names must not be empty; those at {empty[:5]} are.", code="CL-INPUT-NAMES"
        )
    seen: set[str] = set()
    repeated = [name for name in items if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if repeated:
        raise InputError(
            f"Concept names must differ; more than once: {list(dict.fromkeys(repeated))[:5]}.",
            code="CL-INPUT-NAMES",
        )
    return tuple(str(name) for name in items)


def check_vectors(matrix: np.ndarray, names: Sequence[str]) -> None:
    """Say which vectors are not finite or have length zero, and what shape does not fit."""
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(
            f"vectors must have shape (n_concepts, n_features), got {matrix.shape}.",
            code="CL-INPUT-RANK" if matrix.ndim != 2 else "CL-INPUT-EMPTY",
        )
    if len(matrix) != len(names):
        raise InputError(
            f"There are {len(matrix)} vectors but {len(names)} names. Give one name for each.",
            code="CL-INPUT-SHAPE",
        )
    bad = [names[int(i)] for i in np.flatnonzero(~np.isfinite(matrix).all(axis=1))]
    if bad:
        raise InputError(
            f"{len(bad)} concept vectors hold NaN or infinity: {bad[:5]}. Leave them out.",
            code="CL-INPUT-NONFINITE",
        )
    zero = [names[int(i)] for i in np.flatnonzero(~matrix.any(axis=1))]
    if zero:
        raise InputError(
            f"{len(zero)} concept vectors have length zero: {zero[:5]}. Leave those concepts out.",
            code="CL-INPUT-ZERO",
        )


def checked_parents(parents: Any, k: int) -> tuple[int | None, ...] | None:
    """Give parents as indices or None, or say why they are no tree."""
    if parents is None:
        return None
    items = [None if p is None or p == -1 else p for p in parents]
    whole = all(p is None or (isinstance(p, int | np.integer) and 0 <= p < k) for p in items)
    if len(items) != k or not whole:
        raise InputError(
            f"parents must be {k} indices from 0 to {k - 1}, or None for roots, got {items[:9]!r}.",
            code="CL-INPUT-SHAPE",
        )
    links = tuple(None if p is None else int(p) for p in items)
    for start in range(k):
        step, at = 0, links[start]
        while at is not None:
            step, at = step + 1, links[at]
            if step > k:
                raise InputError(
                    f"parents must form a tree, but concept {start} is its own ancestor.",
                    code="CL-INPUT-SHAPE",
                )
    return links


def checked_meta(meta: Mapping[str, Any] | None, k: int) -> str:
    """Freeze `meta` as JSON text."""
    try:
        text = json.dumps(dict(meta or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"meta must hold JSON values (no NaN, arrays or objects): {error}.",
            code="CL-INPUT-TYPE",
        ) from error
    columns = (meta or {}).get("concepts", {})
    wrong = not isinstance(columns, Mapping) or [
        key for key, column in columns.items() if not isinstance(column, list) or len(column) != k
    ]
    if wrong:
        raise InputError(
            f"meta['concepts'] must be columns of {k} values, one for each concept: {wrong!r}.",
            code="CL-INPUT-SHAPE",
        )
    return text
