"""Judge a bottleneck in one call: accuracy with controls, names, leakage."""

from __future__ import annotations

__all__ = ["evaluate"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from bottlenecks.controls import CONTROLS, fit_head, random_bank
from bottlenecks.intervals import (
    auc_intervals,
    mean_interval,
    paired_interval,
    rank_p_value,
    wilson_interval,
)
from bottlenecks.leakage import measure_leakage
from bottlenecks.measures import (
    as_matrix,
    as_presence,
    completeness,
    contributing_concepts,
    paired_auc,
)
from bottlenecks.report import BottleneckReport, NameFidelity
from bottlenecks.splits import check_disjoint, split_rows
from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Real, Whole
from conceptlab.provenance import provenance
from conceptlab.seeds import RandomState, draw_seed, numpy_generator
from conceptlab.zeroshot.labels import checked_labels


def evaluate(
    model: Any,
    X: Any,
    y: Any,
    concepts: Any = None,
    *,
    train: tuple[Any, Any] | None = None,
    nec: float | None = None,
    n_random: int = 39,
    n_permutations: int = 39,
    leakage_probe: Literal["linear", "mlp"] = "linear",
    encoder: Any = None,
    confidence: float = 0.95,
    random_state: RandomState = 0,
) -> BottleneckReport:
    """Measure what a bottleneck reaches, against controls, and whether its names hold.

    Parameters
    ----------
    model : estimator
        Fitted; with ``predict``, ``predict_concepts`` and ``concept_names_``,
        and ``coef_`` where it is linear on its concepts.
    X : array-like of shape (n, d)
        Features of rows that the model has not seen.
    y : array-like of shape (n,)
        Their classes.
    concepts : mapping of str to array, data frame, or array of shape (n, k); optional
        True concepts of the rows, of two values each, by name or in the order
        of ``concept_names_``. Names may be left out; without any, names and
        leakage are not measured.
    train : (X, y), optional
        Rows that the controls are fitted on: those of the model, or nothing can be
        set against its accuracy. They must not be among `X`. Without them X is cut
        in two halves; the model's concepts, random ones and the probe are fitted on
        one and compared on the other, and the model itself is compared with none.
    nec : float, optional
        Number of effective concepts of the controls; that of the model by
        default, or all concepts where it has no weights.
    n_random : int
        Draws of each kind of random concepts, at least 1. With fewer than 19 no
        p-value can be below 0.05.
    n_permutations : int
        For the baseline of leakage; 0 leaves it out.
    leakage_probe : {"linear", "mlp"}
        See :func:`bottlenecks.niche_impurity`.
    encoder : Encoder, optional
        That of X, to draw random words too.
    confidence : float
        Level of the intervals.
    random_state : optional

    Returns
    -------
    BottleneckReport

    Raises
    ------
    InputError
        Concepts that the model does not have, by name; rows that are in `X` and
        `train`; shapes that do not fit; one class; NaN.

    Notes
    -----
    Random concepts (:func:`random_bank`) are as many as the model has, under a sparse
    head with the same number of effective concepts: with enough concepts random ones
    are accurate too, so accuracy alone says nothing of the names. All kinds are drawn,
    and the one that is best on average is the baseline. The model's own concepts get
    the same head on the same rows ("refitted"), so that only the concepts differ; the
    difference is taken row by row, its interval from a bootstrap of rows and draws, its
    p-value is the rank among the draws. Completeness relates the accuracy through the
    concepts to that of a logistic regression on X, fitted on the same rows.

    References
    ----------
    Srivastava, Yan and Weng, VLG-CBM, NeurIPS 2024 (random concepts, NEC); Yeh
    et al., NeurIPS 2020 (completeness); see :mod:`bottlenecks.leakage`.

    Examples
    --------
    >>> from bottlenecks import PostHocCBM
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((800, 6)) < 0.5
    >>> X = truth + 0.3 * rng.normal(size=(800, 6))
    >>> y = truth[:, 0] + 2 * truth[:, 1]
    >>> model = PostHocCBM(nec=2).fit(X[:400], y[:400])
    >>> given = {"train": (X[:400], y[:400]), "n_random": 19, "n_permutations": 5}
    >>> report = evaluate(model, X[400:], y[400:], truth[400:], **given)
    >>> bool(report.gain > 0.1), report.p_value, report.fidelity.mean > 0.98
    (True, 0.05, True)
    """
    check_is_fitted(model)
    why = "accuracy without the control of random concepts tells nothing of the concepts"
    Whole(1, hint=why).check("n_random", n_random)
    Whole(0).check("n_permutations", n_permutations)
    (Real(above=0, most=len(model.concept_names_)) | None).check("nec", nec)
    Real(above=0, below=1).check("confidence", confidence)
    if train is not None and not (isinstance(train, tuple | list) and len(train) == 2):
        raise InputError(
            f"train must be (X, y), rows and their classes, got {type(train).__name__}.",
            code="CL-INPUT-TYPE",
        )
    rows = as_matrix(X, "X")
    labels = checked_labels(y, rows)
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"All rows are of one class, {labels[0]!r}. Evaluate on rows of several classes.",
            code="CL-INPUT-FEW",
        )
    seed = draw_seed(random_state)
    names = [str(name) for name in model.concept_names_]
    activations = _activations(model, X)
    right = np.asarray(model.predict(X)) == labels
    coef = getattr(model, "coef_", None)
    fit = _fit_rows(model, X, rows, labels, activations, train, seed)
    found = _controls(fit, _nec(model, fit, nec), n_random, encoder, seed)
    fidelity, leakage = None, None
    skipped: dict[str, str] = {}
    chance = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    through = right if train is not None else found.own
    intervals = _intervals(right, found, through, chance, confidence, seed)
    if concepts is not None:
        truth, kept, skipped = _truth(concepts, names, len(rows))
        places = [names.index(name) for name in kept]
        raw = _raw_scores(model, rows, places)
        each, mean = auc_intervals(activations[:, places], truth, confidence)
        intervals["name fidelity (AUC)"] = mean
        fidelity = NameFidelity(
            kept,
            paired_auc(activations[:, places], truth),
            None if raw is None else paired_auc(raw, truth),
            each,
        )
        leakage = measure_leakage(
            activations[:, places],
            truth,
            labels,
            n_permutations=n_permutations,
            concept_names=kept,
            probe=leakage_probe,
            random_state=seed,
        )
    ncc = None if coef is None else contributing_concepts(activations, coef)
    if ncc is not None:
        intervals["NCC"] = mean_interval(ncc, confidence)
    intervals["zeros among activations"] = mean_interval((activations == 0).mean(1), confidence)
    return BottleneckReport(
        accuracy=float(right.mean()),
        refitted_accuracy=float(found.own.mean()),
        random_accuracy=found.draws.mean(axis=1),
        probe_accuracy=float(found.probe.mean()),
        chance=chance,
        completeness=completeness(float(through.mean()), float(found.probe.mean()), chance),
        nec=None if coef is None else float((np.asarray(coef) != 0).sum(axis=1).mean()),
        ncc=None if ncc is None else float(ncc.mean()),
        control_nec=found.nec,
        sparsity=float((activations == 0).mean()),
        fidelity=fidelity,
        leakage=leakage,
        skipped=skipped,
        concept_names=names,
        settings={
            "model": type(model).__name__,
            "n": len(rows),
            "n_classes": len(np.unique(labels)),
            "n_concepts": len(names),
            "controls": f"fitted on the {len(fit.y)} rows given"
            if train is not None
            else f"fitted on one half, {len(fit.y)} rows",
            "confidence": confidence,
            "n_random": n_random,
            "n_permutations": n_permutations,
            "seed": seed,
        },
        provenance=provenance(seed=seed),
        controls={kind: draws.mean(axis=1) for kind, draws in found.kinds.items()},
        control=found.kind,
        compared=train is not None,
        intervals=intervals,
        p_value=rank_p_value(float(found.own.mean()), found.draws.mean(axis=1)),
    )


