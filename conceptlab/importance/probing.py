"""Find out by a few evaluations what shape a function of coefficients has.

Masks act on the coefficients, so what counts is how the output depends on the
mask. Three shapes allow for shortcuts:

- *linear in the pooled coefficients*: fn(U) = b + mean over positions(U) M.
  One probe of k + 1 evaluations serves all images; the indices are exact.
- *pooled*: fn depends on the mean over positions only (global average pooling
  before anything that is not linear). The pooled coefficients are masked.
- *linear*: for each image the output is affine in its mask. k + 1 evaluations
  an image; the indices are exact.

Each is accepted only when it predicts the outputs of all images as they are, and
of some under random masks.
"""

from __future__ import annotations

__all__ = ["affine_in_mean", "affine_per_image", "depends_on_mean"]

from dataclasses import dataclass
from typing import Any

import torch

from conceptlab.importance.evaluate import Evaluator

# Deviations up to this share of the outputs' spread count as none; an index
# then changes by less than twice as much.
_TOLERANCE = 1e-4
_N_CHECKED = 16


@dataclass(frozen=True, eq=False)
class AffineInMean:
    """fn(U) = b + mean over positions(U) M, with b (n_outputs,) and M (k, n_outputs).

    Where the rest is kept, an image's is worth `rest` (n, n_outputs), and b is fn of nothing.
    """

    b: torch.Tensor
    M: torch.Tensor
    rest: torch.Tensor | None = None

    def __call__(
        self, pooled: torch.Tensor, share: torch.Tensor | None = None, image: Any = None
    ) -> torch.Tensor:
        """Predict the outputs of pooled coefficients (n, k), with a share of an image's rest."""
        found = self.b + pooled.to("cpu", torch.float64) @ self.M
        if self.rest is None or share is None:
            return found
        return found + share[:, None] * self.rest[image]


def pool(U: torch.Tensor) -> torch.Tensor:
    """Average over positions: (n, *positions, k) -> (n, k)."""
    return U.flatten(1, -2).mean(1) if U.ndim > 2 else U


def affine_in_mean(
    evaluate: Evaluator,
    U: torch.Tensor,
    full: torch.Tensor,
    generator: torch.Generator,
    rest: torch.Tensor | None = None,
) -> AffineInMean | None:
    """Test whether fn is affine in the mean coefficients over positions.

    Parameters
    ----------
    evaluate : Evaluator
        fn.
    U : torch.Tensor of shape (n, *positions, k)
        Coefficients of all images.
    full : torch.Tensor of shape (n, n_outputs)
        fn(U).
    generator : torch.Generator
        Draws the masks of the test.
    rest : torch.Tensor of shape (n, *positions, p), optional
        What the concepts do not code, where it is kept.

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
    if rest is None:
        found = AffineInMean(values[0], slopes)
        masked, _ = _masked(U, generator)
        for coefficients, outputs in ((masked, evaluate(masked)), (U, full)):
            if not _agree(found(pool(coefficients)), outputs, values[0], evaluate.precision):
                return None
        return found
    zero = evaluate(torch.zeros_like(U[:1]), torch.zeros_like(rest[:1]))[0]
    masked, image = _masked(U, generator)
    share = torch.rand(len(masked), generator=generator, dtype=torch.float64)
    left = rest[image] * share.to(rest).reshape(-1, *(1,) * (rest.ndim - 1))
    # What the rest is worth follows from the outputs as they are where fn is affine.
    worth = full - zero - pool(U).to("cpu", torch.float64) @ slopes
    found = AffineInMean(zero, slopes, worth)
    outputs = evaluate(masked, left)
    if not _agree(found(pool(masked), share, image), outputs, zero, evaluate.precision):
        return None
    base = evaluate(torch.zeros_like(U), rest)  # and so it must for every image
    return found if _agree(zero + worth, base, zero, evaluate.precision) else None


def depends_on_mean(
    evaluate: Evaluator,
    U: torch.Tensor,
    full: torch.Tensor,
    generator: torch.Generator,
    rest: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Test whether fn depends on the mean over positions only.

    Parameters
    ----------
    evaluate, U, full, generator, rest
        As for :func:`affine_in_mean`.

    Returns
    -------
    tuple of torch.Tensor of shape (n, *positions', k) and (n, *positions', p), or None
        Coefficients, and the rest where there is one, that give the same outputs and cost
        less to mask: one position where fn takes that, else the mean expanded (a view) over
        all.
    """
    single = (1,) * (U.ndim - 2)
    if U.ndim == 2 or U.shape[1:-1] == single:
        return None
    masked, image = _masked(U, generator)
    left = None if rest is None else rest[image]
    outputs = evaluate(masked, left)
    nothing = None if left is None else torch.zeros_like(left[:1])
    zero = evaluate(torch.zeros_like(masked[:1]), nothing)[0]
    for positions in (single, tuple(U.shape[1:-1])):
        if positions != single and not getattr(evaluate.fn, "expands", False):
            return None  # a function that does not know of expanded views gains nothing

        def means(part: torch.Tensor, to: tuple[int, ...] = positions) -> torch.Tensor:
            return _spread(part, to)

        try:
            found = evaluate(means(masked), None if left is None else means(left))
        except Exception:  # noqa: S112 - a head may refuse one position in any way it likes
            continue
        if found.shape != outputs.shape or not _agree(found, outputs, zero, evaluate.precision):
            continue
        pooled = means(U), None if rest is None else means(rest)
        if _agree(evaluate(*pooled), full, zero, evaluate.precision):
            return pooled
    return None


