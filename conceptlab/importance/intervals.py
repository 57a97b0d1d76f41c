"""Confidence intervals of means of bounded numbers over few images."""

from __future__ import annotations

__all__ = ["mean_interval", "wilson"]

import numpy as np
from scipy.stats import norm, t


def mean_interval(
    values: np.ndarray,
    confidence: float,
    n_resamples: int,
    generator: np.random.Generator,
    *,
    span: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Give intervals of the mean over images by a Bayesian bootstrap with pseudo-images.

    Rubin's bootstrap (1981) weights the images by a Dirichlet law. Of shares that are skewed a
    bootstrap of n images is too short, because it never sees more than the n. So the upper
    limit is that of the images and one more at the upper end of what can be, the lower limit
    that of the images and one at the lower end: the bound of Gaffke ("Three test statistics for
    a nonparametric one-sided hypothesis on the mean of a nonnegative variable", 2005), where
    that image weighs as much as any other, which covers far too often where values spread
    little. Here it weighs 12 v + 1 / (2 n) images, with v the variance of the values as shares
    of the span, so that 12 v is their variance beside that of a uniform law. The level is
    widened as Student's t widens a normal one (Hesterberg, "What teachers should know about the
    bootstrap", 2015, section 5.3). The weight was chosen on some classes and networks; its
    coverage on others is measured in docs/results/real-network.md.

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
    low, high = span
    shares = (values - low) / (high - low)
    weights = generator.standard_exponential((n_resamples, n))
    whole, summed = weights.sum(1, keepdims=True), weights @ shares
    spread = 12 * shares.var(0, ddof=1) if n > 1 else np.ones(k)
    unseen = generator.standard_gamma(spread + 1 / (2 * n), size=(2, n_resamples, k))
    tail = (1 - confidence) / 2
    if n > 1:
        tail = float(norm.sf(np.sqrt(n / (n - 1)) * t.isf(tail, n - 1)))
    lower = np.quantile(summed / (whole + unseen[0]), tail, axis=0)
    upper = np.quantile((summed + unseen[1]) / (whole + unseen[1]), 1 - tail, axis=0)
    return np.stack([lower, upper], axis=1) * (high - low) + low


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give Wilson's interval of a share of `n` images."""
    from scipy.stats import binomtest

    found = binomtest(round(share * n), n).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)