def _activations(model: Any, X: ArrayLike) -> np.ndarray:
    return as_matrix(as_numpy(model.predict_concepts(X)), "activations")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows that heads are fitted on, and rows that they are compared on."""

    X: np.ndarray
    y: np.ndarray
    A: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    A_test: np.ndarray


@dataclass(frozen=True, eq=False)
class _Controls:
    """Which test rows each head has right: (n,) of own concepts, (n_random, n) of random ones."""

    nec: float
    own: np.ndarray
    probe: np.ndarray
    kinds: dict[str, np.ndarray]

    @property
    def kind(self) -> str:
        return max(self.kinds, key=lambda kind: self.kinds[kind].mean())

    @property
    def draws(self) -> np.ndarray:
        return self.kinds[self.kind]


def _fit_rows(
    model: Any,
    given: Any,
    X: np.ndarray,
    y: np.ndarray,
    activations: np.ndarray,
    train: tuple[Any, Any] | None,
    seed: int,
) -> _Rows:
    if train is None:
        halves = split_rows(X, y, fractions=(0.5, 0.0, 0.5), random_state=seed)
        a, b = halves.train, halves.test
        rows = _Rows(X[a], y[a], activations[a], X[b], y[b], activations[b])
    else:
        X_fit = as_matrix(train[0], "train[0]")
        y_fit = checked_labels(train[1], X_fit)
        check_disjoint(X_fit, X)
        rows = _Rows(X_fit, y_fit, _activations(model, train[0]), X, y, activations)
    if len(np.unique(rows.y)) < 2:
        raise InputError(
            "The rows that the controls are fitted on are of one class. Give more rows, or train=.",
            code="CL-INPUT-FEW",
        )
    return rows


def _nec(model: Any, rows: _Rows, nec: float | None) -> float:
    """Give the NEC of the controls: what was asked for, as far as there are concepts that move."""
    if nec is None:
        coef = getattr(model, "coef_", None)
        own = rows.A.shape[1] if coef is None else (np.asarray(coef) != 0).sum(axis=1).mean()
        nec = float(own)
    usable = int((rows.A.max(axis=0) > rows.A.min(axis=0)).sum())
    return float(min(max(nec, 1 / len(np.unique(rows.y))), max(usable, 1)))


def _controls(rows: _Rows, nec: float, n_random: int, encoder: Any, seed: int) -> _Controls:
    """Fit the same head on own and on random concepts, and a dense probe; see which rows fit."""

    def right(A: np.ndarray, A_test: np.ndarray) -> np.ndarray:
        if not (A.max(axis=0) > A.min(axis=0)).any():
            return np.full(len(A_test), np.nan)
        return np.asarray(fit_head(A, rows.y, nec)(A_test) == rows.y_test, dtype=np.float64)

    scale = rows.X.std(axis=0)
    mean, scale = rows.X.mean(axis=0), np.where(scale > 0, scale, 1.0)
    probe = LogisticRegression(max_iter=1000).fit((rows.X - mean) / scale, rows.y)
    rng = numpy_generator(seed)
    kinds: dict[str, np.ndarray] = {}
    for kind in CONTROLS if encoder is not None else CONTROLS[:2]:
        draws = []
        for _ in range(n_random):
            options: dict[str, Any] = {"encoder": encoder, "random_state": rng}
            bank = random_bank(rows.X, rows.A.shape[1], kind, **options)
            V = bank.vectors.astype(np.float64).T
            draws.append(right(rows.X @ V, rows.X_test @ V))
        kinds[kind] = np.array(draws)
    hits = probe.predict((rows.X_test - mean) / scale) == rows.y_test
    return _Controls(nec, right(rows.A, rows.A_test), hits.astype(np.float64), kinds)


def _intervals(
    right: np.ndarray,
    found: _Controls,
    through: np.ndarray,
    chance: float,
    confidence: float,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Give an interval for every accuracy and what is made of them, by the name of its row."""
    n, draws = len(found.own), found.draws
    rng = numpy_generator(seed)
    picked = rng.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), size=2000)
    paired: dict[str, Any] = {"confidence": confidence, "seed": seed}

    def gain(counts: np.ndarray) -> np.ndarray:
        random = ((counts @ draws.T) * picked).sum(axis=1) / len(draws)
        return np.asarray((counts @ found.own - random) / n)

    def kept(counts: np.ndarray) -> np.ndarray:
        a, b = counts @ through / n - chance, counts @ found.probe / n - chance
        return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)

    wilson = {
        "accuracy": right,
        "accuracy, concepts refitted": found.own,
        "accuracy, dense probe": found.probe,
    }
    return {
        **{
            name: wilson_interval(float(values.sum()), len(values), confidence)
            for name, values in wilson.items()
        },
        "accuracy, refitted less random": paired_interval(gain, n, **paired),
        "completeness": paired_interval(kept, n, **paired),
    }


