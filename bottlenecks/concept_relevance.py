"""What a set of concepts can tell about the classes, before a bottleneck is trained."""

from __future__ import annotations

__all__ = ["Relevance", "concept_entropy", "relevance"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold

from bottlenecks.controls import CONTROLS, random_bank
from bottlenecks.information import equal_bins, plug_in
from bottlenecks.intervals import mean_interval, paired_interval, rank_p_value
from bottlenecks.measures import as_matrix
from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.bank import ConceptBank
from conceptlab.errors import InputError
from conceptlab.parameters import Real, Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator
from conceptlab.zeroshot.labels import checked_labels

if TYPE_CHECKING:
    import pandas as pd

_FLOOR = 1e-6  # of a probability, so that one bold error does not decide
_BINS = 8
_STRONGEST = 100  # concepts of a class that the published entropy looks at


@dataclass(frozen=True, eq=False)
class Relevance:
    """Share of the entropy of the classes that concepts tell, beside random ones.

    Attributes
    ----------
    value : float
        Share that all concepts tell together, at most 1; below 0 where what was learned from
        some rows misleads on others.
    interval : (float, float)
        Of `value`.
    controls : dict of str to ndarray of shape (n_random,), float64
        The same share of every draw, by kind of random concepts.
    control : str
        The kind that is best on average: the baseline.
    gain_interval : (float, float)
        Of `gain`, rows and draws drawn again.
    entropy : float
        Of the classes, in nats.
    names : list of k str
    by_concept : ndarray of shape (k,), float64
        Share that each concept tells alone.
    random_by_concept : ndarray of shape (n_random * k,), float64
        The same of single random concepts of the kind `control`.
    concept_entropy : float
        Mean over the classes of :func:`concept_entropy`, the figure of CBM-Suite: low where a
        few concepts stand out in each class, whether or not they differ from class to class.
    random_concept_entropy : dict of str to ndarray of shape (n_random,), float64
        The same of every draw.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 4))
    >>> bank = ConceptBank(np.eye(4)[:2], ["a", "b"], space=None)
    >>> found = relevance(bank, X, X[:, 0] > 0, n_random=3)
    >>> bool(found.gain == found.value - found.controls[found.control].mean())
    True
    """

    value: float
    interval: tuple[float, float]
    controls: dict[str, np.ndarray]
    control: str
    gain_interval: tuple[float, float]
    entropy: float
    names: list[str]
    by_concept: np.ndarray
    random_by_concept: np.ndarray
    concept_entropy: float
    random_concept_entropy: dict[str, np.ndarray]

    @property
    def gain(self) -> float:
        """Share beyond the mean of the strongest random concepts."""
        return float(self.value - self.controls[self.control].mean())

    @property
    def p_value(self) -> float:
        """Rank of the value among the draws of the strongest kind."""
        return rank_p_value(self.value, self.controls[self.control])

    def to_frame(self) -> pd.DataFrame:
        """Give one row a concept, the most telling first.

        Returns
        -------
        DataFrame
            "share" that it tells alone, "baseline" (mean of single random concepts) and
            "p_value" (rank among them, not corrected for the number of concepts).
        """
        import pandas as pd

        frame = pd.DataFrame(
            {
                "share": self.by_concept,
                "baseline": float(self.random_by_concept.mean()),
                "p_value": [rank_p_value(v, self.random_by_concept) for v in self.by_concept],
            },
            index=pd.Index(self.names, name="concept"),
        )
        return frame.sort_values("share", ascending=False, kind="stable")

    def __repr__(self) -> str:
        low, high = self.gain_interval
        lead = low > 0 and self.p_value <= 0.05  # few of the draws do as well
        said = "more than" if lead else "less than" if high < 0 else "not told apart from"
        return (
            f"Relevance({len(self.names)} concepts tell {self.value:.0%} of the classes' entropy, "
            f"{said} as many random ones ({self.control}: "
            f"{self.controls[self.control].mean():.0%}; difference {100 * low:.0f} to "
            f"{100 * high:.0f} points, p {self.p_value:.3g})"
        )


def relevance(
    bank: ConceptBank,
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_random: int = 39,
    n_folds: int = 5,
    encoder: Any = None,
    confidence: float = 0.95,
    random_state: RandomState = 0,
) -> Relevance:
    """Tell what a set of concepts says about the classes before a bottleneck is trained.

    The share of the entropy of the classes that the scores of the concepts take away,
    ``1 - H(y | scores) / H(y)``. H(y | scores) is the log-loss, on rows that it has not seen, of
    the closed form for classes that are Gaussians of one covariance (shrunk after Ledoit and
    Wolf), so nothing is optimised. As many random concepts of every kind
    (:func:`random_bank`) are judged on the same rows and parts, because scores in number tell
    much whatever they are named; the kind that is best on average is the baseline.

    Parameters
    ----------
    bank : ConceptBank
        k concepts.
    X : array-like of shape (n, d)
        Features, of the encoder of the bank.
    y : array-like of shape (n,)
        Classes, at least two, each in at least `n_folds` rows.
    n_random : int
        Draws of each kind of random concepts, at least 1. With fewer than 19 no p-value can be
        below 0.05.
    n_folds : int
        Parts; each is judged by what the others say.
    encoder : Encoder, optional
        That of X, to draw random words too.
    confidence : float
        Level of the intervals.
    random_state : optional
        Of parts, draws and bootstrap.

    Returns
    -------
    Relevance

    Raises
    ------
    InputError
        Features of another length than the vectors of the bank (``CL-INPUT-FEATURES``), one
        class or one of fewer rows than parts (``CL-INPUT-FEW``), labels that do not fit, NaN.
    SpaceMismatchError
        An `encoder` of another space than the bank.

    Notes
    -----
    CBM-Suite asks the same of a concept set by another entropy (:func:`concept_entropy`), which
    is given beside, of random concepts too. It never looks at whether classes differ: a concept
    that is strong everywhere makes it small, and tells nothing. Classes that only a curved
    boundary tells are not seen by the set's figure. Those of single concepts are: scores are cut
    into eight bins of equally many rows, and the information of the table is taken less its
    bias ``(r - 1)(s - 1) / 2n`` (Miller), so it can be a little below 0.

    References
    ----------
    Tapli et al., Rethinking Concept Bottleneck Models: From Pitfalls to Solutions, 2026
    (arXiv 2603.05629). Srivastava, Yan and Weng, VLG-CBM, NeurIPS 2024 (random concepts).
    Ledoit and Wolf, Honey, I shrunk the sample covariance matrix, 2004.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 30))
    >>> y = (X[:, 0] > 0) + 2 * (X[:, 1] > 0)
    >>> bank = ConceptBank(np.eye(30)[:3], ["red", "round", "other"], space=None)
    >>> found = relevance(bank, X, y, n_random=19)
    >>> found.p_value, found.gain_interval[0] > 0, list(found.to_frame().index)[-1]
    (0.05, True, 'other')
    """
    rows = as_matrix(X, "X")
    labels = checked_labels(y, rows)
    Whole(1).check("n_random", n_random)
    Whole(2).check("n_folds", n_folds)
    Real(above=0, below=1).check("confidence", confidence)
    if encoder is not None:
        bank.check_space(encoder)
    codes = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(codes)
    if len(counts) < 2 or counts.min() < n_folds:
        raise InputError(
            f"The classes have {counts[:5].tolist()} rows; relevance needs two classes, and "
            f"n_folds={n_folds} rows of each.",
            code="CL-INPUT-FEW",
        )
    seed = draw_seed(random_state) % 2**32
    parts = list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(rows, codes))
    prior = counts / len(codes)
    entropy = float(-(prior * np.log(prior)).sum())

    def told(A: np.ndarray) -> np.ndarray:
        return (_log_likelihood(A, codes, parts) - np.log(prior)[codes]) / entropy

    rng = numpy_generator(seed)
    scores = as_numpy(bank.score(rows)).astype(np.float64)
    own = told(scores)
    drawn: dict[str, np.ndarray] = {}
    vectors: dict[str, list[np.ndarray]] = {}
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _FLOOR)
    published: dict[str, np.ndarray] = {}
    for kind in CONTROLS if encoder is not None else CONTROLS[:2]:
        banks = [
            random_bank(rows, len(bank), kind, encoder=encoder, random_state=rng)
            for _ in range(n_random)
        ]
        vectors[kind] = [random.vectors.astype(np.float64).T for random in banks]
        drawn[kind] = np.array([told(rows @ V) for V in vectors[kind]])
        published[kind] = np.array([concept_entropy(unit @ V, codes).mean() for V in vectors[kind]])
    control = max(drawn, key=lambda kind: drawn[kind].mean())
    draws, n = drawn[control], len(codes)
    picked = rng.multinomial(n_random, np.full(n_random, 1 / n_random), size=2000) / n_random

    def gain(again: np.ndarray) -> np.ndarray:
        return np.asarray((again @ own - ((again @ draws.T) * picked).sum(axis=1)) / n)

    return Relevance(
        value=float(own.mean()),
        interval=mean_interval(own, confidence),
        controls={kind: values.mean(axis=1) for kind, values in drawn.items()},
        control=control,
        gain_interval=paired_interval(gain, n, confidence, seed=seed),
        entropy=entropy,
        names=list(bank.names),
        by_concept=_alone(scores, codes) / entropy,
        random_by_concept=np.concatenate(
            [_alone(rows @ V, codes) / entropy for V in vectors[control]]
        ),
        concept_entropy=float(
            concept_entropy(as_numpy(bank.score(rows, similarity="cosine")), codes).mean()
        ),
        random_concept_entropy=published,
    )


