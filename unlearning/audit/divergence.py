"""How far the answers of two models lie apart."""

from __future__ import annotations

__all__ = [
    "activation_distance",
    "agreement",
    "js_divergence",
    "probabilities",
    "zero_retrain_forgetting",
]

from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from conceptlab.arrays import ArrayLike, as_floats, check_finite
from conceptlab.errors import InputError


def probabilities(logits: ArrayLike) -> np.ndarray:
    """Turn logits to probabilities in float64.

    Parameters
    ----------
    logits : array-like of shape (n, C)
        Finite, or minus infinity for a class that is ruled out.

    Returns
    -------
    ndarray of shape (n, C), float64

    Examples
    --------
    >>> probabilities([[0.0, 0.0]])
    array([[0.5, 0.5]])
    """
    values = as_floats(logits, "logits")
    if values.ndim != 2:
        raise InputError(f"Expected logits (n, C), got shape {values.shape}.", code="CL-INPUT-RANK")
    check_finite(np.where(np.isneginf(values), 0, values), "logits")
    return np.asarray(softmax(values, axis=1))


def _pair(p: ArrayLike, q: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = as_floats(p, "p"), as_floats(q, "q")
    short = any(getattr(x, "dtype", None) in (torch.bfloat16, torch.float16) for x in (p, q))
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        raise InputError(
            f"Expected probabilities (n, C) of the same samples and classes, got shapes "
            f"{first.shape} and {second.shape}.",
            code="CL-INPUT-SHAPE",
        )
    for values in (first, second):
        if (values < -1e-9).any() or np.abs(values.sum(axis=1) - 1).max() > (
            0.02 if short else 1e-3
        ):
            raise InputError(
                "Expected probabilities: rows >= 0 that add up to 1. Use probabilities(logits).",
                code="CL-INPUT-RANGE",
            )
    return first, second


def js_divergence(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Compute the Jensen-Shannon divergence of each row, in nats.

    Parameters
    ----------
    p, q : array-like of shape (n, C)
        Probabilities.

    Returns
    -------
    ndarray of shape (n,), float64
        In [0, ln 2].

    Notes
    -----
    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2 and the natural logarithm. The sum goes
    over classes and the mean over samples is left to the caller; code that also takes
    the mean over classes is too small by a factor of C.

    References
    ----------
    Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 1991.

    Examples
    --------
    >>> js_divergence([[1.0, 0.0]], [[0.0, 1.0]]).round(4)
    array([0.6931])
    """
    first, second = _pair(p, q)
    middle = (first + second) / 2
    total = np.zeros(len(first))
    for values in (first, second):
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(values > 0, values * np.log(values / middle), 0.0)
        total += terms.sum(axis=1) / 2
    return total.clip(0, np.log(2))


def activation_distance(p: ArrayLike, q: ArrayLike) -> float:
    """Compute the mean Euclidean distance of two models' probabilities.

    Parameters
    ----------
    p, q : array-like of shape (n, C)
        Probabilities.

    Returns
    -------
    float
        In [0, √2].

    References
    ----------
    Golatkar et al., "Mixed-privacy forgetting in deep networks", CVPR 2021.

    Examples
    --------
    >>> round(activation_distance([[1.0, 0.0]], [[0.0, 1.0]]), 4)
    1.4142
    """
    first, second = _pair(p, q)
    return float(np.linalg.norm(first - second, axis=1).mean())


def agreement(p: ArrayLike, q: ArrayLike) -> float:
    """Compute the share of samples on which two models answer alike.

    Parameters
    ----------
    p, q : array-like of shape (n, C)
        Probabilities.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> agreement([[0.9, 0.1], [0.9, 0.1]], [[0.6, 0.4], [0.4, 0.6]])
    0.5
    """
    first, second = _pair(p, q)
    return float(np.mean(first.argmax(axis=1) == second.argmax(axis=1)))


def zero_retrain_forgetting(p: ArrayLike, random: Any) -> float:
    """Compute ZRF: how like a network with random weights the answers are.

    Parameters
    ----------
    p : array-like of shape (n, C)
        Probabilities of the unlearned model on forget samples.
    random : array-like of shape (n, C)
        Those of a network of the same build with random weights.

    Returns
    -------
    float
        1 - mean JS in nats, in [1 - ln 2, 1]; 1 is as random. A retrained model is not
        random: compare with its value, not with 1.

    References
    ----------
    Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023 (ZRF).

    Examples
    --------
    >>> zero_retrain_forgetting([[0.5, 0.5]], [[0.5, 0.5]])
    1.0
    """
    return 1 - float(js_divergence(p, random).mean())
