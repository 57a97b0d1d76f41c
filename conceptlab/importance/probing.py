"""Find out by a few evaluations what shape a function of coefficients has.

Masks act on the coefficients, so what counts is how the output depends on the
mask. Three shapes allow for shortcuts:

- *linear in the pooled coefficients*: fn(U) = b + mean over positions(U) M.
  One probe of k + 1 evaluations serves all images; the indices are exact.
- *pooled*: fn depends on the mean over positions only (global average pooling
  before anything that is not linear). The pooled coefficients are masked.
- *linear*: for each image the output is affine in its mask. k + 1 evaluations
  an image; the indices are exact.

Each is accepted only when it predicts the outputs of real images under full
and under random masks.
"""

from __future__ import annotations

__all__ = ["affine_in_mean", "affine_per_image", "depends_on_mean"]

from dataclasses import dataclass

import torch

from conceptlab.importance.evaluate import Evaluator

# Deviations up to this share of the outputs' spread count as none; an index
# then changes by less than twice as much.
_TOLERANCE = 1e-4
_N_CHECKED = 16


@dataclass(frozen=True, eq=False)
class AffineInMean:
    """fn(U) = b + mean over positions(U) M, with b (n_outputs,) and M (k, n_outputs)."""

    b: torch.Tensor
    M: torch.Tensor

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """Predict the outputs of pooled coefficients (n, k)."""
        return self.b + pooled.to("cpu", torch.float64) @ self.M


def pool(U: torch.Tensor) -> torch.Tensor:
    """Average over positions: (n, *positions, k) -> (n, k)."""
    return U.flatten(1, -2).mean(1) if U.ndim > 2 else U


def affine_in_mean(
    evaluate: Evaluator, U: torch.Tensor, generator: torch.Generator
) -> AffineInMean | None:
    """Test whether fn is affine in the mean coefficients over positions.

    Returns
    -------
    AffineInMean or None
        None when fn is not, or cannot be told to be.
    """
    k = U.shape[-1]
    scale = pool(U).abs().mean(0)
    scale = torch.where(scale > 0, scale, scale.mean() if bool(scale.any()) else 1.0)
    corners = torch.zeros(k + 1, k, dtype=U.dtype, device=U.device)
    corners[1:] = torch.diag(scale)
    shape = (k + 1, *(1,) * (U.ndim - 2), k)
    values = evaluate(corners.reshape(shape).expand(k + 1, *U.shape[1:]))
    slopes = (values[1:] - values[0]) / scale.to("cpu", torch.float64)[:, None]
    found = AffineInMean(values[0], slopes)
    tests = _tests(U, generator)
    outputs = evaluate(tests)
    return found if _agree(found(pool(tests)), outputs, values[0], evaluate.precision) else None


def depends_on_mean(
    evaluate: Evaluator, U: torch.Tensor, generator: torch.Generator
) -> torch.Tensor | None:
    """Test whether fn depends on the mean over positions only.

    Returns
    -------
    torch.Tensor of shape (n, *positions', k), or None
        Coefficients that give the same outputs and cost less to mask: one
        position where fn takes that, else the mean expanded (a view) over all.
    """
    if U.ndim == 2 or U[0, ..., 0].numel() == 1:
        return None
    tests = _tests(U, generator)
    outputs = evaluate(tests)
    reference = evaluate(torch.zeros_like(tests[:1]))[0]
    single = (1,) * (U.ndim - 2)
    for positions in (single, tuple(U.shape[1:-1])):
        if positions != single and not getattr(evaluate.fn, "expands", False):
            return None  # a function that does not know of expanded views gains nothing

        def spread(x: torch.Tensor, positions: tuple[int, ...] = positions) -> torch.Tensor:
            means = pool(x).reshape(len(x), *single, x.shape[-1])
            return means.expand(len(x), *positions, x.shape[-1])

        try:
            pooled = evaluate(spread(tests))
        except Exception:  # noqa: S112 - a head may refuse one position in any way it likes
            continue
        if pooled.shape == outputs.shape and _agree(pooled, outputs, reference, evaluate.precision):
            return spread(U)
    return None


def affine_per_image(
    evaluate: Evaluator, U: torch.Tensor, target: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Test for each image whether its output is affine in the mask.

    Returns
    -------
    tuple of torch.Tensor, or None
        The slopes c (n, k) and the rounding error of the outputs (n,), float64;
        None as soon as an image is not affine.
    """
    n, k = len(U), U.shape[-1]
    slopes, floor = torch.empty(n, k, dtype=torch.float64), torch.empty(n, dtype=torch.float64)
    corners = torch.cat([torch.zeros(1, k), torch.eye(k), torch.ones(1, k)]).to(U)
    for i in range(n):
        # The random masks of the first images find the functions that bend.
        extra = torch.rand(8 if i < 4 else 2, k, generator=generator, dtype=torch.float64).to(U)
        masks = torch.cat([corners, extra])
        values = evaluate.masked(U[i], masks)[:, int(target[i])]
        slopes[i] = values[1 : k + 1] - values[0]
        checked = masks[k + 1 :].to("cpu", torch.float64)
        predicted = values[0] + checked @ slopes[i]
        size = float(slopes[i].square().sum().sqrt())
        floor[i] = rounding = 32 * evaluate.precision * float(values.abs().max())
        if float((predicted - values[k + 1 :]).abs().max()) > _TOLERANCE * size + rounding:
            return None
    return slopes, floor


def _tests(U: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Take some images as they are, and once more under random masks."""
    n = len(U)
    chosen = U[torch.linspace(0, n - 1, min(n, _N_CHECKED)).round().long().to(U.device)]
    masks = torch.rand(max(4, len(chosen)), U.shape[-1], generator=generator, dtype=torch.float64)
    repeated = chosen[torch.arange(len(masks), device=U.device) % len(chosen)]
    masked = repeated * masks.to(U).reshape(len(masks), *(1,) * (U.ndim - 2), -1)
    return torch.cat([chosen, masked])


def _agree(
    predicted: torch.Tensor, outputs: torch.Tensor, zero: torch.Tensor, precision: float
) -> bool:
    """Compare with the distance of outputs from fn(0), output by output."""
    spread = (outputs - zero).square().mean(0).sqrt()
    rounding = 32 * precision * torch.maximum(outputs.abs().amax(0), zero.abs())
    return bool(((predicted - outputs).abs().amax(0) <= _TOLERANCE * spread + rounding).all())