def concept_entropy(
    scores: ArrayLike, y: ArrayLike | None = None, *, n_top: int = _STRONGEST
) -> np.ndarray:
    """Say how evenly the concepts of a set respond, as CBM-Suite does to judge the set.

    All scores are standardised together, by one mean and one deviation, and averaged over the
    rows of each class; the `n_top` of largest size become probabilities by a softmax, and their
    entropy is taken. Low means that few concepts stand out. Values depend on how many concepts
    there are, so compare sets of one size, such as random ones (:func:`relevance` does).

    Parameters
    ----------
    scores : array-like of shape (n, k)
        Cosines of images and concepts.
    y : array-like of shape (n,), optional
        Classes; without them each row stands for itself.
    n_top : int
        Concepts that count, at most k; 100 is what the published code takes for classes.

    Returns
    -------
    ndarray of shape (K,) or (n,), float64
        In nats, in [0, log(min(n_top, k))], by class in sorted order, or by row; the
        largest where all scores are equal.

    Raises
    ------
    InputError
        Scores that are no matrix of finite numbers, labels that do not fit.

    References
    ----------
    Tapli et al., Rethinking Concept Bottleneck Models: From Pitfalls to Solutions, 2026
    (arXiv 2603.05629), released code (``goodness_of_concepts.py``).

    Examples
    --------
    >>> scores = np.array([[0.3, 0.1, 0.1], [0.1, 0.3, 0.1], [0.2, 0.2, 0.2]])
    >>> concept_entropy(scores, ["frog", "newt", "none"]).round(3)
    array([0.535, 0.535, 1.099])
    """
    A = as_matrix(scores, "scores")
    Whole(1).check("n_top", n_top)
    largest = max(1.0, float(np.abs(A).max()))
    A = A - A.mean()
    spread = A.std(ddof=min(1, A.size - 1))
    A = A / spread if spread > 1e-12 * largest else 0 * A
    if y is not None:
        codes = np.unique(checked_labels(y, A), return_inverse=True)[1]
        A = np.stack([A[codes == c].mean(axis=0) for c in range(codes.max() + 1)])
    strongest = np.argsort(np.abs(A), axis=1)[:, -n_top:]
    log_p = log_softmax(np.take_along_axis(A, strongest, axis=1), axis=1)
    return np.asarray(-(np.exp(log_p) * log_p).sum(axis=1))


def _log_likelihood(
    A: np.ndarray, codes: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Give log p(class of the row | its scores), from the rows of the other parts, (n,)."""
    found = np.zeros(len(codes))
    moving = A.max(axis=0) > A.min(axis=0)
    for fit, test in parts:
        if not moving.any():
            proba = np.tile(np.bincount(codes[fit]) / len(fit), (len(test), 1))
        else:
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            proba = model.fit(A[fit][:, moving], codes[fit]).predict_proba(A[test][:, moving])
        found[test] = np.log(np.maximum(proba[np.arange(len(test)), codes[test]], _FLOOR))
    return found


def _alone(A: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Give the information of each column about the class in nats, less its bias, (k,)."""
    found = np.zeros(A.shape[1])
    for j, column in enumerate(A.T):
        bins = equal_bins(column, _BINS)
        bias = bins.max() * codes.max() / (2 * len(codes))
        found[j] = plug_in(bins, codes) - bias
    return found
