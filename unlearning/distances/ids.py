"""How well a line tells real from removed: U-IDS and P-IDS.

The published scores fit a linear SVM and score it on the very rows it was fitted to.
With few rows that measures the number of rows: for one law and d features, in-sample
U-IDS tends to Phi(-sqrt(g / (1 - g))) with g = d / (2 n), which is 0 once n <= d / 2.
Scores of rows that were left out are near one half for one law at any n.
"""

from __future__ import annotations

__all__ = ["leave_one_out", "p_ids", "u_ids", "u_ids_errors"]

from typing import Any, Literal

import numpy as np
import torch

from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError, unknown_name
from conceptlab.seeds import RandomState, draw_seed
from unlearning.distances.features import feature_pair
from unlearning.distances.linalg import gram
from unlearning.distances.rows import check_pair

Method = Literal["loo", "cv", "in-sample"]
METHODS = ("loo", "cv", "in-sample")
_RIDGE = 1e-3
_FOLDS = 5
_NOTHING = 1e-9
_DUST = 1e-12  # of the size of a feature: rounding, and no spread


def u_ids(
    real: Any,
    fake: Any,
    *,
    method: Method = "loo",
    paired: bool = False,
    random_state: RandomState = 0,
    device: str | torch.device = "auto",
) -> float:
    """Compute the unpaired inception discriminative score: the error of a linear classifier.

    Parameters
    ----------
    real, fake : array-like of shape (n, d), or Features
        Features of each set; the numbers of rows may differ.
    method : {"loo", "cv", "in-sample"}
        ``"loo"``: least squares, every row scored by the fit without it (exact, one
        Cholesky factorisation). ``"cv"``: linear SVM, five folds. Both give either set
        half of the weight, whatever its size, and every feature the variance 1.
        ``"in-sample"``: as published, the SVM on its own training rows.
    paired : bool
        Whether row i of one set is made of row i of the other, as a removed image of its
        original. Then both are left out together: a row's twin carries the other label
        and would turn its answer around.
    random_state : int, RandomState, Generator or None
        Of the folds; the other methods draw nothing.
    device : str or torch.device
        Where ``"loo"`` is computed; a tensor's own device by default.

    Returns
    -------
    float
        In [0, 1]: mean of the two sets' error rates; 0.5 when no line tells them
        apart, 0 when one always does. Higher is better.

    Raises
    ------
    InputError
        Fewer than two rows (five for ``"cv"``), different numbers of features (or of rows,
        where they are pairs), NaN or infinity, or an unknown method.

    See Also
    --------
    p_ids : The paired score.

    Notes
    -----
    Zhao et al. 2021 (co-modulated GANs), section 4. With different numbers of rows the
    two error rates count alike. A line that was fitted without weights would then call
    nearly everything the larger set's and err half of the time, however plain the
    difference; the published score does so.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(400, 16)), rng.normal(size=(400, 16))
    >>> 0.42 < u_ids(X, Y) < 0.58, u_ids(X, Y + 8)
    (True, 0.0)
    """
    errors = u_ids_errors(
        real, fake, method=method, paired=paired, random_state=random_state, device=device
    )
    return float(errors[0].mean() + errors[1].mean()) / 2


