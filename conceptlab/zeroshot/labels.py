"""Labels, class priors, and what kind of X a user gave."""

from __future__ import annotations

__all__ = ["are_images", "checked_labels", "label_columns", "log_class_prior"]

import os
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length

from conceptlab.arrays import ArrayLike, as_floats, as_numpy
from conceptlab.errors import InputError, unknown_name


def are_images(X: ArrayLike) -> bool:
    """Tell images, in any form, from a feature matrix."""
    # On the type, because an object's images may be read or painted when asked for.
    if isinstance(X, str | os.PathLike) or hasattr(type(X), "images") or hasattr(X, "getbands"):
        return True
    if hasattr(X, "shape"):
        return len(X.shape) in (3, 4) and not hasattr(X, "toarray")
    if isinstance(X, list | tuple) and len(X):
        first = X[0]
        if isinstance(first, str | os.PathLike) or hasattr(first, "getbands"):
            return True
        return len(getattr(first, "shape", ())) == 3
    return False


def checked_labels(y: Any, X: Any) -> np.ndarray:
    """Check that labels fit the rows and give them as a flat array."""
    values = as_numpy(y) if hasattr(y, "detach") else y
    try:
        labels = column_or_1d(values, warn=True)
        if labels.dtype.kind == "f":
            assert_all_finite(labels, input_name="y")
        check_consistent_length(X, labels)
        check_classification_targets(labels)
    except ValueError as error:
        raise InputError(
            f"{str(error).rstrip('. ')}. Give one label, a whole number or a text, for each row.",
            code="CL-INPUT-LABELS",
        ) from error
    if labels.dtype == object and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    return np.asarray(labels)


def label_columns(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Give the column of every label among sorted classes, or say which is none."""
    if (labels.dtype.kind in "iub") != (classes.dtype.kind in "iub"):
        labels = labels.astype(classes.dtype) if classes.dtype.kind == "U" else labels
    places = np.clip(np.searchsorted(classes, labels), 0, len(classes) - 1)
    known = classes[places] == labels
    if known.all():
        return np.asarray(places)
    bad = labels[~known][0]
    if labels.dtype.kind in "iu":
        raise InputError(
            f"Label {bad} is no class: integers count the {len(classes)} classes in the order of "
            f"the concepts, 0 to {len(classes) - 1}.",
            code="CL-INPUT-LABELS",
        )
    raise unknown_name("class", str(bad), map(str, classes), code="CL-INPUT-LABELS")


def log_class_prior(prior: Any, names: list[str], targets: np.ndarray | None) -> np.ndarray:
    """Give the log prior of every class, (K,) float64.

    Parameters
    ----------
    prior : None, "empirical", mapping or array of shape (K,)
        See :class:`conceptlab.zeroshot.BayesianZeroShot`.
    names : list of K str
        By column.
    targets : ndarray of shape (n,), int64, or None
        Columns of the labels.
    """
    K = len(names)
    if prior is None:
        return np.full(K, -np.log(K))
    if isinstance(prior, str):
        if prior != "empirical":
            raise unknown_name("class prior", prior, ["empirical"], hint="Or give numbers.")
        if targets is None:
            raise InputError(
                "class_prior='empirical' counts labels, but fit got none. Give X and y.",
                code="CL-INPUT-LABELS",
            )
        values = np.bincount(targets, minlength=K) + 1.0
    elif hasattr(prior, "keys"):
        missing = [name for name in names if name not in prior]
        if missing or len(prior) != K:
            lacks = f" and lacks {missing[0]!r}" if missing else ""
            raise InputError(
                f"class_prior must name every class once; it has {len(prior)} of {K} names{lacks}.",
                code="CL-INPUT-LABELS",
            )
        values = np.array([prior[name] for name in names], dtype=np.float64)
    else:
        values = as_floats(prior, "prior")
    if values.shape != (K,) or not np.isfinite(values).all() or (values <= 0).any():
        raise InputError(
            f"class_prior must be {K} finite numbers above 0, one a class, got {prior!r:.80}.",
            code="CL-INPUT-RANGE",
        )
    return np.asarray(np.log(values / values.sum()))
