"""What concept outputs tell beyond their concepts: leakage and impurity, with a baseline."""

from __future__ import annotations

__all__ = [
    "MEASURES",
    "Leakage",
    "LeakageScores",
    "concept_task_leakage",
    "interconcept_leakage",
    "measure_leakage",
    "niche_impurity",
    "oracle_impurity",
]

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from bottlenecks.information import (
    mutual_information,
    pairwise_information,
    plug_in,
    variable,
)
from bottlenecks.intervals import rank_p_value
from bottlenecks.joint import JointLeakage, joint_leakage
from bottlenecks.joint import shuffled as _shuffled
from bottlenecks.measures import as_matrix, as_presence, auc_matrix, check_rows, paired_auc
from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("CTL", "ICL", "OIS", "NIS", "JTL")
_PROBES = ("linear", "mlp")
_RIDGE = 1e-3


def concept_task_leakage(
    activations: ArrayLike,
    concepts: ArrayLike,
    y: ArrayLike,
    *,
    n_neighbors: int = 3,
    random_state: RandomState = 0,
) -> np.ndarray:
    """Measure what each output tells about the class beyond its concept (CTL).

    ``max(0, I(ĉ_j; y) / H(y) - I(c_j; y) / H(y))`` for every concept j.

    Parameters
    ----------
    activations : array-like of shape (n, k)
        ĉ.
    concepts : array-like of shape (n, k)
        c, the true concepts.
    y : array-like of shape (n,)
        Classes.
    n_neighbors, random_state : optional
        See :func:`mutual_information`.

    Returns
    -------
    ndarray of shape (k,), float64
        The score of the literature is the mean. Zero for ``ĉ = c``.

    References
    ----------
    Leakage and Interpretability in Concept-Based Models, 2025 (arXiv
    2504.14094).

    Examples
    --------
    >>> c = np.tile([[0, 1], [1, 0]], (20, 1))
    >>> concept_task_leakage(c, c, c[:, 0])
    array([0., 0.])
    """
    A, C = _pair(activations, concepts)
    _, codes = variable(y, "y", discrete=True)
    seed = draw_seed(random_state)
    truth = np.array([mutual_information(c, codes, random_state=seed) for c in C.T])
    return np.maximum(0.0, _task_leakage(A, codes, truth, n_neighbors, seed))


def _task_leakage(
    A: np.ndarray, codes: Any, truth: np.ndarray, n_neighbors: int, seed: int
) -> np.ndarray:
    entropy = plug_in(codes, codes)
    if entropy <= 0:
        raise InputError(
            "All samples are of one class, so there is nothing to tell about it. Take samples of "
            "at least two classes.",
            code="CL-INPUT-FEW",
        )
    options: dict[str, Any] = {"n_neighbors": n_neighbors, "random_state": seed}
    found = np.array([mutual_information(a, codes, **options) for a in A.T])
    return np.asarray((found - truth) / entropy)


def interconcept_leakage(
    activations: ArrayLike, concepts: ArrayLike, *, n_bins: int = 8
) -> np.ndarray:
    """Measure what outputs tell about each other beyond their concepts (ICL).

    ``max(0, J(ĉ_i, ĉ_j) - J(c_i, c_j))`` with the normalised information
    ``J(a, b) = I(a; b) / sqrt(H(a) H(b))``. The information of a continuous
    variable with itself is infinite, so such outputs are first cut into bins
    of equally many samples.

    Parameters
    ----------
    activations : array-like of shape (n, k)
        ĉ.
    concepts : array-like of shape (n, k)
        c, the true concepts.
    n_bins : int
        For variables of more than 20 values.

    Returns
    -------
    ndarray of shape (k, k), float64
        Symmetric, zeros on the diagonal. The score of the literature is the
        mean of the entries off the diagonal. Zero for ``ĉ = c``.

    References
    ----------
    See :func:`concept_task_leakage`.

    Examples
    --------
    >>> c = np.tile([[0, 1], [1, 0], [1, 1]], (20, 1))
    >>> interconcept_leakage(c, c)
    array([[0., 0.],
           [0., 0.]])
    """
    A, C = _pair(activations, concepts)
    Whole(2).check("n_bins", n_bins)
    return np.maximum(0.0, pairwise_information(A, n_bins) - pairwise_information(C, n_bins))


