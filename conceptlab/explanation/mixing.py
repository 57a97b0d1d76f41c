"""Does a concept mix two things? The measured trigger of the recursion.

CRAFT (Fel et al. 2023, section 3.2) refactorises a concept at an earlier layer
when it is ambiguous, and leaves that judgement to a person. Here it is a test:
are the concept's patches, seen at the earlier layer, two clusters or one? Two
statistics of 2-means are compared with what a single cluster gives:

- the kurtosis along the line between the two means. Two humps make it low (Darlington, "Is
  kurtosis really peakedness?", 1970), which one Gaussian of the same covariance does not;
- the cluster index (SigClust: Liu, Hayes, Nobel and Marron, JASA 2008). A mixture widens the
  covariance of a Gaussian null too, so that the index lies hardly below it. So this null has
  the covariance *and* the distances from the centre that the rows have, in directions of its
  own: real activations have heavy tails, which a Gaussian takes for one broad cluster.

A continuum of strengths has a heavy tail, hence a high kurtosis, and is no mixture.
"""

from __future__ import annotations

__all__ = ["MixingTest", "mixing_test"]

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, numpy_generator

_MAX_COMPONENTS = 30
_STEPS = 30  # of 2-means


@dataclass(frozen=True)
class MixingTest:
    """What the test of one concept found.

    Attributes
    ----------
    cluster_index : float
        Within-cluster over total sum of squares of 2-means, in [0, 1]; low
        means two clear clusters.
    null_index : float
        Mean cluster index of one cluster: of a Gaussian, or of rows as far from their centre as
        these are, whichever is higher.
    p_value : float
        Twice the lesser p-value of kurtosis and index, each under a normal distribution with
        the mean and the deviation of its null draws, as SigClust has it: also far out in the
        tail, where few draws cannot count. Each counts only where the other agrees: that of the
        kurtosis is at least a tenth of a Gaussian's for the index, that of the index at least a
        third of the kurtosis's.
    balance : float
        Share of the smaller cluster, in [0, 0.5].
    n_patches : int
        How many patches were tested.
    labels : numpy.ndarray of shape (n_patches,)
        The two clusters.
    kurtosis, null_kurtosis : float
        Excess kurtosis along the line between the two means, and its mean over Gaussians.
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
        Draws from each null.
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
    Level and power on a real network are measured in docs/results/real-network.md.

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
    (index,), (kurt,), (labels,) = _two_means(scores[None], rest)
    deviations = singular[:n_components] / np.sqrt(max(len(A) - 1, 1))
    gaussian = rng.normal(size=(n_null, *scores.shape)) * deviations
    lengths = np.linalg.norm(gaussian, axis=2, keepdims=True)
    radii = rng.choice(np.linalg.norm(scores, axis=1), lengths.shape)
    gaussian_index, kurtoses, _ = _two_means(gaussian, rest)
    radial_index, _, _ = _two_means(gaussian / np.maximum(lengths, 1e-300) * radii, rest)
    p_kurtosis, p_gaussian, p_radial = (
        norm.cdf(value, null.mean(), max(null.std(ddof=1), 1e-12))
        for value, null in ((kurt, kurtoses), (index, gaussian_index), (index, radial_index))
    )
    p_value = 2 * min(max(p_kurtosis, p_gaussian / 10), max(p_radial, p_kurtosis / 3))
    share = float(labels.mean())
    return MixingTest(
        cluster_index=float(index),
        null_index=float(max(gaussian_index.mean(), radial_index.mean())),
        p_value=float(min(1.0, p_value)),
        balance=min(share, 1.0 - share),
        n_patches=len(A),
        labels=labels.astype(np.int64),
        kurtosis=float(kurt),
        null_kurtosis=float(kurtoses.mean()),
    )


def _two_means(scores: np.ndarray, rest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit 2-means to each of m samples (m, n, d), from the split along the first component.

    Gives cluster indices (m,), kurtosis along the two means (m,), and labels (m, n).
    """
    scores = scores - scores.mean(axis=1, keepdims=True)
    total = (scores**2).sum((1, 2)) + rest
    labels = scores[:, :, 0] > np.median(scores[:, :, 0], axis=1, keepdims=True)
    for _ in range(_STEPS):
        upper = np.maximum(labels.sum(1), 1)[:, None]
        lower = np.maximum((~labels).sum(1), 1)[:, None]
        high = np.einsum("mn,mnd->md", labels, scores) / upper
        low = np.einsum("mn,mnd->md", ~labels, scores) / lower
        along = np.einsum("mnd,md->mn", scores, high - low)
        nearer = along > ((high + low) / 2 * (high - low)).sum(1, keepdims=True)
        whole = nearer.all(1) | ~nearer.any(1)  # an empty cluster: it stays as it was
        nearer[whole] = labels[whole]
        if (nearer == labels).all():
            break
        labels = nearer
    share = labels.mean(1)
    between = share * (high**2).sum(1) + (1 - share) * (low**2).sum(1)
    variance = along.var(1)
    fourth = ((along - along.mean(1, keepdims=True)) ** 4).mean(1)
    flat = variance <= 1e-24 * total**2
    kurtosis = np.where(flat, 0.0, fourth / np.where(flat, 1.0, variance) ** 2 - 3)
    index = 1 - scores.shape[1] * between / np.maximum(total, 1e-24)
    return np.where(total > 1e-24, index, 1.0), kurtosis, labels
