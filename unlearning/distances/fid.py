"""Fréchet distance between two sets of features (FID), by the route that fits.

FID is the squared 2-Wasserstein distance of two normal laws,

    |m1 - m2|² + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2),

with unbiased covariances, all in float64. With any factors C = F Fᵀ the last trace is
the nuclear norm |F1ᵀ F2|_*, which needs no square root of a matrix. With fewer samples
than features the centred data are such factors, and no d × d matrix is ever made.
Nothing is added to a diagonal.
"""

from __future__ import annotations

__all__ = ["ROWS_PER_DIMENSION", "FewRowsWarning", "FrechetResult", "frechet", "frechet_distance"]

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, resolve_device
from conceptlab.errors import InputError
from unlearning.distances.bias import null_bias
from unlearning.distances.features import Features
from unlearning.distances.linalg import congruence, gram
from unlearning.distances.moments import FeatureStatistics

_DEALS, _LARGE = 8, 10**8
ROWS_PER_DIMENSION = 10
"""Rows for each dimension that covariances need: with fewer, a fifth or more of what they differ by
is lost (of normal laws of 64 features and known distance; with two rows, half)."""
_SLACK = 1e-8  # of the traces: rounding below zero that is no fault


class FewRowsWarning(UserWarning):
    """A distance of sets that are too small for the number of their features."""


@dataclass(frozen=True)
class FrechetResult:
    """A Fréchet distance and what it consists of.

    Attributes
    ----------
    distance : float
        FID, never negative.
    mean_term : float
        |m1 - m2|².
    covariance_term : float
        tr C1 + tr C2 - 2 tr (C1 C2)^(1/2).
    null_bias : float
        What FID is on average when both samples, of these sizes, come from one law: the
        rows of both are centred and dealt out anew, eight times (twice from 10⁸ numbers on).
        Of statistics, which hold no rows, it is that of normal data; see
        :func:`unlearning.distances.null_bias`. NaN where their number of rows is not known.
    debiased : float
        ``distance - null_bias``: 0 on average for one law, at any size; an estimate of the
        distance of two laws where it is `told`, else too small by what their covariances
        differ, and not to be ranked by. May be slightly negative.
    n : tuple of int
        Sizes of the samples.
    n_features : int
    dimension : float
        Effective dimension of the features, (tr C)² / tr C² of the mean covariance: the number
        of equal directions that would vary as much together.
    route : {"cross-gram", "mixed", "cholesky", "factors"}
        How the trace was computed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = frechet(rng.normal(size=(50, 3)), rng.normal(size=(60, 3)))
    >>> found.n, found.n_features, bool(found.debiased < found.distance)
    ((50, 60), 3, True)
    """

    distance: float
    mean_term: float
    covariance_term: float
    null_bias: float
    debiased: float
    n: tuple[int, int]
    n_features: int
    dimension: float
    route: str

    @property
    def told(self) -> bool:
        """Whether either set has ten rows a dimension, which covariances need."""
        return min(self.n) >= ROWS_PER_DIMENSION * self.dimension

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON values."""
        return asdict(self)


def frechet_distance(X: Any, Y: Any, *, device: str | torch.device = "auto") -> float:
    """Compute the Fréchet distance of two sets of features (FID).

    Parameters
    ----------
    X, Y : array-like of shape (n, d), Features, or FeatureStatistics
        Features of each set; the numbers of rows may differ, and may be below d.
    device : str or torch.device
        Where to compute; a tensor's own device by default.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    InputError
        Fewer than two rows, different numbers of features, NaN or infinity, or
        arrays that are not 2-D.

    See Also
    --------
    frechet : The same with its parts, its null bias and the route.
    kid : Unbiased at any number of rows.

    Notes
    -----
    Heusel et al. 2017, eq. 6 (FID); Dowson and Landau 1982 (the distance). With
    n < d the cross-Gram route costs O(n² d + n³): at n = 500, d = 2048 a hundredth of
    the usual one.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(300, 8))
    >>> round(frechet_distance(X, X + 0.5), 6)
    2.0
    >>> frechet_distance(X, X) < 1e-9
    True
    """
    first, second = _pair(X, Y, device)
    return _distance(first, second)[0]


def frechet(X: Any, Y: Any, *, device: str | torch.device = "auto") -> FrechetResult:
    """Compute the Fréchet distance with its parts, its null bias and its route.

    Takes nine times as long as :func:`frechet_distance`, for the null bias.

    Parameters
    ----------
    X, Y : array-like of shape (n, d), Features, or FeatureStatistics
        Features of each set.
    device : str or torch.device
        Where to compute; a tensor's own device by default.

    Returns
    -------
    FrechetResult

    Raises
    ------
    InputError
        As :func:`frechet_distance`.

    Warns
    -----
    FewRowsWarning
        Where the debiased distance of two laws is not told, see :class:`FrechetResult`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = frechet(rng.normal(size=(500, 16)), rng.normal(size=(500, 16)))
    >>> found.route, abs(found.debiased) < 0.2 * found.distance
    ('cholesky', True)
    """
    X, Y = (
        part if isinstance(part, FeatureStatistics) else Features.of(part, name, device=device)
        for part, name in ((X, "X"), (Y, "Y"))
    )
    first, second = _pair(X, Y, device)
    distance, mean_term, covariance_term, spectrum, route = _distance(first, second)
    if isinstance(X, Features) and isinstance(Y, Features):
        bias = first.trace / first.n + second.trace / second.n + _dealt_anew(X, Y)
    elif not (first.counted and second.counted):
        bias = float("nan")
    else:
        bias = null_bias(_null_spectrum(first, second, spectrum), first.n, second.n)
    result = FrechetResult(
        distance=distance,
        mean_term=mean_term,
        covariance_term=covariance_term,
        null_bias=bias,
        debiased=distance - bias,
        n=(first.n, second.n),
        n_features=first.n_features,
        dimension=_dimension(first, second, spectrum),
        route=route,
    )
    if first.counted and second.counted and not result.told:
        warnings.warn(
            f"{min(result.n)} rows are few for features of {result.dimension:.0f} effective "
            f"dimensions ({result.n_features} columns): the debiased distance is 0 on average for "
            "one law, but of two it misses a part of what their covariances differ by. Do not rank "
            f"by it; {ROWS_PER_DIMENSION * result.dimension:.0f} rows would do, or kid(X, Y), "
            "which has no bias at any number.",
            FewRowsWarning,
            stacklevel=2,
        )
    return result


def _dimension(
    first: FeatureStatistics, second: FeatureStatistics, spectrum: torch.Tensor
) -> float:
    """Give (tr C)² / tr C² of C = (C1 + C2) / 2; the spectrum's squares add up to tr C1 C2."""
    squares = 2 * float(spectrum.square().sum())
    for part in (first, second):
        rows = part.factor_rows()
        values = part.covariance_ if rows is None else rows @ rows.T
        squares += float(values.square().sum())
    return (first.trace + second.trace) ** 2 / squares if squares > 0 else 0.0


