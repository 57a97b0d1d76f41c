"""What all outputs together tell about the class that the true concepts do not."""

from __future__ import annotations

__all__ = ["JointLeakage", "joint_leakage", "shuffled"]

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottlenecks.information import variable
from bottlenecks.measures import as_matrix, as_presence, check_rows
from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from conceptlab.seeds import RandomState, draw_seed

HEADS = ("linear", "boosted")
_INPUTS = ("concepts", "outputs", "both")
_FLOOR = 1e-6  # of a probability, so that one bold error does not decide


@dataclass(frozen=True, eq=False)
class JointLeakage:
    """Heads on the true concepts, on the outputs and on both, each measured on other rows.

    Attributes
    ----------
    accuracy : dict of str to dict of str to float
        By head ("linear", "boosted"), then by what it sees: "concepts", "outputs", "both".
    log_loss : dict of str to dict of str to float
        In nats.
    gain : dict of str to float
        Nats about the class that the outputs add to the truth, by head: log-loss on both with
        shuffled outputs (their mean over copies) less that with the outputs.
    interval : dict of str to (float, float)
        95 % of each gain; NaN without copies. At least log(40) / n wide to either side.
    p_values : dict of str to float
        One-sided, of no gain; NaN without copies. At least exp(-n gain).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c = rng.random((300, 3)) < 0.5
    >>> y = rng.integers(0, 2, 300)
    >>> found = joint_leakage(c + 2 * y[:, None], c, y)
    >>> found.accuracy["boosted"]["outputs"], found.value == max(0.0, *found.gain.values())
    (1.0, True)
    """

    accuracy: dict[str, dict[str, float]]
    log_loss: dict[str, dict[str, float]]
    gain: dict[str, float]
    interval: dict[str, tuple[float, float]]
    p_values: dict[str, float]

    @property
    def value(self) -> float:
        """The larger of the gains, in nats; at least 0."""
        return float(np.maximum(0.0, np.max([*self.gain.values()])))

    @property
    def p_value(self) -> float:
        """The smaller of the p-values times their number (Bonferroni)."""
        return float(np.minimum(1.0, len(self.p_values) * np.min([*self.p_values.values()])))

    def __repr__(self) -> str:
        best = max(self.gain, key=lambda head: self.gain[head])
        share = self.accuracy[best]
        return (
            f"JointLeakage(a {best} head on the true concepts reads {share['concepts']:.0%}, on "
            f"the outputs {share['outputs']:.0%}, on both {share['both']:.0%}; gain "
            f"{self.value:.3f} nats, p {self.p_value:.3g})"
        )


