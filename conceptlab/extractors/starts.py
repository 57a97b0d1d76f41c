"""Starting points of the factorisations.

References
----------
.. [1] C. Boutsidis and E. Gallopoulos, "SVD based initialization: a head start for
   nonnegative matrix factorization", Pattern Recognition 41, 2008.
.. [2] N. Halko, P.-G. Martinsson and J. Tropp, "Finding structure with randomness", SIAM
   Review 53(2), 2011, algorithms 4.4 and 5.1.
"""

from __future__ import annotations

__all__ = ["nndsvd", "random_start", "randomized_svd"]

import torch

from conceptlab.distributed.world import ALONE, World
from conceptlab.seeds import torch_generator

_OVERSAMPLE = 10
_POWER_STEPS = 4


def randomized_svd(
    A: torch.Tensor, k: int, seed: int, *, world: World = ALONE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the `k` leading singular triplets by subspace iteration.

    Parameters
    ----------
    A : tensor of shape (..., n, p)
        One matrix or a batch of them; each gets the same random start.
    k : int
        Number of triplets, at most min(n, p).
    seed : int
        Seed of the random test matrix, drawn on the CPU so that it is the same on any
        device.
    world : World
        The processes that hold other rows of the one matrix (n, p); each gets its rows of `left`.

    Returns
    -------
    left : tensor of shape (..., n, k)
    values : tensor of shape (..., k)
    right : tensor of shape (..., k, p)
    """
    n, p = A.shape[-2:]
    q = min(k + _OVERSAMPLE, int(world.sum(torch.tensor(n))), p)
    test = torch.randn(p, q, generator=torch_generator(seed), dtype=torch.float64).to(A)
    basis = _orthonormal(A @ test, world)
    for _ in range(_POWER_STEPS):
        basis = torch.linalg.qr(world.sum(basis.mT @ A).mT).Q
        basis = _orthonormal(A @ basis, world)
    small, values, right = torch.linalg.svd(world.sum(basis.mT @ A), full_matrices=False)
    return (basis @ small)[..., :k], values[..., :k], right[..., :k, :]


def _orthonormal(Y: torch.Tensor, world: World) -> torch.Tensor:
    """Give this rank's rows of an orthonormal basis of the columns of Y, whose rows all share."""
    if world.size == 1:
        return torch.linalg.qr(Y).Q
    local, upper = torch.linalg.qr(Y)  # of all ranks' triangles one more is made
    triangles = [triangle.to(Y) for triangle in world.gather(upper.cpu())]
    start = sum(len(triangle) for triangle in triangles[: world.rank])
    return local @ torch.linalg.qr(torch.cat(triangles)).Q[start : start + len(upper)]


def _length(columns: torch.Tensor, world: World) -> torch.Tensor:
    """Measure vectors (..., m, n) along their last axis, of which other ranks hold more."""
    length = torch.linalg.vector_norm(columns, dim=-1, keepdim=True)
    return length if world.size == 1 else world.sum(length.square()).sqrt()


def nndsvd(
    A: torch.Tensor,
    k: int,
    seed: int,
    *,
    fill: torch.Tensor | None = None,
    world: World = ALONE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Start from the larger of the positive and negative parts of the singular vectors.

    Parameters
    ----------
    A : tensor of shape (..., n, p)
        Non-negative.
    k : int
        Number of components.
    seed : int
        Seed of the randomised SVD.
    fill : tensor of shape (...), optional
        Value that replaces zeros (the mean of A: "nndsvda").
    world : World
        As for :func:`randomized_svd`; each process gets its rows of U.

    Returns
    -------
    U : tensor of shape (..., n, k)
    W : tensor of shape (..., k, p)
    """
    left, values, right = randomized_svd(A, k, seed, world=world)
    left, right = left.mT, right  # one component a row
    sides = []
    for sign in (1, -1):
        a, b = (sign * left).clamp(min=0), (sign * right).clamp(min=0)
        length_a = _length(a, world)
        length_b = torch.linalg.vector_norm(b, dim=-1, keepdim=True)
        sides.append((a, b, length_a, length_b))
    (ap, bp, lap, lbp), (an, bn, lan, lbn) = sides
    positive = lap * lbp >= lan * lbn
    a, b = torch.where(positive, ap, an), torch.where(positive, bp, bn)
    length_a, length_b = torch.where(positive, lap, lan), torch.where(positive, lbp, lbn)
    product = length_a * length_b
    tiny = torch.finfo(A.dtype).tiny
    scale = (values[..., None].clamp(min=0) * product).sqrt()
    U = scale * a / length_a.clamp(min=tiny)
    W = scale * b / length_b.clamp(min=tiny)
    if fill is not None:
        # What is below rounding counts as zero, so that noise cannot lock a component.
        floor = torch.finfo(A.dtype).eps * values[..., :1, None].clamp(min=0).sqrt()
        mean = fill[..., None, None].to(A)
        U, W = U.masked_fill(U.le(floor), 0), W.masked_fill(W.le(floor), 0)
        U, W = U + mean * U.eq(0), W + mean * W.eq(0)
    return U.mT.contiguous(), W


def random_start(
    A: torch.Tensor, k: int, seed: int, mean: torch.Tensor, *, world: World = ALONE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw |N(0, 1)| entries scaled so that U W has the mean of A.

    Parameters
    ----------
    A : tensor of shape (..., n, p)
        The data, for shapes and dtype.
    k : int
        Number of components.
    seed : int
        Drawn on the CPU.
    mean : tensor of shape (...)
        Mean entry of each matrix.
    world : World
        As for :func:`randomized_svd`; all rows are drawn, so that each process's are the same
        as if one had them all.

    Returns
    -------
    U : tensor of shape (..., n, k)
    W : tensor of shape (..., k, p)
    """
    n, p = A.shape[-2:]
    generator = torch_generator(seed)
    W = torch.randn(k, p, generator=generator, dtype=torch.float64).abs()
    lengths = world.gather(n)
    U = torch.randn(sum(lengths), k, generator=generator, dtype=torch.float64).abs()
    U = U[sum(lengths[: world.rank]) :][:n]
    scale = (mean.abs() / k).sqrt()[..., None, None].to(A)
    return scale * U.to(A), scale * W.to(A)