def _dealt_anew(X: Features, Y: Features) -> float:
    """Give the covariance term of two samples of one law: all rows, dealt out again.

    Of one law any division of the rows is as likely as the one that was given, so nothing
    needs to be known of the law: features of networks are far from normal, and what a formula
    for normal data says can be half of the truth.
    """
    n, m = len(X), len(Y)
    rows = torch.cat(
        [
            (part.rows - part.rows.mean(dim=0)) * float(np.sqrt(len(part) / (len(part) - 1)))
            for part in (X, Features(Y.rows.to(X.rows.device)))
        ]
    )
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_DEALS if rows.numel() < _LARGE else 2):
        order = torch.from_numpy(rng.permutation(n + m)).to(rows.device)
        parts = (Features(rows[order[:n]]).statistics, Features(rows[order[n:]]).statistics)
        found.append(_distance(*parts)[2])
    return float(np.mean(found))


def _pair(
    X: ArrayLike, Y: ArrayLike, device: str | torch.device
) -> tuple[FeatureStatistics, FeatureStatistics]:
    first = _statistics(X, "X", device)
    second = _statistics(Y, "Y", first.device if device == "auto" else device)
    for statistics, name in ((first, "X"), (second, "Y")):
        if statistics.counted and statistics.n < 2:
            raise InputError(
                f"{name} has {statistics.n} row(s); a covariance needs at least 2. Give more "
                "images.",
                code="CL-INPUT-FEW",
            )
    if first.n_features != second.n_features:
        raise InputError(
            f"X has {first.n_features} features, Y has {second.n_features}. Both must come from "
            "one extractor.",
            code="CL-INPUT-FEATURES",
        )
    return first, second.to(first.device)


