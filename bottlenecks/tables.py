"""Which concepts a class has: from the user, or from the scores."""

from __future__ import annotations

__all__ = ["positives_table"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conceptlab.errors import InputError, unknown_name


def positives_table(
    given: Any,
    n_positives: int,
    Z: np.ndarray,
    y: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
) -> np.ndarray:
    """Make the table of classes by concepts.

    Parameters
    ----------
    given : mapping of class to names, array of shape (K, k), or None
        None takes for each class the `n_positives` concepts with the largest mean score.
    n_positives : int
    Z : ndarray of shape (n, k)
        Standardised scores.
    y : ndarray of shape (n,), int64
        Columns of the classes.
    classes : ndarray of shape (K,)
    names : sequence of k str

    Returns
    -------
    ndarray of shape (K, k), bool

    Raises
    ------
    InputError
        A class or concept that is not there, a class without concepts, another shape.

    Examples
    --------
    >>> Z = np.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> positives_table(None, 1, Z, np.array([0, 1]), np.array(["a", "b"]), ["p", "q"]).tolist()
    [[True, False], [False, True]]
    """
    shape = (len(classes), len(names))
    table = np.zeros(shape, dtype=bool)
    if given is None:
        for c in range(shape[0]):
            mean = Z[y == c].mean(axis=0)
            table[c, np.argsort(-mean, kind="stable")[:n_positives]] = True
        return table
    if isinstance(given, Mapping):
        labels = {str(label): c for c, label in enumerate(classes)}
        places = {name: j for j, name in enumerate(names)}
        for label, concepts in given.items():
            if str(label) not in labels:
                raise unknown_name("class", label, labels, code="CL-INPUT-LABELS")
            if isinstance(concepts, str):
                raise InputError(
                    f"class_concepts[{label!r}] must be a list of concepts, got one string "
                    f"{concepts!r}.",
                    code="CL-INPUT-TYPE",
                )
            for name in concepts:
                if name not in places:
                    raise unknown_name("concept", name, names)
                table[labels[str(label)], places[name]] = True
    else:
        found = np.asarray(given)
        if found.shape != shape or not np.isin(found, (0, 1)).all():
            raise InputError(
                f"class_concepts must be a mapping from class to names, or {shape} booleans "
                f"(classes, concepts), got {found.dtype} of shape {found.shape}.",
                code="CL-INPUT-SHAPE",
            )
        table = found.astype(bool)
    empty = [str(label) for label, row in zip(classes, table, strict=True) if not row.any()]
    if empty:
        raise InputError(
            f"{len(empty)} class(es) have no concepts in class_concepts: {empty[:5]}. Name at "
            "least one for each.",
            code="CL-INPUT-LABELS",
        )
    return table