def oracle_impurity(activations: ArrayLike, concepts: ArrayLike) -> float:
    """Measure whether outputs predict other concepts more than concepts do (OIS).

    ``(2 / k) ‖π̂ - π‖_F`` with π̂_ij how well output i ranks samples by concept
    j, and π_ij how well the true concept i does.

    Parameters
    ----------
    activations : array-like of shape (n, k)
    concepts : array-like of shape (n, k)
        Of two values each.

    Returns
    -------
    float
        In [0, 1]; 0 for pure outputs.

    Notes
    -----
    Published code trains a network from one number to one bit for every entry
    and takes its area under the ROC curve. That area does not change under
    monotone maps, so here it is that of the number itself, either way up.

    References
    ----------
    Espinosa Zarlenga et al., Towards Robust Metrics for Concept Representation
    Evaluation, AAAI 2023, definition 3.2.

    Examples
    --------
    >>> c = np.tile([[0, 1], [1, 0], [1, 1], [0, 0]], (5, 1))
    >>> oracle_impurity(c, c)
    0.0
    """
    A, C = _pair(activations, concepts)
    present = as_presence(C)
    gap = _either_way(auc_matrix(A, present)) - _either_way(auc_matrix(present, present))
    return float(2 / A.shape[1] * np.linalg.norm(gap))


