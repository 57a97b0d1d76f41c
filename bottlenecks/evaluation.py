"""Judge a bottleneck in one call: accuracy with controls, names, leakage."""

from __future__ import annotations

__all__ = ["evaluate"]

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from bottlenecks.heads import SparseLinearHead
from bottlenecks.leakage import measure_leakage
from bottlenecks.measures import (
    as_matrix,
    as_presence,
    completeness,
    number_of_contributing_concepts,
    paired_auc,
)
from bottlenecks.report import BottleneckReport, NameFidelity
from bottlenecks.splits import check_disjoint, split_rows
from conceptlab.arrays import as_numpy
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
    n_random: int = 5,
    n_permutations: int = 10,
    leakage_probe: Literal["linear", "mlp"] = "linear",
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
        Rows that the controls are fitted on, as a rule those of the model. They
        must not be among `X`. By default X is cut in two halves: controls are
        fitted on one and compared on the other.
    nec : float, optional
        Number of effective concepts of the controls; that of the model by
        default, or all concepts where it has no weights.
    n_random : int
        Draws of random concepts, at least 1.
    n_permutations : int
        For the baseline of leakage; 0 leaves it out.
    leakage_probe : {"linear", "mlp"}
        See :func:`bottlenecks.niche_impurity`.
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
    Random concepts are Gaussian directions in the space of X, as many as the
    model has, under a sparse head with the same number of effective concepts:
    with enough concepts random ones are accurate too, so accuracy alone says
    nothing of the names. The model's own concepts get the same head on the same
    rows ("refitted"), so that only the concepts differ. Completeness relates
    the model's accuracy to that of a logistic regression on X.

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
    >>> report = evaluate(model, X[400:], y[400:], truth[400:], n_permutations=5)
    >>> bool(report.accuracy > report.random_accuracy.mean() + 0.1), report.fidelity.mean > 0.98
    (True, True)
    """
    check_is_fitted(model)
    why = "accuracy without the control of random concepts tells nothing of the concepts"
    Whole(1, hint=why).check("n_random", n_random)
    Whole(0).check("n_permutations", n_permutations)
    (Real(above=0, most=len(model.concept_names_)) | None).check("nec", nec)
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
    found = _controls(model, rows, labels, activations, train, nec, n_random, seed)
    measured = right if train is not None else right[found["rows"]]
    fidelity, leakage = None, None
    skipped: dict[str, str] = {}
    if concepts is not None:
        truth, kept, skipped = _truth(concepts, names, len(rows))
        places = [names.index(name) for name in kept]
        raw = _raw_scores(model, rows, places)
        fidelity = NameFidelity(
            kept,
            paired_auc(activations[:, places], truth),
            None if raw is None else paired_auc(raw, truth),
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
    chance = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    return BottleneckReport(
        accuracy=float(right.mean()),
        refitted_accuracy=found["own"],
        random_accuracy=found["random"],
        probe_accuracy=found["probe"],
        chance=chance,
        completeness=completeness(float(measured.mean()), found["probe"], chance),
        nec=None if coef is None else float((np.asarray(coef) != 0).sum(axis=1).mean()),
        ncc=None if coef is None else number_of_contributing_concepts(activations, coef),
        control_nec=found["nec"],
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
            "controls": "fitted on the rows given" if train is not None else "fitted on one half",
            "n_random": n_random,
            "n_permutations": n_permutations,
            "seed": seed,
        },
        provenance=provenance(seed=seed),
    )


def _activations(model: Any, X: Any) -> np.ndarray:
    return as_matrix(as_numpy(model.predict_concepts(X)), "activations")


def _controls(
    model: Any,
    X: np.ndarray,
    y: np.ndarray,
    activations: np.ndarray,
    train: tuple[Any, Any] | None,
    nec: float | None,
    n_random: int,
    seed: int,
) -> dict[str, Any]:
    """Fit heads on own and on random concepts, and a dense probe; measure on other rows."""
    if train is None:
        halves = split_rows(X, y, fractions=(0.5, 0.0, 0.5), random_state=seed)
        fit, test = halves.train, halves.test
        X_fit, y_fit, A_fit = X[fit], y[fit], activations[fit]
        X_test, y_test, A_test = X[test], y[test], activations[test]
    else:
        X_fit = as_matrix(train[0], "train[0]")
        y_fit = checked_labels(train[1], X_fit)
        check_disjoint(X_fit, X)
        A_fit, test = _activations(model, train[0]), np.arange(len(X))
        X_test, y_test, A_test = X, y, activations
    if len(np.unique(y_fit)) < 2:
        raise InputError(
            "The rows that the controls are fitted on are of one class. Give more rows, or train=.",
            code="CL-INPUT-FEW",
        )
    used = nec
    if used is None:
        coef = getattr(model, "coef_", None)
        used = A_fit.shape[1] if coef is None else (np.asarray(coef) != 0).sum(axis=1).mean()
    usable = int((A_fit.max(axis=0) > A_fit.min(axis=0)).sum())
    K = len(np.unique(y_fit))
    used = float(min(max(used, 1 / K), max(usable, 1)))
    scale = X_fit.std(axis=0)
    mean, scale = X_fit.mean(axis=0), np.where(scale > 0, scale, 1.0)
    Z_fit, Z_test = (X_fit - mean) / scale, (X_test - mean) / scale
    rng = numpy_generator(seed)
    scores = []
    for _ in range(n_random):
        R = rng.normal(size=(X.shape[1], activations.shape[1]))
        scores.append(_head_accuracy(Z_fit @ R, y_fit, Z_test @ R, y_test, used))
    probe = LogisticRegression(max_iter=1000).fit(Z_fit, y_fit)
    return {
        "own": _head_accuracy(A_fit, y_fit, A_test, y_test, used) if usable else float("nan"),
        "random": np.array(scores),
        "probe": float((probe.predict(Z_test) == y_test).mean()),
        "nec": used,
        "rows": test,
    }


def _head_accuracy(
    A: np.ndarray, y: np.ndarray, A_test: np.ndarray, y_test: np.ndarray, nec: float
) -> float:
    mean, scale = A.mean(axis=0), A.std(axis=0)
    moving = scale > 0
    Z, Z_test = ((V[:, moving] - mean[moving]) / scale[moving] for V in (A, A_test))
    head: Any = LogisticRegression(max_iter=1000)
    if nec < Z.shape[1]:  # else all concepts may be used, and nothing has to be searched for
        head = SparseLinearHead(nec=nec, tol=1e-3, device="cpu")
    return float((head.fit(Z, y).predict(Z_test) == y_test).mean())


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
