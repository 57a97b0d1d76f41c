"""How large FID is when there is nothing to find."""

from __future__ import annotations

__all__ = ["null_bias"]


import torch

from conceptlab.arrays import ArrayLike, as_tensor
from conceptlab.errors import InputError


def null_bias(spectrum: ArrayLike, n_x: int, n_y: int) -> float:
    """Compute the expected FID of two samples from one law.

    Parameters
    ----------
    spectrum : array-like of shape (k,)
        Eigenvalues l of the law's covariance, not negative.
    n_x, n_y : int
        Sizes of the samples.

    Returns
    -------
    float
        Zero only for infinite samples: FID is biased upwards.

    Raises
    ------
    InputError
        Negative or non-finite eigenvalues, or a size below 2.

    Notes
    -----
    Second-order expansion of the distance for normal data, with h = 1/n_x + 1/n_y:

        h Σ_i l_i  +  (h/2) (Σ_ij l_i l_j / (l_i + l_j) + Σ_i l_i / 2).

    The first part is the means', the second the covariances'. Chong and Forsyth 2020
    show the bias and remove it by extrapolation over subsets; this formula needs one
    pass.

    Examples
    --------
    >>> round(null_bias(np.ones(128), 5000, 5000), 3)
    1.702
    """
    values = as_tensor(spectrum, dtype=torch.float64).flatten()
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise InputError(
            "spectrum holds negative or non-finite values; eigenvalues of a covariance are >= 0.",
            code="CL-INPUT-NEGATIVE",
        )
    if min(n_x, n_y) < 2:
        raise InputError(f"Samples of {n_x} and {n_y}; both need 2 rows.", code="CL-INPUT-FEW")
    values = values[values > 0]
    h = 1.0 / n_x + 1.0 / n_y
    pairs = 0.0
    for part in values.split(1024):  # so that d = 10,000 needs no 10⁸ numbers at once
        pairs += float((part[:, None] * values / (part[:, None] + values)).sum())
    return h * float(values.sum()) + h / 2 * (pairs + float(values.sum()) / 2)
