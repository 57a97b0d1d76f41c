"""Does a concept mix two things? The measured trigger of the recursion.

CRAFT (Fel et al. 2023, section 3.2) refactorises a concept at an earlier layer
when it is ambiguous, and leaves that judgement to a person. Here it is a test:
are the concept's patches, seen at the earlier layer, two clusters or one? Two
statistics of 2-means are compared with a single Gaussian of the same covariance:
the cluster index (SigClust: Liu, Hayes, Nobel and Marron, JASA 2008), and the
kurtosis along the line between the two means. A mixture widens the covariance of
the null too, so that the index alone sees little of it; but its two humps make the
kurtosis low (Darlington, "Is kurtosis really peakedness?", 1970), which no Gaussian
does. A heavy tail makes it high, so that a continuum of strengths is no mixture.
"""

from __future__ import annotations

__all__ = ["MixingTest", "mixing_test"]

from dataclasses import dataclass

import numpy as np
from scipy.stats import kurtosis, norm
from sklearn.cluster import KMeans

from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, numpy_generator

_MAX_COMPONENTS = 30


@dataclass(frozen=True)
class MixingTest:
    """What the test of one concept found.

    Attributes
    ----------
    cluster_index : float
        Within-cluster over total sum of squares of 2-means, in [0, 1]; low
        means two clear clusters.
    null_index : float
        Mean cluster index of one Gaussian with the same covariance.
    p_value : float
        The larger of twice the kurtosis's p-value (there are two statistics) and a tenth of
        that of `cluster_index`, each under a normal distribution with the mean and the
        deviation of the null draws, as SigClust has it: also far out in the tail, where few
        draws cannot count.
    balance : float
        Share of the smaller cluster, in [0, 0.5].
    n_patches : int
        How many patches were tested.
    labels : numpy.ndarray of shape (n_patches,)
        The two clusters.
    kurtosis, null_kurtosis : float
        Excess kurtosis along the line between the two means, and its mean over the null.
    """

    cluster_index: float
    null_index: float
    p_value: float
    balance: float
    n_patches: int
    labels: np.ndarray
    kurtosis: float = float("nan")
    null_kurtosis: float = float("nan")

    @property
    def separation(self) -> float:
        """How far the index lies below its null, in [0, 1]: 1 - index / null."""
        return max(0.0, 1.0 - self.cluster_index / max(self.null_index, 1e-12))

    def mixes(self, alpha: float = 0.05, min_balance: float = 0.1) -> bool:
        """Whether two clusters are significant at `alpha` and neither is a handful."""
        return self.p_value <= alpha and self.balance >= min_balance


def mixing_test(A: np.ndarray, *, n_null: int = 40, random_state: RandomState = None) -> MixingTest:
    """Test whether the rows of `A` form two clusters rather than one.

    Rows are scaled to unit length first, so that patches that show the same
    thing more or less strongly do not count as two groups.

    Parameters
    ----------
    A : ndarray of shape (n_patches, n_features)
        Activations of a concept's best patches at an earlier layer.
    n_null : int
        Draws from the null.
    random_state : RandomState
        Seed of 2-means and of the null.

    Returns
    -------
    MixingTest

    Raises
    ------
    InputError
        For fewer than 4 patches (``CL-INPUT-FEW``).

    Notes
    -----
    The index must lie below its null too (ten times the level suffices), which keeps the level
    where a single cluster is flat. Level and power on a real network are measured in
    docs/results/real-network.md.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> one = np.abs(rng.normal(1, 0.1, (60, 8)))
    >>> two = np.r_[one[:30] * [1, 1, 1, 1, 0, 0, 0, 0], one[30:] * [0, 0, 0, 0, 1, 1, 1, 1]]
    >>> mixing_test(two, random_state=0).mixes(), mixing_test(one, random_state=0).mixes()
    (True, False)
    """
    A = np.asarray(A, dtype=np.float64)
    if A.ndim != 2 or A.shape[0] < 4:
        raise InputError(
            f"The mixing test needs at least 4 patches as rows, got an array of shape {A.shape}.",
            code="CL-INPUT-FEW",
        )
    rng = numpy_generator(random_state)
    norms = np.linalg.norm(A, axis=1, keepdims=True)
    unit = A / np.where(norms > 0, norms, 1.0)
    unit = unit - unit.mean(axis=0)
    left, singular, _ = np.linalg.svd(unit, full_matrices=False)
    n_components = min(_MAX_COMPONENTS, len(A) - 1, len(singular))
    scores = (left * singular)[:, :n_components]
    # What the kept components leave out is within-cluster noise in data and null alike.
    rest = float((singular[n_components:] ** 2).sum())
    index, kurt, labels = _two_means(scores, rest, rng)
    deviations = singular[:n_components] / np.sqrt(max(len(A) - 1, 1))
    null = np.array(
        [
            _two_means(rng.normal(size=scores.shape) * deviations, rest, rng)[:2]
            for _ in range(n_null)
        ]
    )
    share = float(labels.mean())
    centre, spread = null.mean(0), np.maximum(null.std(0, ddof=1), 1e-12)
    p_index, p_kurtosis = norm.cdf((index, kurt), centre, spread)
    return MixingTest(
        cluster_index=index,
        null_index=float(centre[0]),
        p_value=float(min(1.0, max(2 * p_kurtosis, p_index / 10))),
        balance=min(share, 1.0 - share),
        n_patches=len(A),
        labels=labels,
        kurtosis=kurt,
        null_kurtosis=float(centre[1]),
    )


def _two_means(
    scores: np.ndarray, rest: float, rng: np.random.Generator
) -> tuple[float, float, np.ndarray]:
    """Fit 2-means from the split along the first component; give (index, kurtosis, labels)."""
    scores = scores - scores.mean(axis=0)
    total = float((scores**2).sum()) + rest
    if total <= 1e-24:
        return 1.0, 0.0, np.zeros(len(scores), dtype=np.int64)
    first = scores[:, 0] > np.median(scores[:, 0])
    if first.all() or not first.any():
        first = np.arange(len(scores)) % 2 == 0
    start = np.stack([scores[~first].mean(axis=0), scores[first].mean(axis=0)])
    means = KMeans(2, init=start, n_init=1, random_state=int(rng.integers(2**31 - 1)))
    labels = means.fit_predict(scores)
    along = scores @ (means.cluster_centers_[1] - means.cluster_centers_[0])
    flat = float(along.std()) <= 1e-12 * total**0.5
    return (
        (float(means.inertia_) + rest) / total,
        0.0 if flat else float(kurtosis(along)),
        labels.astype(np.int64),
    )
