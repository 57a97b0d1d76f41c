"""The objective of the head, its gradient, and the certificate of an optimum."""

from __future__ import annotations

__all__ = [
    "Gradient",
    "gradient_at",
    "kkt_residual",
    "lambda_max",
    "number_of_effective_concepts",
    "penalty",
    "soft_threshold",
    "start_intercept",
]

from typing import NamedTuple

import numpy as np
import torch

from bottlenecks.heads.data import HeadData
from conceptlab.arrays import ArrayLike, as_floats, check_finite


def number_of_effective_concepts(coef: ArrayLike) -> float:
    """Count the non-zero weights per class (NEC).

    Parameters
    ----------
    coef : array-like of shape (K, M)
        Weights of a head.

    Returns
    -------
    float
        Mean over the classes of the number of weights that are not zero.

    References
    ----------
    Srivastava, Yan and Weng, VLG-CBM: Training Concept Bottleneck Models with
    Vision-Language Guidance, NeurIPS 2024 (NEC).

    Examples
    --------
    >>> number_of_effective_concepts([[0.5, 0.0, 0.0], [1.0, -1.0, 0.0]])
    1.5
    """
    matrix = np.atleast_2d(as_floats(coef, "coef"))
    check_finite(matrix, "coef")
    return float(np.count_nonzero(matrix) / matrix.shape[0])


class Gradient(NamedTuple):
    """Mean loss and its gradient.

    Attributes
    ----------
    loss : float
        Weighted mean over the rows.
    W : Tensor of shape (K, M)
    b : Tensor of shape (K,)
        Zero without an intercept.
    """

    loss: float
    W: torch.Tensor
    b: torch.Tensor


def gradient_at(
    data: HeadData,
    W: torch.Tensor,
    b: torch.Tensor,
    *,
    fit_intercept: bool = True,
    dtype: torch.dtype | None = None,
) -> Gradient:
    """Compute loss and gradient at (W, b) in two products."""
    gW = torch.zeros_like(W)
    gb = torch.zeros_like(b)
    loss = torch.zeros((), dtype=torch.float64, device=W.device)
    for rows in data.slices():
        z = data.logits(rows, W, b, dtype)
        each, mean = data.loss.value_and_mean(z, data.target[rows])
        loss += data.weigh(each, rows).sum(dtype=torch.float64)
        residual = data.residual(mean, rows)
        gW += data.pull_back(rows, residual, dtype)
        gb += residual.sum(0)
    if not fit_intercept:
        gb.zero_()
    return Gradient(float(loss) / data.n, gW.div_(data.n), gb.div_(data.n))


def start_intercept(data: HeadData, fit_intercept: bool) -> torch.Tensor:
    """Give the intercept that is optimal where all weights are zero."""
    if not fit_intercept:
        return torch.zeros(data.K, dtype=data.sum_dtype, device=data.device)
    return data.loss.start(data.target_mean).to(data.sum_dtype)


def lambda_max(data: HeadData, alpha: float, fit_intercept: bool) -> float:
    """Give the least lam for which all weights are zero: max |gradient at W = 0| / alpha.

    Where weights are positive, only gradients below 0 draw one away from zero.
    """
    total = torch.zeros((data.K, data.M), dtype=torch.float64, device=data.device)
    start = start_intercept(data, fit_intercept).double()
    prior = data.loss.mean(start[None, :]).to(data.sum_dtype)
    for rows in data.slices():
        residual = data.residual(prior.expand(rows.stop - rows.start, -1), rows)
        total += data.pull_back(rows, residual)
    pull = (-total).clamp_(min=0) if data.positive else total.abs()
    return float(pull.max()) / data.n / alpha


def penalty(W: torch.Tensor, lam: float, alpha: float) -> float:
    """Compute lam (alpha |W|₁ + ½ (1 - alpha) |W|²) in float64."""
    wide = W.double()
    return float(lam * (alpha * wide.abs().sum() + 0.5 * (1 - alpha) * wide.square().sum()))


def soft_threshold(W: torch.Tensor, by: float, *, positive: bool = False) -> torch.Tensor:
    """Shrink towards zero, in place; negative weights to zero where `positive`."""
    return W.sub_(by).clamp_(min=0) if positive else W.sub_(W.clamp(-by, by))


def kkt_residual(
    W: torch.Tensor,
    gradient: Gradient,
    lam: float,
    alpha: float,
    *,
    positive: bool = False,
    unit: float = 1.0,
) -> float:
    """Give the largest violation of the optimality conditions, relative to lam * alpha.

    With g the gradient of the smooth part, an optimum has g = -lam alpha sign(w)
    where w is not zero, |g| <= lam alpha where it is, and 0 for the intercepts;
    g >= -lam alpha at zero is enough where weights are `positive`. Where lam is
    0, the value is in `unit`.
    """
    l1 = lam * alpha
    g = gradient.W + lam * (1 - alpha) * W
    pull = -g if positive else g.abs()
    off = torch.where(W == 0, (pull - l1).clamp_(min=0), (g + l1 * W.sign()).abs())
    worst = max(float(off.max()), float(gradient.b.abs().max()))
    return worst / (l1 if l1 > 0 else unit)
