"""Confidence intervals of means of bounded numbers over few images."""

from __future__ import annotations

__all__ = ["mean_interval", "wilson"]

import numpy as np
from scipy.stats import norm, t

JOINT_WEIGHT = 0.5


def mean_interval(
    values: np.ndarray,
    confidence: float,
    n_resamples: int,
    generator: np.random.Generator,
    *,
    span: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Give intervals of the mean over images by a Bayesian bootstrap with two pseudo-images.

    Rubin's bootstrap (1981) weights the images by a Dirichlet law. Of shares that are skewed a
    bootstrap of n images is too short, because it never sees more than the n: so one pseudo-image
    stands at each end of the range of what can be, and both together weigh half an
    image. The level is widened as Student's t widens a normal one (Hesterberg, "What teachers
    should know about the bootstrap", 2015, section 5.3). Coverage is measured in
    docs/results/real-network.md.

    Parameters
    ----------
    values : numpy.ndarray of shape (n, k)
        One row an image, within `span`.
    confidence : float
        Level.
    n_resamples : int
        Draws; 0 gives NaN.
    generator : numpy.random.Generator
        Draws the weights.
    span : tuple of float
        The least and the greatest value possible.

    Returns
    -------
    numpy.ndarray of shape (k, 2)
    """
    n, k = values.shape
    if not n_resamples:
        return np.full((k, 2), np.nan)
    ends = np.full(2, JOINT_WEIGHT / 2)
    weights = generator.dirichlet(np.concatenate([np.ones(n), ends]), size=n_resamples)
    rows = np.concatenate([values, np.full((1, k), span[0]), np.full((1, k), span[1])])
    tail = (1 - confidence) / 2
    if n > 1:
        tail = float(norm.sf(np.sqrt(n / (n - 1)) * t.isf(tail, n - 1)))
    levels = (tail, 1 - tail)
    return np.ascontiguousarray(np.quantile(weights @ rows, levels, axis=0).T)


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give Wilson's interval of a share of `n` images."""
    from scipy.stats import binomtest

    found = binomtest(round(share * n), n).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)
