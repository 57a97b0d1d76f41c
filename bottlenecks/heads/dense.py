"""A linear head with all weights: ridge, solved by L-BFGS in float64."""

from __future__ import annotations

__all__ = ["as_logits", "as_outputs", "dense_head", "solve_ridge"]

import numpy as np
import torch
from scipy.optimize import minimize

from bottlenecks.heads.losses import LOSSES, Loss


def dense_head(
    A: np.ndarray,
    kind: str,
    y: np.ndarray,
    n_outputs: int,
    weight: np.ndarray | None = None,
    *,
    l2: float | None = None,
    standardize: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the mean loss + ½ l2 |W|² over weights and intercepts.

    Parameters
    ----------
    A : ndarray of shape (n, k), float64
    kind : {"classes", "labels", "values"}
    y : ndarray
        Columns of classes (n,); else (n, K).
    n_outputs : int
        K.
    weight : ndarray of shape (n,), optional
        Above 0; a row of weight 2 is two rows.
    l2 : float, optional
        1 over the sum of the weights by default: scikit-learn's ``C=1``.
    standardize : bool
        Whether the penalty is on columns of standard deviation 1.

    Returns
    -------
    coef : ndarray of shape (K, k)
        On the columns as given. Two classes are one logit, in the second row.
    intercept : ndarray of shape (K,)
    """
    share = np.ones(len(A)) if weight is None else weight
    total = float(share.sum())
    mean, scale = np.zeros(A.shape[1]), np.ones(A.shape[1])
    if standardize:
        mean = share @ A / total
        scale = np.sqrt(share @ (A - mean) ** 2 / total)
        scale = np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)
    loss, T, rows = as_logits(kind, y, n_outputs)
    W, b, _ = solve_ridge(
        (A - mean) / scale, T, loss, share / total, 1 / total if l2 is None else l2, rows
    )
    W = W / scale
    return as_outputs(W, b - W @ mean, n_outputs)


def as_logits(kind: str, y: np.ndarray, n_outputs: int) -> tuple[Loss, np.ndarray, int]:
    """Give loss, targets and number of logits; two classes are one logit."""
    if kind == "classes" and n_outputs == 2:
        return LOSSES["labels"], np.asarray(y, dtype=np.float64)[:, None], 1
    return LOSSES[kind], y, n_outputs


def as_outputs(W: np.ndarray, b: np.ndarray, n_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Undo :func:`as_logits`: put the one logit of two classes in the second row."""
    if len(b) == n_outputs:
        return W, b
    coef, intercept = np.zeros((2, W.shape[1])), np.zeros(2)
    coef[1], intercept[1] = W[0], b[0]
    return coef, intercept


def solve_ridge(
    Z: np.ndarray,
    target: np.ndarray,
    loss: Loss,
    share: np.ndarray,
    l2: float,
    n_outputs: int,
    max_iter: int = 1000,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Minimise Σ share_i loss_i(Z W ᵀ + b) + ½ l2 |W|²; shares sum to one."""
    k, K = Z.shape[1], n_outputs
    T = torch.from_numpy(np.asarray(target))
    unit = max(1.0, float(np.abs(target).max())) if target.dtype.kind == "f" else 1.0

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = flat[: K * k].reshape(K, k), flat[K * k :]
        each, P = loss.value_and_mean(torch.from_numpy(Z @ W.T + b), T)
        slope = loss.residual(P, T).numpy() * share[:, None]
        value = float(share @ each.numpy()) + 0.5 * l2 * float((W * W).sum())
        return value, np.concatenate([(slope.T @ Z + l2 * W).ravel(), slope.sum(axis=0)])

    found = minimize(
        objective,
        np.zeros(K * k + K),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter,
            "ftol": 0.0,
            "gtol": 1e-9 * unit,
            "maxcor": 20,
        },
    )
    return found.x[: K * k].reshape(K, k), found.x[K * k :], max(1, int(found.nit))
