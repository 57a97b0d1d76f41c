"""Concepts of a forgotten class: still attributed, still encoded, and where did they go?"""

from __future__ import annotations

__all__ = ["OwnConcepts", "Surrogate", "concept_surrogate", "donors", "find_class_concepts"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_floats, as_numpy
from conceptlab.errors import InputError, unknown_name

OWN, SHARED = 0.5, 0.25


@dataclass(frozen=True)
class OwnConcepts:
    """Which concepts belong to the forgotten class.

    Attributes
    ----------
    concepts : tuple of int
        Those that it shows more than retained classes do.
    exclusive : tuple of int
        Those that no retained class shows nearly as often.
    rates : ndarray of shape (k, 2)
        Share of samples that show a concept: of the forgotten class, and the largest of a
        retained class.
    """

    concepts: tuple[int, ...]
    exclusive: tuple[int, ...]
    rates: np.ndarray


def find_class_concepts(
    shown: ArrayLike,
    y: ArrayLike,
    forgotten: Sequence[int],
    *,
    names: Sequence[str] = (),
    concepts: Sequence[str] | None = None,
    exclusive: Sequence[str] | None = None,
) -> OwnConcepts:
    """Find the concepts of a class from what samples show.

    Parameters
    ----------
    shown : array-like of shape (n, k), bool
        Which sample shows which concept.
    y : array-like of shape (n,)
        Classes.
    forgotten : sequence of int
        The forgotten classes, taken together.
    names : sequence of k str
        Needed with the next two.
    concepts, exclusive : sequence of str, optional
        Names, where they are known; found by rates when left out.

    Returns
    -------
    OwnConcepts

    Notes
    -----
    A concept is the class's when its share exceeds the mean over retained classes by 0.25,
    and exclusive when it exceeds that of every retained class by 0.5.

    Examples
    --------
    >>> shown = np.array([[1, 1], [1, 1], [1, 0], [0, 0]], dtype=bool)
    >>> found = find_class_concepts(shown, [0, 0, 1, 1], [0])
    >>> found.concepts, found.exclusive
    ((0, 1), (0, 1))
    """
    S, labels = as_floats(shown, "shown") != 0, as_numpy(y)
    if S.ndim != 2 or labels.shape != (len(S),):
        raise InputError(
            f"Expected concepts (n, k) and labels (n,), got shapes {S.shape} and {labels.shape}.",
            code="CL-INPUT-SHAPE",
        )
    gone = class_numbers(forgotten)
    mine = np.isin(labels, list(gone))
    others = [c for c in np.unique(labels) if c not in gone]
    if not mine.any() or not others:
        raise InputError(
            "Concepts of a class need samples of it and of retained classes.",
            code="CL-INPUT-LABELS",
        )
    own = S[mine].mean(axis=0)
    rest = np.stack([S[labels == c].mean(axis=0) for c in others])
    found = np.flatnonzero(own - rest.mean(axis=0) >= SHARED)
    alone = np.flatnonzero(own - rest.max(axis=0) >= OWN)
    return OwnConcepts(
        _picked(concepts, names, found),
        _picked(exclusive, names, alone),
        np.stack([own, rest.max(axis=0)], axis=1),
    )


def class_numbers(classes: Any) -> set[int]:
    """Check numbers of classes, and give them as a set."""
    values = as_floats(classes, "The forgotten classes").ravel()
    if (values != np.round(values)).any():
        raise InputError(
            f"The forgotten classes must be whole numbers, got {values.tolist()[:5]}.",
            code="CL-INPUT-TYPE",
        )
    return {int(c) for c in values}


def _picked(wanted: Sequence[str] | None, names: Sequence[str], found: Any) -> tuple[int, ...]:
    if wanted is None:
        return tuple(int(k) for k in found)
    places = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in names:
            raise unknown_name("concept", name, list(names), code="CL-INPUT-NAMES")
        places.append(list(names).index(name))
    return tuple(places)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A linear model from concepts to one model's logits, and what it attributes.

    Attributes
    ----------
    attributions : ndarray of shape (C, k)
        Mean integrated gradients of concept k on logit j over samples of the forgotten
        class; the baseline is the mean retained sample.
    r2 : ndarray of shape (C,)
        Share of each logit's variance that the concepts explain.
    """

    attributions: np.ndarray
    r2: np.ndarray


def concept_surrogate(
    scores: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike,
    forgotten: Sequence[int],
    *,
    l2: float = 0.01,
) -> Surrogate:
    """Attribute logits of the forgotten class's samples to concepts.

    Parameters
    ----------
    scores : array-like of shape (n, k)
        Concepts of each sample, labels or scores.
    logits : array-like of shape (n, C)
        Of the model that is looked at.
    y : array-like of shape (n,)
        True classes.
    forgotten : sequence of int
        The forgotten classes.
    l2 : float
        Ridge penalty, as a share of n, on standardised scores.

    Returns
    -------
    Surrogate

    Notes
    -----
    Logits are centred by the mean over retained classes, since a constant for all classes
    says nothing. The surrogate is a ridge regression g_j(s) = w_j·s + b_j, on which
    integrated gradients are exact in one step, A_k = (s_k - s0_k) w_jk (Sundararajan et al.,
    "Axiomatic attribution for deep networks", ICML 2017, eq. 1). By completeness the
    attributions of a logit that became small are small: this figure is necessary for
    removal and not sufficient.

    Examples
    --------
    >>> S = np.array([[1.0], [1.0], [0.0], [0.0]])
    >>> found = concept_surrogate(S, np.c_[4 * S, 0 * S], [0, 0, 1, 1], [0], l2=0.0)
    >>> found.attributions.round(6).tolist(), found.r2.round(6).tolist()
    ([[4.0], [0.0]], [1.0, 1.0])
    """
    S, Z = as_floats(scores, "scores"), as_floats(logits, "logits")
    labels = as_numpy(y)
    if S.ndim != 2 or Z.ndim != 2 or not labels.shape == (len(S),) == (len(Z),):
        raise InputError(
            f"Expected concepts (n, k) and logits (n, C) of the same samples, got shapes "
            f"{S.shape}, {Z.shape} and {labels.shape}.",
            code="CL-INPUT-SHAPE",
        )
    gone = class_numbers(forgotten)
    mine = np.isin(labels, list(gone))
    kept = [j for j in range(Z.shape[1]) if j not in gone]
    Z = Z - Z[:, kept].mean(axis=1, keepdims=True)
    mean, scale = S.mean(axis=0), S.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    X, T = (S - mean) / scale, Z - Z.mean(axis=0)
    gram = X.T @ X + l2 * len(X) * np.eye(X.shape[1])
    W = np.linalg.lstsq(gram, X.T @ T, rcond=None)[0].T  # (C, k)
    left = ((T - X @ W.T) ** 2).sum(axis=0)
    whole = (T**2).sum(axis=0)
    r2 = np.where(whole > 1e-12, 1 - left / np.where(whole > 0, whole, 1), 1.0)
    shift = X[mine].mean(axis=0) - X[~mine].mean(axis=0)
    return Surrogate(W * shift, r2)


def donors(p: ArrayLike, forgotten: Sequence[int]) -> tuple[float, np.ndarray]:
    """Say where samples of the forgotten class went.

    Parameters
    ----------
    p : array-like of shape (n, C)
        Probabilities for samples of the forgotten class.
    forgotten : sequence of int
        The forgotten classes.

    Returns
    -------
    donor : float
        Mean over samples of the largest probability of a retained class. Far above a
        retrained model's it is a trace of unlearning.
    mean : ndarray of shape (C,)
        Mean probability of each class.

    Examples
    --------
    >>> donor, mean = donors([[0.0, 0.7, 0.3], [0.0, 0.1, 0.9]], [0])
    >>> round(donor, 6), mean.round(6).tolist()
    (0.8, [0.0, 0.4, 0.6])
    """
    values = as_floats(p, "p")
    gone = class_numbers(forgotten)
    kept = [j for j in range(values.shape[1]) if j not in gone]
    return float(values[:, kept].max(axis=1).mean()), values.mean(axis=0)
