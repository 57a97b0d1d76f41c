"""Two groups of scores: a mixture of normal laws, the upper group rare or not."""

from __future__ import annotations

__all__ = ["Groups", "evidence", "two_groups"]

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unlearning.gan.lobes import one_lobe

_TOPS = (0.9, 0.98, 0.995)  # where the mean of the upper group is looked for
_LAWS = (2, 3, 4)  # of the mixture; all but the upper group may have several
_FREE = 7  # parameters of a law of one lobe


class Groups(NamedTuple):
    """Two groups of scores.

    Attributes
    ----------
    low, high : float
        The means of the groups.
    deviation : float
        Root mean square of the deviations within the groups.
    threshold : float
        Where both groups are equally likely.
    likelihood : float
        The logarithm of the mixture's likelihood, in nats.
    laws : int
        Of the mixture.
    """

    low: float
    high: float
    deviation: float
    threshold: float
    likelihood: float
    laws: int


def two_groups(scores: np.ndarray, *, rare: bool = True) -> Groups:
    """Split scores where a mixture of normal laws falls apart most.

    Parameters
    ----------
    scores : ndarray of shape (n,)
    rare : bool
        Whether an upper group of a few in a hundred is looked for, too, and groups of several
        lobes; without, there are two laws, and both groups must be common.

    Returns
    -------
    Groups

    Notes
    -----
    Expectation maximisation climbs to the next hilltop, and one that starts with the upper mean
    at the 0.9 quantile never sees a group of one in twenty. So it starts from several, and the
    best likelihood stays; the number of laws is by the Bayesian information criterion. Of the
    ways to cut the laws into a lower and an upper group the one with the largest separation,
    ``(high - low) / deviation``, is taken.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = np.concatenate([rng.normal(0, 1, 1140), rng.normal(7, 1, 60)])
    >>> int((scores > two_groups(scores).threshold).sum())
    60
    """
    common = _climb(scores, _start(scores, np.quantile(scores, [0.2, 0.9])))
    if not rare:
        return _cut(common)
    best = []
    for laws in _LAWS:
        lower = np.quantile(scores, 0.9 * (np.arange(laws - 1) + 0.5) / (laws - 1))
        tops = np.quantile(scores, _TOPS)
        fits = [_climb(scores, _start(scores, np.append(lower, top))) for top in tops]
        if laws == 2:
            fits.append(common)
        # A rare law grows slowly: so the best climbs on, to a finer end.
        finest = _climb(scores, max(fits, key=lambda fit: fit.likelihood), tol=1e-6)
        best.append((np.log(len(scores)) * (3 * laws - 1) - 2 * finest.likelihood, finest))
    return _cut(min(best, key=lambda pair: pair[0])[1])


def evidence(scores: np.ndarray, groups: Groups) -> float:
    """Tell by how much scores are likelier under two groups than under any law of one lobe.

    Parameters
    ----------
    scores : ndarray of shape (n,)
    groups : Groups
        As :func:`two_groups` gives them for these scores.

    Returns
    -------
    float
        Gain of the logarithm of the likelihood over :func:`unlearning.gan.lobes.one_lobe`, in
        nats, less half the logarithm of n for every parameter that the mixture has more (BIC).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = np.concatenate([rng.normal(0, 1, 380), rng.normal(6, 1, 20)])
    >>> evidence(scores, two_groups(scores)) > 5
    True
    >>> scores = rng.uniform(0, 1, 400)
    >>> evidence(scores, two_groups(scores)) > 0
    False
    """
    more = max(0, 3 * groups.laws - 1 - _FREE)
    fair = groups.likelihood - 0.5 * float(np.log(len(scores))) * more
    return fair - one_lobe(scores, enough=fair)


@dataclass(frozen=True)
class _Mixture:
    """Normal laws, by their means; arrays of shape (laws,)."""

    share: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    likelihood: float

    def logs(self, x: np.ndarray) -> np.ndarray:
        """Give the logarithms of the laws' densities, each times its share, (n, laws)."""
        off = (x[:, None] - self.mean) ** 2 / self.variance
        return np.log(self.share) - 0.5 * (np.log(2 * np.pi * self.variance) + off)


def _start(scores: np.ndarray, means: np.ndarray) -> _Mixture:
    """Begin with the scores that are nearest to each mean."""
    near = abs(scores[:, None] - means).argmin(1)
    return _laws(scores, np.eye(len(means))[near], -np.inf)


def _laws(scores: np.ndarray, weights: np.ndarray, likelihood: float) -> _Mixture:
    total = weights.sum(0) + 1e-10
    mean = (weights.T @ scores + 1e-10 * scores.mean()) / total  # of an empty law, too
    variance = np.einsum("nk,nk->k", weights, (scores[:, None] - mean) ** 2) / total
    least = 1e-8 + 1e-6 * scores.var()  # a law of one score alone would have any likelihood
    return _Mixture(total / total.sum(), mean, variance + least, likelihood)


def _climb(scores: np.ndarray, fit: _Mixture, tol: float = 1e-4) -> _Mixture:
    """Maximise the likelihood by expectation maximisation."""
    for _ in range(300):
        logs = fit.logs(scores)
        top = logs.max(1, keepdims=True)
        weights = np.exp(logs - top)
        total = weights.sum(1, keepdims=True)
        found = float((top + np.log(total)).sum())
        gain, fit = found - fit.likelihood, _laws(scores, weights / total, found)
        if gain < tol * len(scores):
            break
    return fit


def _cut(fit: _Mixture) -> Groups:
    """Cut the laws where the groups are farthest apart for their width."""
    order = np.argsort(fit.mean)
    share, mean, variance = fit.share[order], fit.mean[order], fit.variance[order]
    cuts = [
        (_moments(share[:i], mean[:i], variance[:i]), _moments(share[i:], mean[i:], variance[i:]))
        for i in range(1, len(order))
    ]
    apart = [(high - low) / max(np.sqrt((v + u) / 2), 1e-12) for (low, v), (high, u) in cuts]
    best = int(np.argmax(apart))
    (low, below), (high, above) = cuts[best]
    between = np.linspace(low, high, 513)
    logs = fit.logs(between)[:, order]
    lower, upper = (np.logaddexp.reduce(part, axis=1) for part in np.split(logs, [best + 1], 1))
    threshold = between[int(np.argmax(upper > lower))]
    deviation = float(np.sqrt((below + above) / 2))
    return Groups(low, high, deviation, float(threshold), fit.likelihood, len(order))


def _moments(share: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Give mean and variance of some laws together."""
    share = share / share.sum()
    middle = float((share * mean).sum())
    return middle, float((share * (variance + (mean - middle) ** 2)).sum())
