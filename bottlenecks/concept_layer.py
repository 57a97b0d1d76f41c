"""The layer from features to concepts: alone, together with the head, and its calibration."""

from __future__ import annotations

__all__ = ["ConceptLayer", "fit_concepts", "fit_jointly", "platt"]

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize, root
from scipy.special import expit

from bottlenecks.concept_labels import ConceptLabels
from bottlenecks.heads.dense import as_logits, as_outputs, dense_head, solve_ridge
from bottlenecks.heads.losses import LOSSES
from bottlenecks.targets import Target

_FEW = 10  # labels (their weights) below which nothing is calibrated


class ConceptLayer(NamedTuple):
    """Logits z = features Vᵀ + v of k concepts.

    Attributes
    ----------
    V : ndarray of shape (k, d)
        On features as given.
    v : ndarray of shape (k,)
    free : ndarray of shape (k, d), bool
        Weights that may differ from zero.
    """

    V: np.ndarray
    v: np.ndarray
    free: np.ndarray


def _standard(features: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and standard deviation of columns; 1 where there is none."""
    mean = share @ features / share.sum()
    scale = np.sqrt(share @ (features - mean) ** 2 / share.sum())
    return mean, np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)


def fit_concepts(
    features: np.ndarray,
    labels: ConceptLabels,
    share: np.ndarray,
    single: bool,
    max_iter: int,
) -> tuple[ConceptLayer, int]:
    """Fit a logistic regression for each concept on the rows where its label is known.

    Parameters
    ----------
    features : ndarray of shape (n, d), float64
    labels : ConceptLabels
    share : ndarray of shape (n,)
        Weights of rows, above 0.
    single : bool
        Whether concept j sees column j alone.
    max_iter : int

    Returns
    -------
    ConceptLayer
        The ridge is 1 over the weights of the labelled rows, on columns that all rows
        standardise.
    int
        Most steps of a concept.
    """
    d, k = features.shape[1], labels.values.shape[1]
    mean, scale = _standard(features, share)
    Z = (features - mean) / scale
    free = np.eye(k, dtype=bool) if single else np.ones((k, d), dtype=bool)
    V, v, most = np.zeros((k, d)), np.zeros(k), 1
    for j in range(k):
        seen = labels.known[:, j]
        weight = share[seen]
        target = labels.values[seen, j : j + 1]
        W, b, steps = solve_ridge(
            Z[seen][:, free[j]],
            target,
            LOSSES["labels"],
            weight / weight.sum(),
            1 / weight.sum(),
            1,
            max_iter,
        )
        V[j, free[j]], v[j], most = W[0], b[0], max(most, steps)
    V = V / scale
    return ConceptLayer(V, v - V @ mean, free), most


def fit_jointly(
    layer: ConceptLayer,
    features: np.ndarray,
    labels: ConceptLabels,
    target: Target,
    share: np.ndarray,
    concept_weight: float,
    max_iter: int,
) -> tuple[ConceptLayer, np.ndarray, np.ndarray, float, int]:
    """Minimise loss of the classes + λ (loss of the concepts), both with their ridges.

    From concepts fitted alone and the head that is best on them, by L-BFGS.

    Returns
    -------
    layer : ConceptLayer
    coef : ndarray of shape (K, k)
    intercept : ndarray of shape (K,)
    objective : float
    steps : int
    """
    mean, scale = _standard(features, share)
    Z = (features - mean) / scale
    (k, d), n_outputs = layer.V.shape, len(target.names)
    loss, T, K = as_logits(target.kind, target.values, n_outputs)
    goal = torch.from_numpy(np.asarray(T))
    total = share.sum()
    labelled = labels.known * share[:, None]
    labelled_sum = labelled.sum(axis=0)
    each, ridge, l2 = labelled / labelled_sum, 1 / labelled_sum, 1 / total
    rows = share / total
    free, count = layer.free, int(layer.free.sum())

    def unpack(flat: np.ndarray) -> tuple[np.ndarray, ...]:
        V = np.zeros((k, d))
        V[free] = flat[:count]
        W = flat[count + k : count + k + K * k].reshape(K, k)
        return V, flat[count : count + k], W, flat[count + k + K * k :]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        V, v, W, b = unpack(flat)
        z = Z @ V.T + v
        p = expit(z)
        by_row, P = loss.value_and_mean(torch.from_numpy(p @ W.T + b), goal)
        slope = loss.residual(P, goal).numpy() * rows[:, None]
        concept = (each * (np.logaddexp(0, z) - labels.values * z)).sum()
        concept += 0.5 * float(ridge @ (V**2).sum(axis=1))
        value = float(rows @ by_row.numpy()) + 0.5 * l2 * float((W**2).sum())
        dz = (slope @ W) * p * (1 - p) + concept_weight * each * (p - labels.values)
        dV = dz.T @ Z + concept_weight * ridge[:, None] * V
        parts = (dV[free], dz.sum(axis=0), (slope.T @ p + l2 * W).ravel(), slope.sum(axis=0))
        return value + concept_weight * concept, np.concatenate(parts)

    V, v = layer.V * scale, layer.v + layer.V @ mean
    W, b = dense_head(
        expit(Z @ V.T + v), target.kind, target.values, n_outputs, share, standardize=False
    )
    if n_outputs > K:
        W, b = W[1:], b[1:]
    found = minimize(
        objective,
        np.concatenate([V[free], v, W.ravel(), b]),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter,
            "ftol": 0.0,
            "gtol": 1e-9 * max(1.0, concept_weight),
            "maxcor": 20,
        },
    )
    # Differences of losses end at their rounding; the gradient itself goes on to zero.
    last = root(
        lambda flat: objective(flat)[1],
        found.x,
        method="krylov",
        options={"fatol": 1e-12 * max(1.0, concept_weight), "maxiter": 20},
    ).x
    value, slope = objective(last)
    lower = value <= found.fun + 1e-9 * abs(found.fun)
    better = lower and np.abs(slope).max() < np.abs(found.jac).max()
    V, v, W, b = unpack(last if better else found.x)
    V = V / scale
    layer = ConceptLayer(V, v - V @ mean, free)
    return layer, *as_outputs(W, b, n_outputs), float(found.fun), max(1, int(found.nit))


def platt(z: np.ndarray, labels: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Give slope (at least 0) and shift of logits, by maximum likelihood on smoothed labels.

    Parameters
    ----------
    z, labels, share : ndarray of shape (m,)
        Logits of rows that no fit has seen, their labels 0 and 1, what rows count.

    Returns
    -------
    slope, shift : float
        (1, 0) for fewer than 10 rows, or labels of one kind.

    References
    ----------
    Platt, Probabilistic outputs for support vector machines, 1999 (labels of (m + 1) / (m + 2)
    for m present ones, and 1 / (m + 2) for m absent ones).
    """
    positive = labels > 0
    if share.sum() < _FEW or positive.all() or not positive.any():
        return 1.0, 0.0
    on, off = share[positive].sum(), share[~positive].sum()
    goal = np.where(positive, (on + 1) / (on + 2), 1 / (off + 2))
    rows = share / share.sum()

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        logits = at[0] * z + at[1]
        slope = rows * (expit(logits) - goal)
        value = float(rows @ (np.logaddexp(0, logits) - goal * logits))
        return value, np.array([slope @ z, slope.sum()])

    found = minimize(
        objective,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None), (None, None)],
        options={"gtol": 1e-9, "ftol": 0.0},
    )
    return float(found.x[0]), float(found.x[1])
