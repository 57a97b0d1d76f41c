"""Concept labels with gaps, and conformal sets of them."""

from __future__ import annotations

__all__ = [
    "ConceptLabels",
    "check_both_kinds",
    "conformal_sets",
    "read_concepts",
    "split_for_calibration",
]

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError
from conceptlab.parameters import Real

_FEW_ROWS = 20


@dataclass(frozen=True)
class ConceptLabels:
    """Which rows have which concepts, where that is known.

    Attributes
    ----------
    values : ndarray of shape (n, k), float64
        0 and 1; 0 where unknown.
    known : ndarray of shape (n, k), bool
    names : list of k str, or None
    """

    values: np.ndarray
    known: np.ndarray
    names: list[str] | None

    def take(self, rows: np.ndarray) -> ConceptLabels:
        """Give some rows."""
        return ConceptLabels(self.values[rows], self.known[rows], self.names)


def read_concepts(given: Any, n: int) -> ConceptLabels:
    """Check concept labels.

    Parameters
    ----------
    given : array-like of shape (n, k), data frame, or mapping of name to (n,)
        0 and 1, or booleans; NaN where it is not known.
    n : int
        Rows of X.

    Returns
    -------
    ConceptLabels

    Raises
    ------
    InputError
        Other values, another number of rows.
    """
    names = None
    if isinstance(given, Mapping):
        names = [str(name) for name in given]
        columns = [_numbers(column) for column in given.values()]
        lengths = {len(column) for column in columns if column.ndim == 1}
        if lengths != {n} or any(column.ndim != 1 for column in columns):
            raise InputError(
                f"concepts must have one label for each of the {n} rows of X, got lengths "
                f"{sorted(lengths)}. Use NaN where a label is not known.",
                code="CL-INPUT-SHAPE",
            )
        table = np.stack(columns, axis=1)
    else:
        if hasattr(given, "columns"):
            names = [str(name) for name in given.columns]
        table = _numbers(given.to_numpy(dtype=object) if names is not None else given)
    if table.ndim != 2 or len(table) != n or not table.shape[1]:
        raise InputError(
            f"concepts must have a row for each of the {n} rows of X and a column for each "
            f"concept, got shape {table.shape}. Use NaN where a label is not known.",
            code="CL-INPUT-SHAPE",
        )
    known = ~np.isnan(table)
    values = np.where(known, table, 0.0)
    if not np.isin(values, (0, 1)).all():
        raise InputError(
            f"concepts must be 0 and 1, or NaN where not known; got "
            f"{np.unique(values)[:5].tolist()}. Say where a concept begins, for example > 0.5.",
            code="CL-INPUT-LABELS",
        )
    return ConceptLabels(values, known, names)


def _numbers(given: Any) -> np.ndarray:
    try:
        return np.asarray(as_numpy(given)).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"concepts must be numbers 0 and 1, or NaN: {error}", code="CL-INPUT-LABELS"
        ) from error


def check_both_kinds(labels: ConceptLabels, names: list[str]) -> None:
    """Raise an error where a concept is never known, or always the same."""
    none = ~labels.known.any(axis=0)
    if none.any():
        raise InputError(
            f"{int(none.sum())} concept(s) have no label in any row: "
            f"{[names[j] for j in np.flatnonzero(none)][:5]}. Leave them out, or label some rows.",
            code="CL-INPUT-EMPTY",
        )
    present = (labels.values > 0).any(axis=0)
    absent = ((labels.values == 0) & labels.known).any(axis=0)
    alike = ~(present & absent)
    if alike.any():
        raise InputError(
            f"{int(alike.sum())} concept(s) have the same label in all rows where it is known, so "
            f"nothing can be learnt: {[names[j] for j in np.flatnonzero(alike)][:5]}. Leave them "
            "out, or add rows of the other kind.",
            code="CL-INPUT-ZERO",
        )


def split_for_calibration(
    features: np.ndarray, labels: ConceptLabels, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows to fit and rows to hold out, (m,) and (n - m,), sorted.

    Equal rows stay together, so that what is held out was not seen. Of each concept both kinds
    stay among the rows to fit. Below 20 different rows none is held out.
    """
    salt = seed.to_bytes(16, "little", signed=True)
    digests = (blake2b(row.tobytes(), digest_size=8, salt=salt).digest() for row in features)
    drawn = np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
    order = np.argsort(drawn, kind="stable")
    held = np.zeros(len(drawn), dtype=bool)
    if len(np.unique(drawn)) >= _FEW_ROWS:
        held = drawn / 2.0**64 < share
    for j in range(labels.values.shape[1]):
        for value in (0, 1):
            like = labels.known[:, j] & (labels.values[:, j] == value)
            if not (like & ~held).any():
                held[drawn == drawn[order[like[order]][-1]]] = False
    return np.flatnonzero(~held), np.flatnonzero(held)


def conformal_sets(logits: np.ndarray, scores: np.ndarray, level: float) -> np.ndarray:
    """Give the labels that cannot be excluded, (n, k, 2) bool: absent, present.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
        Of the concepts.
    scores : ndarray of shape (m, k)
        Minus the logit towards the true label, of rows that no fit has seen; NaN where the
        label is not known.
    level : float
        Above 0 and below 1.

    Returns
    -------
    ndarray
        Of each concept, the set holds the truth of a new row with a probability of at least
        `level`, and at most level + 1 / (m + 1) where no scores are equal.
    """
    Real(above=0, below=1).check("level", level)
    found = np.ones((*logits.shape, 2), dtype=bool)
    for j, column in enumerate(scores.T):
        known = np.sort(column[~np.isnan(column)])
        rank = int(np.ceil((len(known) + 1) * level - 1e-9))
        if rank <= len(known):
            bound = known[rank - 1]
            found[:, j, 0] = logits[:, j] <= bound
            found[:, j, 1] = -logits[:, j] <= bound
    return found