def affine_per_image(
    evaluate: Evaluator,
    U: torch.Tensor,
    target: torch.Tensor,
    generator: torch.Generator,
    rest: torch.Tensor | None = None,
    player: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Test for each image whether its output is affine in the mask.

    A `rest` is held, or masked as one more concept where it is a `player`.

    Returns
    -------
    tuple of torch.Tensor, or None
        The slopes c (n, k) and the rounding error of the outputs (n,), float64;
        None as soon as an image is not affine.
    """
    n, k = len(U), U.shape[-1] + player
    slopes, floor = torch.empty(n, k, dtype=torch.float64), torch.empty(n, dtype=torch.float64)
    corners = torch.cat([torch.zeros(1, k), torch.eye(k), torch.ones(1, k)]).to(U)
    for i in range(n):
        # The random masks of the first images find the functions that bend.
        extra = torch.rand(8 if i < 4 else 2, k, generator=generator, dtype=torch.float64).to(U)
        masks = torch.cat([corners, extra])
        left = None if rest is None else rest[i]
        values = evaluate.masked(U[i], masks, int(target[i]), left, image=i)
        slopes[i] = values[1 : k + 1] - values[0]
        checked = masks[k + 1 :].to("cpu", torch.float64)
        predicted = values[0] + checked @ slopes[i]
        size = float(slopes[i].square().sum().sqrt())
        floor[i] = rounding = 32 * evaluate.precision * float(values.abs().max())
        if float((predicted - values[k + 1 :]).abs().max()) > _TOLERANCE * size + rounding:
            return None
    return slopes, floor


def _spread(U: torch.Tensor, positions: tuple[int, ...]) -> torch.Tensor:
    """Put the means over positions on other positions, as an expanded view."""
    means = pool(U).reshape(len(U), *(1,) * len(positions), U.shape[-1])
    return means.expand(len(U), *positions, U.shape[-1])


def _masked(U: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Put some images under random masks, few images several times; tell which they are."""
    n = len(U)
    chosen = torch.linspace(0, n - 1, min(n, _N_CHECKED)).round().long()
    masks = torch.rand(max(4, len(chosen)), U.shape[-1], generator=generator, dtype=torch.float64)
    image = chosen[torch.arange(len(masks)) % len(chosen)]
    return U[image.to(U.device)] * masks.to(U).reshape(len(masks), *(1,) * (U.ndim - 2), -1), image


def _agree(
    predicted: torch.Tensor, outputs: torch.Tensor, zero: torch.Tensor, precision: float
) -> bool:
    """Compare with the distance of outputs from fn(0), output by output."""
    spread = (outputs - zero).square().mean(0).sqrt()
    rounding = 32 * precision * torch.maximum(outputs.abs().amax(0), zero.abs())
    return bool(((predicted - outputs).abs().amax(0) <= _TOLERANCE * spread + rounding).all())