def _statistics(X: ArrayLike, name: str, device: str | torch.device) -> FeatureStatistics:
    if isinstance(X, FeatureStatistics):
        return X if device == "auto" else X.to(resolve_device(device))
    return Features.of(X, name, device=device).statistics


def _distance(
    first: FeatureStatistics, second: FeatureStatistics
) -> tuple[float, float, float, torch.Tensor, str]:
    mean_term = float((first.mean_ - second.mean_).square().sum())
    traces = first.trace + second.trace
    spectrum, route = trace_spectrum(first, second)
    covariance_term = traces - 2 * float(spectrum.sum())
    if covariance_term < -_SLACK * traces and route == "cholesky":
        spectrum, route = _by_factors(first, second), "factors"
        covariance_term = traces - 2 * float(spectrum.sum())
    distance = max(mean_term + covariance_term, 0.0)
    return distance, mean_term, covariance_term, spectrum, route


def trace_spectrum(first: FeatureStatistics, second: FeatureStatistics) -> tuple[torch.Tensor, str]:
    """Give the square roots of the eigenvalues of C1 C2, whose sum is tr (C1 C2)^(1/2).

    Parameters
    ----------
    first, second : FeatureStatistics
        On one device.

    Returns
    -------
    spectrum : Tensor of shape (at most d,), float64
        Not negative; zeros may be left out.
    route : str
        See :class:`FrechetResult`.
    """
    rows = first.factor_rows(), second.factor_rows()
    if rows[0] is not None and rows[1] is not None:
        return torch.linalg.svdvals(rows[0] @ rows[1].T), "cross-gram"
    if rows[0] is not None or rows[1] is not None:
        short, full = (rows[0], second) if rows[0] is not None else (rows[1], first)
        lower = _cholesky(full.covariance_)
        if lower is not None and short is not None:
            return torch.linalg.svdvals(short @ lower), "mixed"
        return _by_factors(first, second), "factors"
    C1, C2 = first.covariance_, second.covariance_
    # A feature that is constant in one set has no part in the cross term.
    live = (C1.diagonal() > 0) & (C2.diagonal() > 0)
    if not bool(live.all()):
        C1, C2 = C1[live][:, live], C2[live][:, live]
    if len(C1) == 0:
        return C1.new_zeros(1), "cholesky"
    lower = _cholesky(C1)
    if lower is None:
        lower, C2 = _cholesky(C2), C1
    if lower is None:
        return _by_factors(first, second), "factors"
    values = torch.linalg.eigvalsh(congruence(lower, C2))
    return values.clamp_min(0).sqrt(), "cholesky"


def _cholesky(C: torch.Tensor) -> torch.Tensor | None:
    lower, info = torch.linalg.cholesky_ex(C)
    if int(info) != 0:
        return None
    # A factor whose smallest pivot is rounding alone stands for a singular matrix.
    pivots = lower.diagonal().square()
    singular = bool((pivots <= 4 * len(C) * torch.finfo(C.dtype).eps * C.diagonal()).any())
    return None if singular else lower


def _by_factors(first: FeatureStatistics, second: FeatureStatistics) -> torch.Tensor:
    return torch.linalg.svdvals(first.factor().T @ second.factor())


def _null_spectrum(
    first: FeatureStatistics, second: FeatureStatistics, spectrum: torch.Tensor
) -> torch.Tensor:
    """Give the spectrum of a law between the two.

    With n >= d it is that of (C1 C2)^(1/2). With n < d that one is too short, since
    two samples of few rows span different spaces; then it is that of the pooled rows.
    """
    rows = first.factor_rows(), second.factor_rows()
    if rows[0] is None or rows[1] is None:
        return spectrum
    pooled = torch.cat([rows[0], rows[1]])
    return torch.linalg.eigvalsh(gram(pooled.T)).clamp_min(0) / 2