def joint_leakage(
    activations: ArrayLike,
    concepts: ArrayLike,
    y: ArrayLike,
    *,
    n_folds: int = 2,
    n_copies: int = 5,
    max_rows: int = 20_000,
    random_state: RandomState = 0,
) -> JointLeakage:
    """Ask heads whether outputs tell more about the class than the true concepts do (JTL).

    A linear head and boosted trees learn the class from the true concepts, from the outputs
    and from both, and are judged by the log-loss on rows they have not seen (cross-fitting).
    ``CE(y | c) - CE(y | ĉ, c)`` would be above zero without any leakage where a head cannot
    use c fully, so the first term is that of both with outputs shuffled among rows that agree
    in their concept: as many numbers, which tell their own concept and nothing else. Leaks
    are seen together: many weak ones add up, and those in pairs, of which no single output
    tells anything, are seen by the trees.

    A gain is set against the spread of the copies, and against what n rows can tell at all:
    a likelihood ratio on unseen rows reaches e^t with a probability of at most e^-t where
    nothing leaks, so no p-value is below exp(-n gain). Without that, where c tells the class
    fully, copies hardly differ and the fifth digit of a loss near zero would be called a leak.

    Parameters
    ----------
    activations : array-like of shape (n, k)
        ĉ.
    concepts : array-like of shape (n, k)
        c, the true concepts, of two values each.
    y : array-like of shape (n,)
        Classes, at least two, each in at least `n_folds` rows.
    n_folds : int
        Parts; each is measured by heads of the others.
    n_copies : int
        Shuffled copies, at least 3; their spread is that of a gain without leakage. 0 leaves
        gain and test out.
    max_rows : int
        More are thinned out.
    random_state : optional
        Of parts and thinning.

    Returns
    -------
    JointLeakage

    Raises
    ------
    InputError
        One class, a class of fewer rows than folds (``CL-INPUT-FEW``), shapes that do not
        fit, NaN.

    References
    ----------
    Makonnen et al., Measuring leakage in concept-based methods: an information-theoretic
    approach, 2025 (arXiv 2504.09459). Wasserman, Ramdas and Balakrishnan, Universal inference,
    PNAS 2020 (the bound of the p-value).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c = rng.random((300, 3)) < 0.5
    >>> joint_leakage(c + 0.3 * rng.normal(size=c.shape), c, c[:, 0]).p_value > 0.05
    True
    """
    A, C = as_matrix(activations, "activations"), as_presence(concepts).astype(np.float64)
    check_rows(A, C, same_columns=True)
    Whole(2).check("n_folds", n_folds)
    Whole(0).check("n_copies", n_copies)
    Whole(1).check("max_rows", max_rows)
    _, codes = variable(y, "y", discrete=True)
    if len(codes) != len(A):
        raise InputError(f"y has {len(codes)} labels for {len(A)} rows.", code="CL-INPUT-LABELS")
    counts = np.bincount(codes)
    if len(counts) < 2 or counts.min() < n_folds:
        raise InputError(
            f"The classes have {counts[:5].tolist()} rows; joint leakage needs two classes, and "
            f"n_folds={n_folds} rows of each.",
            code="CL-INPUT-FEW",
        )
    seed = draw_seed(random_state) % 2**32
    if len(A) > max_rows:
        keep = np.concatenate(
            [
                np.random.default_rng(seed).permutation(np.flatnonzero(codes == c))[
                    : max(n_folds, round(max_rows * n / len(A)))
                ]
                for c, n in enumerate(counts)
            ]
        )
        A, C, codes = A[keep], C[keep], codes[keep]
    parts = list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(A, codes))
    inputs = {"concepts": C, "outputs": A, "both": _both(A, C)}
    accuracy: dict[str, dict[str, float]] = {head: {} for head in HEADS}
    loss: dict[str, dict[str, float]] = {head: {} for head in HEADS}
    for head in HEADS:
        for name in _INPUTS:
            proba = _held_out(head, inputs[name], codes, parts, seed)
            accuracy[head][name] = float((proba.argmax(axis=1) == codes).mean())
            loss[head][name] = _log_loss(proba, codes)
    rng = np.random.default_rng(seed)
    copies = [_both(shuffled(A, C > 0, rng), C) for _ in range(n_copies)]
    gain, interval, p = {}, {}, {}
    for head in HEADS:
        null = np.array([_log_loss(_held_out(head, Z, codes, parts, seed), codes) for Z in copies])
        gain[head], interval[head], p[head] = _against(loss[head]["both"], null, len(A))
    return JointLeakage(accuracy, loss, gain, interval, p)


def shuffled(A: np.ndarray, present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle each column among the rows that agree in its concept."""
    copy = A.copy()
    for j in range(A.shape[1]):
        for value in (False, True):
            rows = np.flatnonzero(present[:, j] == value)
            copy[rows, j] = A[rng.permutation(rows), j]
    return copy


def _both(A: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Join concepts, outputs, and what an output holds beyond the mean of its concept.

    Trees see a leak in pairs there.
    """
    on = (A * C).sum(axis=0) / np.maximum(C.sum(axis=0), 1)
    off = (A * (1 - C)).sum(axis=0) / np.maximum((1 - C).sum(axis=0), 1)
    return np.hstack([C, A, A - np.where(C > 0, on, off)])


def _against(loss: float, null: np.ndarray, n: int) -> tuple[float, tuple[float, float], float]:
    """Compare a loss over n rows with those of copies, of which it is one more without a leak."""
    nan, m = float("nan"), len(null)
    if m < 3:
        return float(null.mean() - loss) if m else nan, (nan, nan), nan
    gain = float(null.mean() - loss)
    error = max(float(null.std(ddof=1)) * np.sqrt(1 + 1 / m), np.finfo(float).tiny)
    half = max(float(student.ppf(0.975, m - 1)) * error, np.log(40) / n)
    p = max(float(student.sf(gain / error, m - 1)), float(np.exp(-n * max(gain, 0.0))))
    return gain, (float(gain - half), float(gain + half)), p


def _log_loss(proba: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(np.maximum(proba[np.arange(len(y)), y], _FLOOR)).mean())


def _held_out(
    head: str, Z: np.ndarray, y: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], seed: int
) -> np.ndarray:
    proba = np.zeros((len(y), int(y.max()) + 1))
    for fit, test in parts:
        if head == "linear":
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        else:
            model = HistGradientBoostingClassifier(
                max_iter=30, max_leaf_nodes=8, min_samples_leaf=10, random_state=seed
            )
        with warnings.catch_warnings():  # the loss is right long before the last digit
            warnings.simplefilter("ignore", ConvergenceWarning)
            proba[test] = model.fit(Z[fit], y[fit]).predict_proba(Z[test])
    return proba
