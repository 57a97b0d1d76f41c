"""Rows of the fit, known again by codes."""

from __future__ import annotations

__all__ = ["row_codes", "share_seen"]

from hashlib import blake2b
from typing import Any

import numpy as np

from conceptlab.arrays import as_numpy

_ROWS = 4096


def row_codes(X: Any, most: int = _ROWS) -> np.ndarray:
    """Give codes of at most so many rows, evenly taken, (m,) int64, sorted.

    Rows are compared as float32, so that a kind of array makes no difference.
    """
    some = X[:: -(-len(X) // most)] if len(X) > most else X
    rows = np.ascontiguousarray(as_numpy(some), dtype=np.float32) + 0.0  # no -0
    digests = (blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    codes = [int.from_bytes(d, "little", signed=True) for d in digests]
    return np.sort(np.array(codes, dtype=np.int64))


def share_seen(codes: np.ndarray | None, X: Any) -> float:
    """Give the share of rows of X that the fit has seen, as far as its rows are known.

    0 where rows of the fit repeat each other anyway.
    """
    if codes is None or not len(codes) or len(np.unique(codes)) < 0.9 * len(codes):
        return 0.0
    return float(np.isin(row_codes(X), codes).mean())
