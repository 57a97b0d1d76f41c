"""Figures made of accuracies: average gap, tug of war, adaptive unlearning score."""

from __future__ import annotations

__all__ = ["accuracy", "adaptive_unlearning_score", "average_gap", "tug_of_war"]

from collections.abc import Mapping
from typing import Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError

_SETS = ("forget", "retain", "test")


def accuracy(predicted: Any, y: ArrayLike) -> float:
    """Compute the share of right answers.

    Parameters
    ----------
    predicted : array-like of shape (n,) or (n, C)
        Labels, or logits (the largest counts, the first among equals).
    y : array-like of shape (n,)
        True labels.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> accuracy(np.array([[2.0, 1.0], [0.0, 3.0]]), [0, 0])
    0.5
    """
    found, true = as_numpy(predicted), as_numpy(y)
    if found.ndim == 2:
        found = found.argmax(axis=1)
    if found.shape != true.shape or not len(true):
        raise InputError(
            f"Expected as many answers as labels and at least one, got shapes "
            f"{np.shape(predicted)} and {np.shape(y)}.",
            code="CL-INPUT-SHAPE",
        )
    return float(np.mean(found == true))


def average_gap(unlearned: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Compute the mean distance to the retrained model, in percentage points.

    Parameters
    ----------
    unlearned, reference : mapping of str to float
        The same figures of both models in [0, 1]; usually ``ua`` (1 - forget accuracy),
        ``ra``, ``ta`` and ``mia``.

    Returns
    -------
    float
        In [0, 100]; 0 is ideal.

    Notes
    -----
    mean_k |m_k(u) - m_k(r)| over the figures.

    References
    ----------
    Fan et al., "SalUn", ICLR 2024 (Avg. Gap).

    Examples
    --------
    >>> average_gap({"ua": 1.0, "ra": 0.98}, {"ua": 1.0, "ra": 1.0})
    1.0
    """
    if set(unlearned) != set(reference) or not unlearned:
        raise InputError(
            f"Both models need the same figures, got {sorted(unlearned)} and {sorted(reference)}.",
            code="CL-INPUT-NAMES",
        )
    gaps = [abs(float(unlearned[k]) - float(reference[k])) for k in unlearned]
    return round(100 * float(np.mean(gaps)), 12)


def tug_of_war(unlearned: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Compute ToW: the product over three sets of one minus the distance in accuracy.

    Parameters
    ----------
    unlearned, reference : mapping of str to float
        Accuracies on ``forget``, ``retain`` and ``test`` in [0, 1].

    Returns
    -------
    float
        In [0, 1]; 1 is ideal.

    References
    ----------
    Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024 (ToW).

    Examples
    --------
    >>> tug_of_war(
    ...     {"forget": 0.5, "retain": 1.0, "test": 0.9}, {"forget": 0.0, "retain": 1.0, "test": 0.9}
    ... )
    0.5
    """
    product = 1.0
    for name in _SETS:
        if name not in unlearned or name not in reference:
            raise InputError(
                f"ToW needs accuracies on forget, retain and test; {name!r} is missing.",
                code="CL-INPUT-NAMES",
            )
        product *= 1 - abs(float(unlearned[name]) - float(reference[name]))
    return product


def adaptive_unlearning_score(
    test_before: float, test_after: float, forget_after: float, forget_reference: float = 0.0
) -> float:
    """Compute AUS, which weighs what was kept against what was forgotten.

    Parameters
    ----------
    test_before, test_after : float
        Accuracy on test samples of retained classes, before and after.
    forget_after, forget_reference : float
        Accuracy on forget samples, after and of a retrained model (0 for a class that
        it never saw).

    Returns
    -------
    float
        (1 - (TA_o - TA_u)) / (1 + |FA_u - FA_r|); 1 is ideal, more means that the
        retained classes got better.

    References
    ----------
    Cotogni et al., "DUCK: distance-based unlearning via centroid kinematics", 2023; the metric AUS.

    Examples
    --------
    >>> adaptive_unlearning_score(0.9, 0.9, 1.0)
    0.5
    """
    return (1 - (test_before - test_after)) / (1 + abs(forget_after - forget_reference))