def _truth(concepts: Any, names: list[str], n: int) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Give true concepts (n, q) as booleans, their names, and which were skipped and why."""
    columns: dict[str, np.ndarray]
    if isinstance(concepts, Mapping) or hasattr(concepts, "columns"):
        keys = list(concepts) if isinstance(concepts, Mapping) else list(concepts.columns)
        columns = {str(key): as_numpy(concepts[key]) for key in keys}
        for key in columns:
            if key not in names:
                raise unknown_name("concept", key, names)
    else:
        matrix = as_numpy(concepts)
        if matrix.ndim != 2 or matrix.shape[1] != len(names):
            raise InputError(
                f"concepts have shape {matrix.shape}; expected ({n}, {len(names)}), a column for "
                "each of concept_names_. Give a mapping from name to column for some of them.",
                code="CL-INPUT-SHAPE",
            )
        columns = {name: matrix[:, j] for j, name in enumerate(names)}
    wrong = [name for name, column in columns.items() if column.shape != (n,)]
    if wrong:
        raise InputError(
            f"The true concept {wrong[0]!r} has shape {columns[wrong[0]].shape}; expected ({n},), "
            "one value a row.",
            code="CL-INPUT-SHAPE",
        )
    kept = [name for name in names if name in columns]
    if not kept:
        raise InputError("concepts is empty. Give at least one.", code="CL-INPUT-EMPTY")
    present = as_presence(np.stack([columns[name] for name in kept], axis=1), kept)
    constant = present.all(axis=0) | ~present.any(axis=0)
    skipped = {kept[j]: "the same in all rows" for j in np.flatnonzero(constant)}
    if constant.all():
        raise InputError(
            f"All {len(kept)} true concepts are the same in all rows, so neither names nor leakage "
            "can be measured. Take more rows, or leave concepts out.",
            code="CL-INPUT-FEW",
        )
    left = [name for name in kept if name not in skipped]
    return present[:, ~constant], left, skipped


def _raw_scores(model: Any, X: np.ndarray, places: list[int]) -> np.ndarray | None:
    """Give the scores of the bank that the model started from, where it has one for X."""
    bank = getattr(model, "bank", None)
    names = list(model.concept_names_)
    if bank is None or X.shape[1] != bank.n_features or list(bank.names) != names:
        return X[:, places] if bank is None and X.shape[1] == len(names) else None
    return np.asarray(bank.score(X))[:, places]
