"""Whether scores are of two groups at all: a mixture against the best law of one lobe."""

from __future__ import annotations

__all__ = ["one_lobe"]

import numpy as np

_LEAST = np.log([1e-3, 1e-3, 0.7, 0.7, 0.2, 0.2])  # widths, exponents, tails; of unit scores
_MOST = np.log([8.0, 8.0, 40.0, 40.0, 150.0, 150.0])
_STARTS = (  # place between least and most score, or None for the median; widths; exponents; tails
    (None, 1.4, 1.4, 2.0, 2.0, 20.0, 20.0),
    (0.1, 0.2, 1.4, 2.0, 1.2, 7.0, 7.0),
    (0.9, 1.4, 0.2, 1.2, 2.0, 7.0, 7.0),
    (0.5, 1.8, 1.8, 12.0, 12.0, 50.0, 50.0),
)


def one_lobe(scores: np.ndarray, *, enough: float = np.inf) -> float:
    """Give the largest likelihood of scores under laws of one lobe.

    The laws are generalised t laws with sides of their own: density falls from its peak as
    ``(1 + (x / s) ** p / q) ** -(q + 1 / p)``, with width s, exponent p and tail q to the left and
    others to the right. Normal, uniform, Laplace, exponential, gamma-like and Student's laws, and
    skewed ones between them, are among them or near.

    Parameters
    ----------
    scores : ndarray of shape (n,)
    enough : float
        The search ends where the likelihood is larger.

    Returns
    -------
    float
        The logarithm of the likelihood, in nats.

    References
    ----------
    McDonald and Newey 1988, Partially adaptive estimation of regression models via the
    generalized t distribution, eq. 2; here with two sides.

    Examples
    --------
    >>> scores = np.random.default_rng(0).normal(0, 2, 500)
    >>> normal = -0.5 * ((scores / 2) ** 2).sum() - 500 * np.log(2 * np.sqrt(2 * np.pi))
    >>> bool(normal - 1 < one_lobe(scores) < normal + 12)  # of seven parameters
    True
    """
    from scipy.optimize import minimize

    spread = max(float(scores.std()), 1e-12)
    x = (scores - np.median(scores)) / spread
    low, high, best = float(x.min()), float(x.max()), -np.inf
    bounds = [(low, high), *zip(_LEAST, _MOST, strict=True)]
    for place, *shape in _STARTS:
        at = 0.0 if place is None else low + place * (high - low)
        start = np.concatenate([[at], np.log(shape)])
        found = minimize(_cost, start, (x,), "L-BFGS-B", bounds=bounds, options={"maxiter": 80})
        best = max(best, -float(found.fun) * len(x) - len(x) * float(np.log(spread)))
        if best > enough:
            break
    return best


def _cost(law: np.ndarray, x: np.ndarray) -> float:
    """Give the mean of the negative logarithms of the density."""
    from scipy.special import betaln

    widths, exponents, tails = np.exp(law[1:]).reshape(3, 2)
    masses = np.log(widths) + np.log(tails) / exponents - np.log(exponents)
    masses += betaln(1 / exponents, tails)
    off, fall = x - law[0], 0.0
    for side, s, p, q in zip((-off[off < 0], off[off >= 0]), widths, exponents, tails, strict=True):
        fall += (q + 1 / p) * np.log1p((side / s) ** p / q).sum()
    return float(fall / len(x) + np.logaddexp(*masses))
