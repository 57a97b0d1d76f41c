"""Kernel distances between two sets of features: KID and CMMD.

Both are squared maximum mean discrepancies. All pairs are used, block by block, in
float64; no random subsets are drawn.
"""

from __future__ import annotations

__all__ = ["cmmd", "kid", "kernel_sums", "mmd_of_sums"]

from collections.abc import Callable
from typing import Any

import torch

from unlearning.distances.features import feature_pair
from unlearning.distances.rows import check_pair

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
_BLOCK = 1024


def kid(X: Any, Y: Any, *, device: str | torch.device = "auto") -> float:
    """Compute the kernel distance of two sets of features (KID).

    Parameters
    ----------
    X, Y : array-like of shape (n, d), or Features
        Features of each set.
    device : str or torch.device
        Where to compute; a tensor's own device by default.

    Returns
    -------
    float
        Unbiased at any number of rows, so 0 on average for one law, and sometimes
        below 0.

    Raises
    ------
    InputError
        As :func:`frechet_distance`.

    Notes
    -----
    Bińkowski et al. 2018: MMD² with k(x, y) = (x·y / d + 1)³. Peers average it over
    random subsets of 1000; the U-statistic over all pairs is what that average tends
    to, without its noise.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(400, 8))
    >>> abs(kid(X[:200], X[200:])) < 0.1 < kid(X[:200], X[200:] + 1)
    True
    """
    first, second = feature_pair(X, Y, device=device)
    return _mmd(first.rows, second.rows, cubic, unbiased=True)


def cmmd(X: Any, Y: Any, *, unbiased: bool = False, device: str | torch.device = "auto") -> float:
    """Compute the MMD of unit-length embeddings with a wide Gaussian kernel (CMMD).

    Parameters
    ----------
    X, Y : array-like of shape (n, d), or Features
        Embeddings; rows are scaled to length one.
    unbiased : bool
        False gives the V-statistic of the reference, which is above 0 for one law by
        about 10 (tr Cx / n + tr Cy / m); True the U-statistic, 0 on average.
    device : str or torch.device
        Where to compute; a tensor's own device by default.

    Returns
    -------
    float
        Times 1000, as published.

    Raises
    ------
    InputError
        As :func:`frechet_distance`, or a row of length zero (``CL-INPUT-ZERO``).

    Notes
    -----
    Jayasumana et al. 2024: k(x, y) = exp(-|x - y|² / (2 · 10²)). On the unit sphere
    |x - y|² is at most 4, so that CMMD is 10 |mx - my|² within one per cent: it sees
    the mean and hardly anything else. 1 - k is computed by ``expm1``; single precision
    would lose the fourth digit of the score.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 8))
    >>> abs(cmmd(X, X)) < 1e-9
    True
    """
    first, second = feature_pair(X, Y, device=device)
    return CMMD_SCALE * _mmd(first.unit, second.unit, wide, unbiased=unbiased)


def cubic(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Evaluate KID's kernel, (x·y / d + 1)³, minus one, which leaves the distance as it is.

    Of small features it is all that counts, and beside the one it would be rounded away.
    """
    t = X @ Y.T / X.shape[1]
    return t * (3 + t * (3 + t))


def wide(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Evaluate CMMD's kernel minus one, which leaves the distance as it is."""
    squares = (2 - 2 * (X @ Y.T)).clamp_min(0)  # of unit rows
    return torch.expm1(-squares / (2 * CMMD_SIGMA**2))


def _mmd(X: torch.Tensor, Y: torch.Tensor, kernel: Kernel, *, unbiased: bool) -> float:
    check_pair(X, Y)
    ones = X.new_ones(len(X), 1), Y.new_ones(len(Y), 1)
    sums = (
        kernel_sums(X, X, ones[0], ones[0], kernel, off_diagonal=unbiased),
        kernel_sums(Y, Y, ones[1], ones[1], kernel, off_diagonal=unbiased),
        kernel_sums(X, Y, ones[0], ones[1], kernel),
    )
    return float(mmd_of_sums(*sums, ones[0], ones[1], unbiased=unbiased)[0])


def kernel_sums(
    X: torch.Tensor,
    Y: torch.Tensor,
    V: torch.Tensor,
    W: torch.Tensor,
    kernel: Kernel,
    *,
    off_diagonal: bool = False,
) -> torch.Tensor:
    """Sum k(x_i, y_j) v_ib w_jb over all pairs, for many sets of weights at once.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        First rows.
    Y : Tensor of shape (m, d)
        Second rows.
    V : Tensor of shape (n, b)
        Weights of the first rows.
    W : Tensor of shape (m, b)
        Weights of the second rows.
    kernel : callable
        Of two blocks of rows.
    off_diagonal : bool
        Whether pairs i = j are left out; X and Y are then the same rows.

    Returns
    -------
    Tensor of shape (b,)
    """
    total = V.new_zeros(V.shape[1])
    for start in range(0, len(X), _BLOCK):
        stop = min(start + _BLOCK, len(X))
        block = kernel(X[start:stop], Y)
        if off_diagonal:
            rows = torch.arange(stop - start, device=block.device)
            block[rows, rows + start] = 0
        total += (V[start:stop] * (block @ W)).sum(dim=0)
    return total


def mmd_of_sums(
    xx: torch.Tensor,
    yy: torch.Tensor,
    xy: torch.Tensor,
    V: torch.Tensor,
    W: torch.Tensor,
    *,
    unbiased: bool,
) -> torch.Tensor:
    """Turn the three sums of :func:`kernel_sums` into MMD², one for each set of weights."""
    totals = V.sum(dim=0), W.sum(dim=0)
    own = [
        t.square() - (w.square().sum(dim=0) if unbiased else 0)
        for t, w in zip(totals, (V, W), strict=True)
    ]
    return xx / own[0] + yy / own[1] - 2 * xy / (totals[0] * totals[1])
