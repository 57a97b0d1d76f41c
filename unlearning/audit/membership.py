"""Membership attacks: do the model's answers give away what it was trained on?

A model that never saw a class gives its samples answers like those of samples outside of
the training set. Each attack's value is to be compared with that of a retrained model.
"""

from __future__ import annotations

__all__ = [
    "ATTACKED",
    "confidence",
    "entropy",
    "loss_attack",
    "machine_attack",
    "member_share",
    "modified_entropy",
    "neighbour_attack",
    "non_member_share",
]

from collections.abc import Callable
from typing import Any

import numpy as np

from conceptlab.arrays import ArrayLike, as_floats, check_finite
from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, numpy_generator
from unlearning.audit.concept_level import class_numbers

_TINY = 1e-30
ATTACKED = 300
"""How many members and non-members an attack is trained on at most."""


def confidence(p: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Take the probability of the true class.

    Parameters
    ----------
    p : array-like of shape (n, C)
        Probabilities.
    y : array-like of shape (n,)
        True classes.

    Returns
    -------
    ndarray of shape (n,), float64

    Examples
    --------
    >>> confidence([[0.2, 0.8]], [1])
    array([0.8])
    """
    values, labels = _checked(p, y)
    return values[np.arange(len(labels)), labels]


def entropy(p: ArrayLike) -> np.ndarray:
    """Compute the entropy of each row, in nats.

    Parameters
    ----------
    p : array-like of shape (n, C)
        Probabilities.

    Returns
    -------
    ndarray of shape (n,), float64

    Examples
    --------
    >>> entropy([[0.5, 0.5]]).round(4)
    array([0.6931])
    """
    values = as_floats(p, "p")
    return np.asarray(-(values * np.log(values.clip(_TINY))).sum(axis=1))


def modified_entropy(p: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Compute the entropy that knows the true class: 0 when surely right, large when surely wrong.

    Parameters
    ----------
    p : array-like of shape (n, C)
        Probabilities.
    y : array-like of shape (n,)
        True classes.

    Returns
    -------
    ndarray of shape (n,), float64

    Notes
    -----
    M(p, y) = -(1 - p_y) log p_y - Σ_{j≠y} p_j log(1 - p_j).

    References
    ----------
    Song and Mittal, "Systematic evaluation of privacy risks of machine learning models",
    USENIX Security 2021 (Mentr).

    Examples
    --------
    >>> modified_entropy([[0.5, 0.5]], [0]).round(4)
    array([0.6931])
    """
    values, labels = _checked(p, y)
    rows = np.arange(len(labels))
    terms = values * np.log((1 - values).clip(_TINY))
    terms[rows, labels] = 0.0
    own = values[rows, labels]
    return np.asarray(-(1 - own) * np.log(own.clip(_TINY)) - terms.sum(axis=1)).clip(0)


def non_member_share(
    members: ArrayLike,
    others: ArrayLike,
    forget: Any,
    *,
    max_samples: int = ATTACKED,
    random_state: RandomState = 0,
) -> float:
    """Train an attack on known members and non-members; share of forget samples called non-members.

    With the confidence of the true class this is the "MIA-efficacy" of Unlearn-Sparse and
    SalUn.

    Parameters
    ----------
    members : array-like of shape (n,) or (n, m)
        What the attack sees of retained training samples, such as :func:`confidence`.
    others : array-like of shape (n,) or (n, m)
        The same of retained test samples. Both sides are cut to equal size.
    forget : array-like of shape (n,) or (n, m)
        The same of the forget samples.
    max_samples : int
        At most so many of each side (the attack costs their square) are drawn.
    random_state : int, RandomState, Generator or None
        Of the draw.

    Returns
    -------
    float
        In [0, 1]. Compare with a retrained model's value, not with 1.

    Notes
    -----
    Support vector machine with radial kernel, C = 3, gamma = 1/m.

    References
    ----------
    Jia et al., "Model sparsity can simplify machine unlearning", NeurIPS 2023 (MIA-efficacy).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> non_member_share(rng.uniform(0.9, 1, 50), rng.uniform(0, 0.5, 50), rng.uniform(0, 0.5, 20))
    1.0
    """
    return machine_attack(
        members, others, forget, max_samples=max_samples, random_state=random_state
    )[0]


def machine_attack(
    members: ArrayLike,
    others: ArrayLike,
    forget: Any,
    *,
    max_samples: int,
    random_state: RandomState,
) -> tuple[float, float]:
    """Do the attack of :func:`non_member_share`; also give its accuracy on what it was trained on.

    An accuracy near one half means that the attack tells members from others no better than
    a coin: then the share says nothing, and jumps between 0 and 1 from model to model.
    """
    from sklearn.svm import SVC

    X, y, probe = _sides(members, others, forget, max_samples, random_state)
    # Most confidences are near 1: what is equal to three decimals is one sample of more weight,
    # which is the same machine at a tenth of the time.
    whole = np.round(np.concatenate([X, probe]), 3)
    places, row = np.unique(whole, axis=0, return_inverse=True)
    row = row.reshape(-1)
    told, weight = np.unique(np.stack([row[: len(X)], y], axis=1), axis=0, return_counts=True)
    # Nothing depends on the seed, but without one NumPy's global state would be drawn from.
    attack = SVC(C=3.0, gamma="auto", random_state=0)
    attack.fit(places[told[:, 0]], told[:, 1], sample_weight=weight)
    called = attack.predict(places)[row]
    return float(np.mean(called[len(X) :] == 0)), float(np.mean(called[: len(X)] == y))


def member_share(
    members: ArrayLike,
    others: ArrayLike,
    forget: Any,
    *,
    max_samples: int = ATTACKED,
    random_state: RandomState = 0,
) -> float:
    """Train a logistic attack; share of forget samples called members.

    With the entropy this is the attack of "bad teaching" and of SSD.

    Parameters
    ----------
    members : array-like of shape (n,) or (n, m)
        What the attack sees of retained training samples, such as :func:`entropy`.
    others : array-like of shape (n,) or (n, m)
        The same of test samples. Both sides are cut to equal size.
    forget : array-like of shape (n,) or (n, m)
        The same of the forget samples.
    max_samples : int
        At most so many of each side are drawn.
    random_state : int, RandomState, Generator or None
        Of the draw.

    Returns
    -------
    float
        In [0, 1].

    References
    ----------
    Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> member_share(rng.uniform(0, 0.1, 50), rng.uniform(1, 2, 50), rng.uniform(1, 2, 20))
    0.0
    """
    from sklearn.linear_model import LogisticRegression

    X, y, probe = _sides(members, others, forget, max_samples, random_state)
    if X.shape[1] == 1:
        slope, offset = _logistic(X[:, 0], y)
        return float(np.mean(slope * probe[:, 0] + offset > 0))
    attack = LogisticRegression(class_weight="balanced").fit(X, y)
    return float(np.mean(attack.predict(probe) == 1))


def loss_attack(
    forget: Any, held_out: Any, *, n_splits: int = 10, random_state: RandomState = 0
) -> float:
    """Tell forget samples from unseen samples of the same class by their loss.

    Parameters
    ----------
    forget : array-like of shape (n,)
        Cross-entropy of the forget samples (they were trained on once).
    held_out : array-like of shape (n,)
        Cross-entropy of test samples of the same class. Both are cut to equal size.
    n_splits : int
        Stratified random splits, one fifth of the samples held out of each.
    random_state : int, RandomState, Generator or None
        Of splits and draws.

    Returns
    -------
    float
        |mean accuracy - 0.5|, in [0, 0.5]; 0 means that nothing can be told. NaN with
        fewer than 5 samples on either side.

    References
    ----------
    Kurmanji et al., "Towards unbounded machine unlearning" (SCRUB), NeurIPS 2023 (basic attack).

    Examples
    --------
    >>> loss_attack(np.linspace(0, 0.1, 50), np.linspace(5, 6, 50))
    0.5
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    first, second = _column(forget, "forget"), _column(held_out, "held_out")
    size = min(len(first), len(second), ATTACKED)
    if size < 5:
        return float("nan")
    rng = numpy_generator(random_state)
    X = np.concatenate([_drawn(first, size, rng), _drawn(second, size, rng)])
    X = (X - X.mean(axis=0)) / max(float(X.std()), 1e-12)
    y = np.repeat([1, 0], size)
    splits = StratifiedShuffleSplit(n_splits, test_size=0.2, random_state=int(rng.integers(2**31)))
    found = []
    for train, test in splits.split(X, y):
        slope, offset = _logistic(X[train, 0], y[train])
        found.append(float(np.mean((slope * X[test, 0] + offset > 0) == y[test])))
    return abs(float(np.mean(found)) - 0.5)


def neighbour_attack(
    answers: ArrayLike,
    reference: ArrayLike,
    classes: Any,
    *,
    neighbours: int = 3,
    max_samples: int = ATTACKED,
    random_state: RandomState = 0,
) -> float:
    """Tell a model's answers on the class from a retrained model's, by the neighbouring classes.

    A class that was pushed away leaves other shares to its neighbours than one that was never
    seen: an attacker who knows how a retrained model answers sees that something was unlearned.

    Parameters
    ----------
    answers, reference : array-like of shape (n, C)
        Probabilities of the model and of a retrained one on the same n samples of the class.
    classes : sequence of int
        The forgotten classes; their probabilities are not looked at.
    neighbours : int
        How many retained classes, the likeliest in the retrained model, are looked at.
    max_samples : int
        At most so many samples are used.
    random_state : int, RandomState, Generator or None
        Of the draw and of the halves.

    Returns
    -------
    float
        Share of answers whose model is told rightly, in [0.5, 1]; compare with what two
        retrained models give, not with 0.5. NaN with fewer than 10 samples.

    Notes
    -----
    A linear discriminant on the log-odds of each neighbour within the retained classes, fitted on
    one half of the samples and read on the other, both ways. The paper's attack "uses the
    probabilities the model assigns to neighboring classes to detect unlearned samples"; its
    classifier could not be read, so this one is ours.

    References
    ----------
    Ebrahimpour-Boroojeny et al., "On the necessity of output distribution reweighting for
    effective class unlearning", arXiv 2506.20893 (MIA-NN).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> same = rng.dirichlet([1, 4, 2], size=200)
    >>> neighbour_attack(same[:100], same[100:], [0]) < 0.65
    True
    >>> neighbour_attack(same[:, [0, 2, 1]], same, [0]) > 0.6
    True
    """
    p, q = as_floats(answers, "answers"), as_floats(reference, "reference")
    if p.ndim != 2 or p.shape != q.shape:
        raise InputError(
            f"answers and reference must be probabilities (n, C) of the same samples, got shapes "
            f"{p.shape} and {q.shape}.",
            code="CL-INPUT-SHAPE",
        )
    kept = np.setdiff1d(np.arange(p.shape[1]), sorted(class_numbers(classes)))
    if len(p) < 10 or len(kept) < 2:
        return float("nan")
    rng = numpy_generator(random_state)
    rows = rng.permutation(len(p))[:max_samples]
    near = kept[np.argsort(-q[:, kept].mean(axis=0))][: min(neighbours, len(kept) - 1)]
    odds = []
    for side in (p, q):
        mass = side[rows][:, kept].clip(1e-6).sum(axis=1, keepdims=True)
        share = (side[rows][:, near].clip(1e-6) / mass).clip(1e-6, 1 - 1e-6)
        odds.append(np.log(share) - np.log1p(-share))
    half = len(rows) // 2
    right = []
    for train, held in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        means = [side[train].mean(axis=0) for side in odds]
        within = np.concatenate([side[train] - m for side, m in zip(odds, means, strict=True)])
        cov = within.T @ within / len(within) + 1e-3 * np.eye(len(near))
        slope = np.linalg.solve(cov, means[0] - means[1])
        offset = slope @ (means[0] + means[1]) / 2
        right += [np.mean(odds[0][held] @ slope > offset), np.mean(odds[1][held] @ slope <= offset)]
    return max(0.5, float(np.mean(right)))


def _checked(p: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values, labels = as_floats(p, "p"), as_floats(y, "y").astype(np.int64)
    if values.ndim != 2 or labels.shape != (len(values),):
        raise InputError(
            f"Expected probabilities (n, C) and labels (n,), got shapes {values.shape} and "
            f"{labels.shape}.",
            code="CL-INPUT-SHAPE",
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= values.shape[1]):
        raise InputError(
            f"Labels must lie in 0..{values.shape[1] - 1}, got {labels.min()}..{labels.max()}.",
            code="CL-INPUT-LABELS",
        )
    return values, labels


def _column(values: ArrayLike, name: str) -> np.ndarray:
    array = as_floats(values, name)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not len(array):
        raise InputError(
            f"{name} must hold one row for each sample, got shape {np.shape(values)}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(array, name)
    return array


def _drawn(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= size else rows[np.sort(rng.permutation(len(rows))[:size])]


def _logistic(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Fit a logistic regression of one column, penalty ½ w² as scikit-learn's, by Newton steps.

    Ten splits of a few samples each cost less here than the checks of one general fit.
    """
    A = np.stack([x, np.ones_like(x)], axis=1)
    penalty = np.array([1.0, 0.0])
    w = np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-(A @ w).clip(-30, 30)))
        gradient = A.T @ (p - y) + penalty * w
        curvature = (A * (p * (1 - p))[:, None]).T @ A + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        w = w - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    return float(w[0]), float(w[1])


def _sides(
    members: ArrayLike, others: ArrayLike, forget: Any, max_samples: int, random_state: RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = _column(members, "members"), _column(others, "others")
    probe = _column(forget, "forget")
    rng = numpy_generator(random_state)
    size = min(len(first), len(second), max_samples)
    X = np.concatenate([_drawn(first, size, rng), _drawn(second, size, rng)])
    return X, np.repeat([1, 0], size), probe


FEATURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "confidence": confidence,
    "entropy": lambda p, y: entropy(p),
    "modified_entropy": modified_entropy,
}
"""What an attack may see of probabilities (n, C) and labels (n,)."""