def niche_impurity(
    activations: ArrayLike,
    concepts: ArrayLike,
    *,
    n_thresholds: int = 20,
    probe: Literal["linear", "mlp"] = "linear",
    random_state: RandomState = 0,
) -> float:
    """Measure how well a concept is predicted without the outputs that carry it (NIS).

    The niche of concept j at threshold β are the outputs whose correlation with
    c_j exceeds β in size. A probe learns all concepts from all outputs; then
    the niche is set to its mean and concept j predicted from the rest. The
    area under the ROC curve, averaged over concepts, is integrated over β.

    Parameters
    ----------
    activations : array-like of shape (n, k)
    concepts : array-like of shape (n, k)
        Of two values each.
    n_thresholds : int
        β are the middles of so many equal parts of [0, 1].
    probe : {"linear", "mlp"}
        Ridge regression in closed form, or a network with one hidden layer of
        64 as in the published code.
    random_state : optional
        Of the split in two halves (fit, measure) and of the network.

    Returns
    -------
    float
        In [0, 1]; 0.5 for pure outputs of independent concepts. Published code
        stops at β = 0.95 and gives those 0.475.

    References
    ----------
    See :func:`oracle_impurity`, definition 3.4.

    Examples
    --------
    >>> c = np.random.default_rng(0).random((2000, 3)) < 0.5
    >>> round(niche_impurity(c, c), 1)
    0.5
    """
    A, C = _pair(activations, concepts)
    if probe not in _PROBES:
        raise unknown_name("probe", probe, _PROBES)
    if n_thresholds < 1 or len(A) < 8:
        raise InputError(
            f"niche_impurity needs n_thresholds >= 1 and 8 samples, got {n_thresholds} and "
            f"{len(A)}.",
            code="CL-INPUT-FEW",
        )
    present = as_presence(C)
    seed = draw_seed(random_state)
    order = numpy_generator(seed).permutation(len(A))
    fit, test = order[: len(A) // 2], order[len(A) // 2 :]
    scale = A.std(axis=0)
    Z = (A - A.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    truth = present - present.mean(axis=0)
    spread = np.sqrt((truth**2).mean(axis=0))
    correlation = np.abs(Z.T @ truth) / len(A) / np.where(spread > 0, spread, 1.0)
    usable = np.flatnonzero(present[test].any(axis=0) & ~present[test].all(axis=0))
    if not len(usable):
        raise InputError(
            "Every concept is the same in all samples of the half that is measured. Take more "
            "samples.",
            code="CL-INPUT-FEW",
        )
    predict = _fitted_probe(Z[fit], present[fit], probe, seed)
    areas = []
    for beta in (np.arange(n_thresholds) + 0.5) / n_thresholds:
        rest = predict(Z[test], (correlation <= beta).astype(np.float64))
        areas.append(paired_auc(rest[:, usable], present[test][:, usable]).mean())
    return float(np.mean(areas))


def _fitted_probe(
    Z: np.ndarray, present: np.ndarray, probe: str, seed: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Learn concepts from outputs; the answer predicts concept j from the outputs in kept[:, j]."""
    k = Z.shape[1]
    if probe == "linear":
        target = present - present.mean(axis=0)
        W = np.linalg.solve(Z.T @ Z + _RIDGE * len(Z) * np.eye(k), Z.T @ target)
        return lambda rows, kept: rows @ (W * kept)
    network = MLPClassifier((64,), max_iter=100, random_state=seed)
    with warnings.catch_warnings():  # the ranking is right long before the last digit of the loss
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(Z, present.astype(int) if k > 1 else present[:, 0].astype(int))

    def predict(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
        columns = []
        for j in range(k):
            found = network.predict_proba(rows * kept[:, j])
            columns.append(found[:, j] if k > 1 else found[:, -1])
        return np.stack(columns, axis=1)

    return predict


# ------------------------------------------------------------------------ together
@dataclass(frozen=True, eq=False)
class Leakage:
    """One measure beside what it is for outputs that tell nothing but their concept.

    Attributes
    ----------
    name : str
        ``"CTL"``, ``"ICL"``, ``"OIS"``, ``"NIS"`` or ``"JTL"``.
    value : float
        As published.
    null : ndarray of shape (n_permutations,), float64
        The same measure after each output was shuffled among the samples that
        agree in its concept: it keeps what it tells about its own concept and
        loses everything else. Empty where the measure has a test of its own.
    by_concept : ndarray of shape (k,), float64, or None
        Where the measure is a mean over concepts.
    statistic : float or None
        What is compared with `null` where it is not the value itself: CTL is cut off at
        zero, and a noisy output that leaks would look clean after the cut.
    p : float or None
        P-value of a test of its own.
    joint : JointLeakage or None
        Of JTL: what heads reach on the truth, on the outputs and on both.

    Examples
    --------
    >>> found = Leakage("CTL", 0.5, null=np.array([0.1, 0.2, 0.1]))
    >>> round(found.excess, 2), round(found.p_value, 2)
    (0.37, 0.25)
    """

    name: str
    value: float
    null: np.ndarray
    by_concept: np.ndarray | None = None
    statistic: float | None = None
    p: float | None = None
    joint: JointLeakage | None = None

    @property
    def baseline(self) -> float:
        """Mean of `null`, 0 where the measure has a test of its own; NaN without permutations."""
        if self.p is not None:
            return 0.0
        return float(self.null.mean()) if len(self.null) else float("nan")

    @property
    def excess(self) -> float:
        """Value less baseline: what cannot be noise."""
        return (self.value if self.statistic is None else self.statistic) - self.baseline

    @property
    def p_value(self) -> float:
        """Share of shuffled copies, this one included, that leak as much; NaN without any."""
        if self.p is not None:
            return self.p
        return rank_p_value(self.value if self.statistic is None else self.statistic, self.null)


class LeakageScores(Mapping[str, Leakage]):
    """All measures by name, as a table.

    Parameters
    ----------
    scores : sequence of Leakage
    concept_names : sequence of str
        What the k concepts are called.

    Examples
    --------
    >>> scores = LeakageScores([Leakage("CTL", 0.5, null=np.array([0.25]))], ["red"])
    >>> scores["CTL"].excess, list(scores)
    (0.25, ['CTL'])
    """

    def __init__(self, scores: Sequence[Leakage], concept_names: Sequence[str]) -> None:
        self._scores = {score.name: score for score in scores}
        self.concept_names = list(concept_names)

    def __getitem__(self, name: str) -> Leakage:
        try:
            return self._scores[name]
        except KeyError:
            raise unknown_name("measure of leakage", name, self._scores) from None

    def __iter__(self) -> Any:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def to_frame(self) -> pd.DataFrame:
        """Tabulate value, baseline, its standard deviation, excess and p-value by measure."""
        import pandas as pd

        rows = {
            score.name: {
                "value": score.value,
                "baseline": score.baseline,
                "baseline_sd": float(score.null.std()) if len(score.null) else float("nan"),
                "excess": score.excess,
                "p_value": score.p_value,
            }
            for score in self.values()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")

    def __repr__(self) -> str:
        shown = ", ".join(f"{s.name} {s.value:.3f} ({s.baseline:.3f})" for s in self.values())
        return f"LeakageScores({shown}; baseline in brackets)"

    def _repr_html_(self) -> str:
        from conceptlab.io.html import table

        frame = self.to_frame().reset_index()
        heads = [name.replace("_", " ") for name in frame.columns]
        return f"<div>{table(heads, frame.itertuples(index=False, name=None))}</div>"


def measure_leakage(
    activations: ArrayLike,
    concepts: ArrayLike,
    y: ArrayLike,
    *,
    measures: Sequence[str] = MEASURES,
    n_permutations: int = 39,
    concept_names: Sequence[str] | None = None,
    n_neighbors: int = 3,
    n_bins: int = 8,
    probe: Literal["linear", "mlp"] = "linear",
    random_state: RandomState = 0,
) -> LeakageScores:
    """Measure leakage in every way, beside a permutation baseline.

    Parameters
    ----------
    activations : array-like of shape (n, k)
        Outputs of a bottleneck.
    concepts : array-like of shape (n, k)
        The true concepts, of two values each.
    y : array-like of shape (n,)
        Classes.
    measures : sequence of str
        Of ``"CTL"``, ``"ICL"``, ``"OIS"``, ``"NIS"`` and ``"JTL"``
        (:func:`joint_leakage`, which sees what no single output or pair tells).
    n_permutations : int
        Shuffled copies; 0 leaves the baseline out. With fewer than 19 no p-value can be
        below 0.05.
    concept_names : sequence of k str, optional
    n_neighbors, n_bins, probe : optional
        See :func:`concept_task_leakage`, :func:`interconcept_leakage`,
        :func:`niche_impurity`.
    random_state : optional
        Of shuffles and halves.

    Returns
    -------
    LeakageScores

    Raises
    ------
    InputError
        Shapes that do not fit, a concept that never changes, one class, NaN.

    Notes
    -----
    Finite samples make all measures but JTL positive for outputs without any
    leakage. The baseline shuffles every output among samples with the same
    value of its own concept, which keeps its relation to that concept and
    breaks the one to classes, other concepts and other outputs. That of CTL is not cut
    off at zero. JTL has no shuffled copies: its heads are measured on rows that they have
    not seen. NIS falls, not rises, for outputs that hold the class outright; it tells of
    other concepts only.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c = rng.random((300, 3)) < 0.5
    >>> y = c[:, 0] + 2 * c[:, 1]
    >>> scores = measure_leakage(c + 0.5 * y[:, None], c, y, n_permutations=5)
    >>> scores["CTL"].value > 0.3, scores["CTL"].excess > 0.3
    (True, True)
    """
    A, C = _pair(activations, concepts)
    present = as_presence(C, concept_names)
    for name in measures:
        if name not in MEASURES:
            raise unknown_name("measure of leakage", name, MEASURES)
    Whole(0).check("n_permutations", n_permutations)
    labels, codes = variable(y, "y", discrete=True)
    if len(labels) != len(A):
        raise InputError(
            f"y has {len(labels)} labels for {len(A)} samples.", code="CL-INPUT-LABELS"
        )
    names = list(concept_names) if concept_names is not None else _numbered(A.shape[1])
    seed = draw_seed(random_state)
    rng = numpy_generator(seed)
    truth = np.array([mutual_information(c, codes, random_state=seed) for c in present.T])
    base = pairwise_information(present.astype(np.float64), n_bins)

    def measured(name: str, rows: np.ndarray) -> tuple[float, np.ndarray | None]:
        if name == "CTL":
            found = _task_leakage(rows, codes, truth, n_neighbors, seed)
            return float(found.mean()), np.maximum(0.0, found)
        if name == "ICL":
            pairs = np.maximum(0.0, pairwise_information(rows, n_bins) - base)
            by_concept = pairs.sum(axis=1) / max(1, len(pairs) - 1)
            return float(by_concept.mean()), by_concept
        if name == "OIS":
            return oracle_impurity(rows, present), None
        return niche_impurity(rows, present, probe=probe, random_state=seed), None

    copies = [_shuffled(A, present, rng) for _ in range(n_permutations)]
    scores = []
    for name in measures:
        if name == "JTL":
            joint = joint_leakage(
                A, present, codes, n_copies=min(n_permutations, 5), random_state=seed
            )
            scores.append(Leakage(name, joint.value, np.empty(0), p=joint.p_value, joint=joint))
            continue
        statistic, by_concept = measured(name, A)
        null = np.array([measured(name, copy)[0] for copy in copies])
        value = statistic if name != "CTL" or by_concept is None else float(by_concept.mean())
        scores.append(Leakage(name, value, null, by_concept, statistic))
    return LeakageScores(scores, names)


# -------------------------------------------------------------------------- inside
def _pair(activations: ArrayLike, concepts: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    A, C = as_matrix(activations, "activations"), as_matrix(concepts, "concepts")
    check_rows(A, C, same_columns=True)
    return A, C


def _numbered(k: int) -> list[str]:
    return [f"concept{j}" for j in range(k)]


def _either_way(areas: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(areas, 1 - areas))
