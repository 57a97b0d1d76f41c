"""From logits to probabilities and to the two best classes, a part at a time."""

from __future__ import annotations

__all__ = ["insert_best", "is_tensor", "log_softmax_in_place"]

from typing import Any

import numpy as np
import torch

_PART = 1 << 20


def is_tensor(value: Any) -> bool:
    """Tell tensors from arrays."""
    return isinstance(value, torch.Tensor)


def log_softmax_in_place(logits: Any) -> Any:
    """Subtract the log of the sum of exponentials in place, a part at a time."""
    if is_tensor(logits):
        return torch.log_softmax(logits, dim=1)
    step = max(1, _PART // logits.shape[1])
    for start in range(0, len(logits), step):
        part = logits[start : start + step]
        part -= part.max(axis=1, keepdims=True)
        part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
    return logits


def insert_best(
    best: np.ndarray, columns: np.ndarray, value: np.ndarray, column: np.ndarray
) -> None:
    """Put candidates where they belong among the two best; the lower column wins ties."""
    for place in (0, 1):
        held = columns[:, place]
        above = (value > best[:, place]) | ((value == best[:, place]) & (column < held))
        moved = best[above, place], columns[above, place]
        best[above, place], columns[above, place] = value[above], column[above]
        value, column = value.copy(), column.copy()
        value[above], column[above] = moved
