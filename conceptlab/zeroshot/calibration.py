"""Probabilities that mean what they say: temperature and calibration error."""

from __future__ import annotations

__all__ = ["TEMPERATURE_RANGE", "calibration_error", "fit_temperature"]

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from conceptlab.arrays import ArrayLike, as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import Whole

TEMPERATURE_RANGE = (1e-2, 1e2)


def fit_temperature(loss: Callable[[float], float]) -> float:
    """Find the temperature of the least mean log-loss.

    Parameters
    ----------
    loss : callable
        From a temperature to the mean log-loss.

    Returns
    -------
    float
        Within :data:`TEMPERATURE_RANGE`; labels that are all met push it to the
        lower end, scores that say nothing to the upper.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.

    Examples
    --------
    >>> round(fit_temperature(lambda T: (T - 2.0) ** 2), 3)
    2.0
    """
    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(
        lambda t: loss(float(np.exp(t))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(np.exp(found.x))


def calibration_error(y: ArrayLike, proba: ArrayLike, *, n_bins: int = 15) -> float:
    """Measure how far confidence is from accuracy, on the whole.

    Parameters
    ----------
    y : array-like of shape (n,), integer
        Columns of the true classes.
    proba : array-like of shape (n, K)
        Probabilities.
    n_bins : int
        Bins of equal width of the largest probability.

    Returns
    -------
    float
        In [0, 1]: the mean over images of ``|accuracy - confidence|`` of the
        image's bin.

    Raises
    ------
    InputError
        Shapes that do not fit (``CL-INPUT-SHAPE``) or no images, NaN, labels
        that are no columns (``CL-INPUT-LABELS``), no bins.

    References
    ----------
    Guo et al., ICML 2017, equation 3.

    Examples
    --------
    >>> calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]])
    0.25
    """
    labels, p = as_numpy(y), as_numpy(proba)
    if p.ndim != 2 or labels.shape != (len(p),) or not len(p):
        raise InputError(
            f"Expected labels (n,) and probabilities (n, K), n at least 1; got {labels.shape} and "
            f"{p.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(p, "proba")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= p.shape[1]:
        raise InputError(
            f"y must count the columns of proba, integers 0 to {p.shape[1] - 1}, got "
            f"{labels.dtype} such as {labels[:5].tolist()}. For names of classes give "
            "model.classes_.searchsorted(y).",
            code="CL-INPUT-LABELS",
        )
    Whole(1).check("n_bins", n_bins)
    confidence = p.max(axis=1)
    hit = p.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(bins, weights=hit - confidence, minlength=n_bins)
    return float(np.abs(gap).sum() / len(p))