def u_ids_errors(
    real: Any,
    fake: Any,
    *,
    method: Method = "loo",
    paired: bool = False,
    random_state: RandomState = 0,
    device: str | torch.device = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """Tell for each row whether the classifier errs; see :func:`u_ids`.

    Returns
    -------
    real, fake : ndarray of shape (n,), float64
        1 for an error, 0 for none, 0.5 on the boundary.
    """
    scores = _scores(real, fake, method, random_state, device, paired=paired)
    return _wrong(scores[0]), _wrong(-scores[1])


def p_ids(
    real: Any,
    fake: Any,
    *,
    method: Literal["cv", "in-sample"] = "cv",
    ties: float = 0.5,
    random_state: RandomState = 0,
) -> float:
    """Compute the paired inception discriminative score.

    Parameters
    ----------
    real, fake : array-like of shape (n, d), or Features
        Features of pairs: row i of one belongs to row i of the other.
    method : {"cv", "in-sample"}
        Linear SVM on folds of pairs, or as published on its own training rows.
    ties : float
        What a pair of equal scores counts. The published strict comparison (0) gives a
        remover that changes nothing the worst score there is; one half is its due.
    random_state : int, RandomState, Generator or None
        Of the folds.

    Returns
    -------
    float
        Share of pairs in which the fake seems the more real. Needs pairs, so it has no
        class-wise form: a removed image has no partner among images without the class.

    Raises
    ------
    InputError
        As :func:`u_ids`, or different numbers of rows (``CL-INPUT-SHAPE``).

    Notes
    -----
    Zhao et al. 2021, section 4.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 4))
    >>> p_ids(X, X), p_ids(X, X, method="in-sample", ties=0.0)
    (0.5, 0.0)
    """
    if method not in ("cv", "in-sample"):
        raise unknown_name("method", method, ("cv", "in-sample"))
    if not 0 <= ties <= 1:
        raise InputError(f"ties must lie in [0, 1], got {ties}.", code="CL-INPUT-RANGE")
    first, second = _scores(real, fake, method, random_state, "cpu", paired=True)
    return float(np.mean((second > first) + ties * (second == first)))


def leave_one_out(
    X: torch.Tensor,
    y: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    pairs: bool = False,
    ridge: float = _RIDGE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit labels by weighted ridge regression with intercept and predict each row without it.

    Parameters
    ----------
    X : Tensor of shape (n, d), float64
        Features.
    y : Tensor of shape (n,), float64
        Labels.
    weights : Tensor of shape (n,), optional
        Weight s of each row's square; 1 by default.
    pairs : bool
        Whether rows i and i + n/2 are left out together; they must have one weight.
    ridge : float
        Penalty in units of the features' mean variance times the sum of the weights.

    Returns
    -------
    predictions : Tensor of shape (n,)
        ``y_S - (1 - H_SS)⁻¹ (y_S - f_S)``, with H the hat matrix and S what is left out;
        for single rows ``(f_i - h_i y_i) / (1 - h_i)``.
    margins : Tensor of shape (n,)
        The predictions less the mean label of the rows that are left. That mean leans
        away from the row's own label, since one row of its kind is missing, and would
        count as an error where features say nothing.
    """
    n, d = X.shape
    s = X.new_ones(n) if weights is None else weights
    total = s.sum()
    mean = (s @ y) / total
    root = s.sqrt()
    shifted = X - X[:1]  # so that a constant feature is 0 to the bit, whatever the weights
    centred = (shifted - (s @ shifted) / total) * root[:, None]
    target = (y - mean) * root
    strength = ridge * float(centred.square().sum()) / d
    if strength == 0:  # constant features: nothing but the intercept
        half = X.new_zeros(1, n)
    elif n <= d:
        kernel = gram(centred.T.contiguous())
        values, vectors = torch.linalg.eigh(kernel)
        shrunk = values.clamp_min(0) / (values.clamp_min(0) + strength)
        half = (vectors * shrunk.sqrt()).T
    else:
        covariance = gram(centred)
        covariance.diagonal().add_(strength)
        lower = torch.linalg.cholesky(covariance)
        half = torch.linalg.solve_triangular(lower, centred.T, upper=False)
    leverage = half.square().sum(dim=0)
    slope = half.T @ (half @ target) / root
    own = s / total  # the intercept's part of the leverage
    if pairs:
        m = n // 2
        shared = (half[:, :m] * half[:, m:]).sum(dim=0).repeat(2) + own
        free = 1 - own - leverage
        rest = y - slope - mean
        other, partner = free.roll(m), rest.roll(m)
        determinant = (free * other - shared.square()).clamp_min(1e-12)
        predictions = y - (other * rest + shared * partner) / determinant
        kept = (total * mean - s * (y + y.roll(m))) / (total - 2 * s)
        return predictions, predictions - kept
    left = (1 - own - leverage).clamp_min(1e-12)
    predictions = (slope + mean - (own + leverage) * y) / left
    return predictions, (slope * (1 - own) - leverage * (y - mean)) / (left * (1 - own))


def _wrong(margin: np.ndarray) -> np.ndarray:
    # Of rows that say nothing the margin is rounding alone.
    return np.where(np.abs(margin) < _NOTHING, 0.5, (margin < 0).astype(np.float64))


def _scores(
    real: ArrayLike,
    fake: ArrayLike,
    method: str,
    random_state: RandomState,
    device: str | torch.device,
    *,
    paired: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Give signed scores of both sets, positive for what looks real."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    first, second = (
        part.rows
        for part in feature_pair(
            real, fake, ("real", "fake"), device=device if method == "loo" else "cpu"
        )
    )
    if paired and len(first) != len(second):
        raise InputError(
            f"Pairs are compared, but there are {len(first)} real and {len(second)} fake rows. Use "
            "u_ids without paired=True for sets without partners.",
            code="CL-INPUT-SHAPE",
        )
    check_pair(first, second)
    X = torch.cat([first, second])
    if method != "in-sample":
        X = _of_one_scale(X)
    n = len(first)
    y = torch.cat([first.new_ones(n), -first.new_ones(len(second))])
    if method == "loo":
        weights = torch.cat(
            [torch.full_like(part[:, 0], len(y) / 2 / len(part)) for part in (first, second)]
        )
        scores = leave_one_out(X, y, weights=weights, pairs=paired)[1].cpu().numpy()
    elif method == "in-sample":
        scores = _svm(X.numpy(), y.numpy(), X.numpy())
    else:
        if min(n, len(second)) < _FOLDS:
            raise InputError(
                f"{n} real and {len(second)} fake rows cannot be split into {_FOLDS} folds. Give "
                "more images, or use method='loo'.",
                code="CL-INPUT-FEW",
            )
        rng = np.random.default_rng(draw_seed(random_state))
        fold = [rng.permutation(np.arange(len(part)) % _FOLDS) for part in (first, second)]
        folds = np.concatenate([fold[0], fold[0] if paired else fold[1]])
        scores = np.empty(len(y))
        for k in range(_FOLDS):
            held = folds == k
            scores[held] = _svm(X.numpy()[~held], y.numpy()[~held], X.numpy()[held], "balanced")
    return scores[:n], scores[n:]


def _of_one_scale(X: torch.Tensor) -> torch.Tensor:
    """Give every feature the variance 1, and 0 where it is constant.

    Else one feature of a large scale would be all that the penalties see, and the line blind
    to the others.
    """
    shifted = X - X[:1]  # so that a constant feature is 0 to the bit
    spread = shifted.std(dim=0)
    live = spread > _DUST * X.abs().amax(dim=0)
    return shifted * live / torch.where(live, spread, torch.ones_like(spread))


def _svm(X: np.ndarray, y: np.ndarray, rows: np.ndarray, weight: str | None = None) -> np.ndarray:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        # The published score takes what the solver has after its default 1000 steps.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Nothing depends on the seed, but without one NumPy's global state would be drawn from.
        fitted = LinearSVC(dual=False, class_weight=weight, random_state=0).fit(X, y)
    return np.asarray(fitted.decision_function(rows))
