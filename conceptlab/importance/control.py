"""A linear control variate for Sobol indices: estimate only what bends.

Heads are close to linear in the masks, and the indices of a linear function are
known: with y = b + sum of β_i m_i + r(m) and β the least squares slopes, the
linear part and r are uncorrelated, and so are their parts that belong to one
mask. For masks that are independent and uniform on [0, 1] then

    V = sum of β_i² / 12 + V(r),   V_i = β_i² / 12 + V_i(r),   the same for V_Ti,

so an estimator is needed for r alone. Its noise shrinks with r: for a linear
function nothing is left of it. (Control variates are standard in Monte Carlo;
see Owen, *Monte Carlo theory, methods and examples*, 2013, section 8.9.)
"""

from __future__ import annotations

__all__ = ["Indices", "estimate", "slopes"]

from dataclasses import dataclass

import torch

from conceptlab.importance.estimators import COMPANIONS, Moments, first_order, total_order


@dataclass(frozen=True, eq=False)
class Indices:
    """Total and first-order indices (..., q, k) and the variance (..., q)."""

    total: torch.Tensor
    first: torch.Tensor
    variance: torch.Tensor


def slopes(a: torch.Tensor, c: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Fit the slope of the output in each mask from the pairs A -> C_i.

    One mask moves alone in such a pair, so that the others add no noise to an
    additive function. E[(y' - y)(m' - m)] / E[(m' - m)²] = Cov(y, m) / Var(m).

    Parameters
    ----------
    a : torch.Tensor of shape (n_design, q)
        Outputs at A.
    c : torch.Tensor of shape (n_design, q, k)
        Outputs at the mixtures.
    steps : torch.Tensor of shape (n_design, q, k)
        B - A, column by column.

    Returns
    -------
    torch.Tensor of shape (q, k)
    """
    squares = steps.square().sum(0)
    products = ((c - a[..., None]) * steps).sum(0)
    return torch.where(squares > 0, products / squares, 0.0)


def estimate(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    *,
    A: torch.Tensor,
    steps: torch.Tensor,
    beta: torch.Tensor | None,
    estimator: str,
    precision: float,
    weights: torch.Tensor | None = None,
) -> Indices:
    """Estimate indices from the outputs of a design, with or without the control.

    Parameters
    ----------
    a, b : torch.Tensor of shape (n_design, q), float64
        Outputs at A and B.
    c : torch.Tensor of shape (n_design, q, k), float64
        Outputs at the mixtures.
    A, steps : torch.Tensor of shape (n_design, q, k)
        Masks A and B - A with the columns in each image's order of concepts.
    beta : torch.Tensor of shape (q, k), or None
        Slopes of the control; None does without.
    estimator : str
        For the total order; the first order takes its companion.
    precision : float
        Relative rounding error of the outputs.
    weights : torch.Tensor of shape (r, n_design), optional
        Resamples of the rows. They move the slopes too.

    Returns
    -------
    Indices
        Zero where the output is constant.
    """
    floor = Moments.rounding(a, b, c, precision)
    if beta is not None:
        along = (A * beta).sum(-1)
        a, b = a - along, b - along - (steps * beta).sum(-1)
        c = c - along[..., None] - steps * beta
    moments = Moments.of(a, b, c, weights=weights, floor=floor)
    total = total_order(moments, estimator)
    first = first_order(moments, COMPANIONS[estimator])
    variance = moments.variance
    if beta is None:
        return Indices(total, first, torch.where(variance > floor, variance, 0.0))
    if weights is not None:
        # The slope of the residuals is zero over all rows, not over a resample.
        w = weights.to(a)
        numerator = w @ ((c - a[..., None]) * steps).flatten(1)
        denominator = w @ steps.square().flatten(1)
        moved = torch.where(denominator > 0, numerator / denominator, 0.0)
        beta = beta + moved.unflatten(1, beta.shape)
    linear = beta.square() / 12
    whole = variance + linear.sum(-1)
    alive = whole > floor
    share = torch.where(alive, 1 / whole, 0.0)[..., None]
    rest = variance[..., None]
    return Indices(
        (linear + rest * total) * share,
        (linear + rest * first) * share,
        torch.where(alive, whole, 0.0),
    )
