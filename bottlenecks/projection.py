"""Learn directions in a backbone's features whose outputs follow given concept scores."""

from __future__ import annotations

__all__ = ["Projection", "cos_cubed_similarity", "fit_projection"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import (
    ArrayLike,
    as_numpy,
    as_tensor,
    check_finite,
    like_input,
    resolve_device,
)
from conceptlab.errors import InputError
from conceptlab.parameters import Real, Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

_CELLS = 1 << 23  # outputs held at a time, times a handful of copies
_MEMORY = 10  # pairs that the quasi-Newton steps remember
_HALVINGS = 12


def cos_cubed_similarity(outputs: Any, scores: ArrayLike) -> np.ndarray:
    """Compare outputs with concept scores, large values above all.

    ``<q̄³, p̄³> / (|q̄³| |p̄³|)`` with column means taken away and cubes by entry.

    Parameters
    ----------
    outputs : array-like of shape (n, M)
        q.
    scores : array-like of shape (n, M)
        p.

    Returns
    -------
    ndarray of shape (M,), float64
        In [-1, 1]; 0 where a column is constant.

    References
    ----------
    Oikarinen and Weng, CLIP-Dissect, ICLR 2023; Oikarinen et al., Label-free
    Concept Bottleneck Models, ICLR 2023, equation 2.

    Examples
    --------
    >>> p = np.array([[0.0], [1.0], [5.0]])
    >>> cos_cubed_similarity(3 * p + 2, p), cos_cubed_similarity(-p, p)
    (array([1.]), array([-1.]))
    """
    Q, P = (_matrix(values, name) for values, name in ((outputs, "outputs"), (scores, "scores")))
    if Q.shape != P.shape:
        raise InputError(
            f"outputs and scores must have one shape, got {tuple(Q.shape)} and {tuple(P.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    even = Q.new_ones(len(Q), dtype=torch.float64)
    products = _cubes(Q.double(), even) * _cubes(P.double(), even)
    return np.asarray(products.sum(dim=0).cpu().numpy())


@dataclass(frozen=True, eq=False)
class Projection:
    """Directions in feature space, with what each one reaches.

    Attributes
    ----------
    coef : ndarray of shape (M, D), float64
        W; outputs are ``X Wᵀ``, of mean 0 and variance 1 in the fit.
    intercept : ndarray of shape (M,), float64
        Minus the outputs' mean.
    similarity : ndarray of shape (M,), float64
        cos cubed on the rows that were fitted.
    validation_similarity : ndarray of shape (M,), float64
        On rows held out, of the same number of steps on the others; that on
        the fitted rows where none were held out.
    start_similarity : ndarray of shape (M,), float64
        Of the ridge regression that the search began with, on the fitted rows.
    gradient : ndarray of shape (M,), float64
        Length of the gradient of the similarity by the logarithm of the
        (whitened) direction: the certificate, 0 at a stationary point. It is
        large where rows held out stopped the search early.
    n_iter : ndarray of shape (M,), int64
        Steps taken.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 5))
    >>> projection = fit_projection(X, X[:, :2])
    >>> projection.coef.shape, projection(X).shape
    ((2, 5), (300, 2))
    """

    coef: np.ndarray
    intercept: np.ndarray
    similarity: np.ndarray
    validation_similarity: np.ndarray
    start_similarity: np.ndarray
    gradient: np.ndarray
    n_iter: np.ndarray

    @like_input
    def __call__(self, X: ArrayLike) -> Any:
        """Project features (n, D) to outputs (n, M), like in, like out."""
        rows = as_tensor(X)
        coef, intercept = (torch.from_numpy(v).to(rows) for v in (self.coef, self.intercept))
        return rows @ coef.T + intercept


def fit_projection(
    features: ArrayLike,
    scores: ArrayLike,
    *,
    ridge: float = 1e-3,
    max_iter: int = 50,
    tol: float = 1e-4,
    validation_fraction: float = 0.1,
    sample_weight: np.ndarray | None = None,
    device: str | torch.device = "auto",
    random_state: RandomState = 0,
) -> Projection:
    """Find directions whose outputs are cos-cubed similar to concept scores.

    The search starts at the ridge regression of every concept's scores on the
    features, in closed form, and takes quasi-Newton (L-BFGS) steps from there;
    concepts have nothing to do with each other and each has its own step
    length. Directions are searched in the coordinates in which the regression
    is a sphere.

    Parameters
    ----------
    features : array-like of shape (n, D)
        Of the backbone.
    scores : array-like of shape (n, M)
        Such as similarities of the same images to M texts.
    ridge : float
        Weight of the penalty in the start, as a multiple of the features' mean
        variance; above 0.
    max_iter : int
        Most steps; 0 keeps the start.
    tol : float
        A concept is done when its gradient is no longer than this.
    validation_fraction : float
        Share of rows held out to find the number of steps after which the mean
        similarity on them is largest; all rows then take so many steps (early
        stopping). 0 goes to the end.
    sample_weight : array-like of shape (n,), optional
        Above 0. Sums over rows are weighted, also on the rows held out.
    device : str or torch.device
    random_state : optional
        Of the rows held out.

    Returns
    -------
    Projection

    Raises
    ------
    InputError
        Shapes that do not fit, a concept with the same score in all rows
        (``CL-INPUT-ZERO``), constant features, NaN, parameters out of range.

    Notes
    -----
    Cubes put the weight on a few extreme rows, so the end of the search fits
    their noise: on planted scores with noise the closed-form start has the
    larger similarity on new rows, which is why steps are counted on rows held
    out. The similarity does not change when an output is scaled or shifted, so
    outputs are standardised at the end. Published code starts anywhere and
    takes up to 1000 steps of Adam for all concepts together.

    References
    ----------
    Oikarinen et al., Label-free Concept Bottleneck Models, ICLR 2023, section
    3.2; Nocedal and Wright, Numerical Optimization, algorithm 7.4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 5))
    >>> found = fit_projection(X, X[:, :2] + 0.1 * rng.normal(size=(300, 2)))
    >>> bool((found.validation_similarity > 0.9).all())
    True
    """
    X, P = (_matrix(values, name) for values, name in ((features, "features"), (scores, "scores")))
    _check(X, P, ridge, max_iter, tol, validation_fraction)
    place = resolve_device(device, like=X if isinstance(features, torch.Tensor) else features)
    dtype = torch.float32 if place.type == "mps" else torch.float64
    X, P = X.to(place, dtype), P.to(place, dtype)
    share = _shares(sample_weight, X)
    n_valid = round(validation_fraction * len(X))
    order = numpy_generator(draw_seed(random_state)).permutation(len(X))
    valid, fit = np.sort(order[:n_valid]), np.sort(order[n_valid:])
    held_at = None
    if n_valid:
        centre, basis = _whitening(X[fit], ridge, share[fit])
        held = (X[valid] - centre) @ basis
        Z = (X[fit] - centre) @ basis
        ways = []
        for columns in _parts(X, P):
            target = _cubes(P[valid][:, columns], share[valid])
            known = (held, target, share[valid])
            ways.append(_way(Z, P[fit][:, columns], share[fit], max_iter, tol, known))
        along = np.concatenate(ways, axis=1)
        max_iter = int(along.mean(axis=1).argmax())
        held_at = along[max_iter]
    centre, basis = _whitening(X, ridge, share)
    Z = (X - centre) @ basis
    parts = []
    for columns in _parts(X, P):
        G, theta0 = _cubes(P[:, columns], share), _regression(Z, P[:, columns], share)
        theta, gradient, steps = _ascend(_lifted(Z, share), G, theta0, max_iter, tol)
        coef = theta @ basis.T
        spread = _mean((Z @ theta.T).square(), share).sqrt()
        coef = coef / torch.where(spread > 0, spread, 1.0)[:, None]
        reached = _similarity(Z, G, share, theta), _similarity(Z, G, share, theta0)
        parts.append((coef, -(coef @ centre), *reached, gradient, steps))
    *floats, n_iter = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    W, b, reached_at, start_at, slope = (np.asarray(v, dtype=np.float64) for v in floats)
    held_at = reached_at if held_at is None else held_at
    return Projection(W, b, reached_at, held_at, start_at, slope, n_iter)


def _parts(X: torch.Tensor, P: torch.Tensor) -> list[slice]:
    step = max(1, _CELLS // len(X))
    return [slice(start, start + step) for start in range(0, P.shape[1], step)]


def _way(
    Z: torch.Tensor,
    P: torch.Tensor,
    share: torch.Tensor,
    max_iter: int,
    tol: float,
    held: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> np.ndarray:
    """Give the similarity on rows held out after 0 ... max_iter steps, (max_iter + 1, m)."""
    theta = _regression(Z, P, share)
    way = [_similarity(*held, theta)]
    G, lifted = _cubes(P, share), _lifted(Z, share)
    _ascend(lifted, G, theta, max_iter, tol, lambda at: way.append(_similarity(*held, at)))
    way += way[-1:] * (max_iter + 1 - len(way))
    return np.asarray(torch.stack(way).double().cpu().numpy())


def _shares(weight: np.ndarray | None, X: torch.Tensor) -> torch.Tensor:
    """Give weights of mean 1, (n,)."""
    if weight is None:
        return X.new_ones(len(X))
    given = torch.as_tensor(as_numpy(weight)).to(X)
    if given.shape != (len(X),) or not bool((given > 0).all() & given.isfinite().all()):
        raise InputError(
            f"sample_weight must be a number above 0 for each of the {len(X)} rows.",
            code="CL-INPUT-SHAPE",
        )
    return given / given.mean()


def _mean(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    return (values * share[:, None]).sum(dim=0) / share.sum()


def _lifted(Z: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Multiply rows so that a product of two cubes counts each by its weight."""
    return Z * share[:, None] ** (1 / 6)


def _whitening(
    X: torch.Tensor, ridge: float, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the mean, and B (D, r) such that ``(X - mean) B`` has covariance C (C + λI)⁻¹."""
    centre = _mean(X, share)
    centred = (X - centre) * share[:, None].sqrt()
    covariance = centred.T @ centred / share.sum()
    values, vectors = torch.linalg.eigh(covariance)
    mean_variance = covariance.diagonal().mean()
    if not float(mean_variance) > 0:
        raise InputError(
            "All features are the same in every row, so nothing can be learnt from them.",
            code="CL-INPUT-ZERO",
        )
    kept = values > values[-1] * 1e-12
    return centre, vectors[:, kept] / torch.sqrt(values[kept] + ridge * mean_variance)


def _regression(Z: torch.Tensor, P: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Give ridge regression in these coordinates, in which it is a product: (m, r), of length 1."""
    theta = ((P - _mean(P, share)) * share[:, None]).T @ Z
    lengths = torch.linalg.vector_norm(theta, dim=1, keepdim=True)
    tiny = torch.finfo(theta.dtype).tiny
    flat = torch.zeros_like(theta)
    flat[:, -1] = 1.0  # scores that no feature tells anything about: begin anywhere
    return torch.where(lengths > tiny, theta / lengths.clamp_min(tiny), flat)


def _cubes(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Centre, cube and scale columns to length one; zeros for constant ones."""
    centred = values - _mean(values, share)
    largest = centred.abs().amax(dim=0)
    noise = 8 * torch.finfo(values.dtype).eps * values.abs().amax(dim=0)
    flat = largest <= noise
    cubes = _lifted(torch.where(flat, 0.0, centred / torch.where(flat, 1.0, largest)), share) ** 3
    lengths = torch.linalg.vector_norm(cubes, dim=0)
    return cubes / torch.where(lengths > 0, lengths, 1.0)


def _similarity(
    Z: torch.Tensor, G: torch.Tensor, share: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    return (_cubes(Z @ theta.T, share) * G).sum(dim=0)


def _gradient(
    Z: torch.Tensor, G: torch.Tensor, theta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give minus the similarity and its gradient: (m,) and (m, r). Columns of Z have mean 0."""
    Q = Z @ theta.T
    cubes = Q**3
    lengths = torch.linalg.vector_norm(cubes, dim=0).clamp_min(torch.finfo(Q.dtype).tiny)
    unit = cubes / lengths
    similarity = (unit * G).sum(dim=0)
    slope = 3 * Q**2 * (G - similarity * unit) / lengths
    return -similarity, -(slope.T @ Z)


def _ascend(
    Z: torch.Tensor,
    G: torch.Tensor,
    theta: torch.Tensor,
    max_iter: int,
    tol: float,
    watch: Callable[[torch.Tensor], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minimise minus the similarity of every concept by L-BFGS, each with a step of its own.

    `watch` sees the directions after each step.
    """
    theta = theta.clone()
    loss, gradient = _gradient(Z, G, theta)
    pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    steps = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    for _ in range(max_iter):
        # The loss is constant along theta, so lengths are measured relative to it.
        size = torch.linalg.vector_norm(theta, dim=1)
        active = torch.linalg.vector_norm(gradient, dim=1) * size > tol
        if not bool(active.any()):
            break
        direction = _two_loops(gradient, pairs, size)
        slope = (direction * gradient).sum(dim=1)
        uphill = slope >= 0
        direction = torch.where(uphill[:, None], -gradient, direction)
        slope = torch.where(uphill, -(gradient**2).sum(dim=1), slope)
        length, moved, new_loss, new_gradient = _line_search(
            Z, G, theta, loss, direction, slope, active
        )
        if not bool(moved.any()):
            break
        s = torch.where(moved[:, None], length[:, None] * direction, 0.0)
        y = torch.where(moved[:, None], new_gradient - gradient, 0.0)
        curvature = (s * y).sum(dim=1)
        rho = torch.where(
            curvature > 1e-12 * (y * y).sum(dim=1), 1 / curvature.clamp_min(1e-300), 0.0
        )
        pairs = [*pairs, (s, y, rho)][-_MEMORY:]
        theta = theta + s
        loss = torch.where(moved, new_loss, loss)
        gradient = torch.where(moved[:, None], new_gradient, gradient)
        steps += moved
        if watch is not None:
            watch(theta)
    return theta, gradient.norm(dim=1) * theta.norm(dim=1), steps


def _two_loops(
    gradient: torch.Tensor,
    pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    size: torch.Tensor,
) -> torch.Tensor:
    """Apply the inverse of the remembered curvature; pairs with rho = 0 are passed over."""
    q = gradient.clone()
    alphas = []
    for s, y, rho in reversed(pairs):
        alpha = rho * (s * q).sum(dim=1)
        q -= alpha[:, None] * y
        alphas.append(alpha)
    scale = torch.where(
        torch.linalg.vector_norm(gradient, dim=1) > 0,
        0.1 * size / torch.linalg.vector_norm(gradient, dim=1).clamp_min(1e-300),
        1.0,
    )
    for s, y, rho in pairs:  # the latest pair that counts scales
        yy = (y * y).sum(dim=1)
        scale = torch.where(rho > 0, (s * y).sum(dim=1) / yy.clamp_min(1e-300), scale)
    q *= scale[:, None]
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * (y * q).sum(dim=1)
        q += (alpha - beta)[:, None] * s
    return -q


def _line_search(
    Z: torch.Tensor,
    G: torch.Tensor,
    theta: torch.Tensor,
    loss: torch.Tensor,
    direction: torch.Tensor,
    slope: torch.Tensor,
    active: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Halve steps until the loss has fallen enough (Armijo), concept by concept."""
    length = torch.ones_like(loss)
    moved = torch.zeros_like(active)
    new_loss, new_gradient = loss.clone(), torch.zeros_like(theta)
    left = active.nonzero()[:, 0]
    for _ in range(_HALVINGS):
        trial = theta[left] + length[left, None] * direction[left]
        value, gradient = _gradient(Z, G[:, left], trial)
        good = value <= loss[left] + 1e-4 * length[left] * slope[left]
        done = left[good]
        moved[done] = True
        new_loss[done], new_gradient[done] = value[good], gradient[good]
        left = left[~good]
        if not len(left):
            break
        length[left] *= 0.5
    return length, moved, new_loss, new_gradient


def _matrix(values: ArrayLike, name: str) -> torch.Tensor:
    matrix = as_tensor(values, name=name).detach()
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(
            f"{name} must be a matrix with a row for every image, got shape {tuple(matrix.shape)}.",
            code="CL-INPUT-RANK",
        )
    check_finite(matrix, name)
    return matrix


def _check(
    X: torch.Tensor, P: torch.Tensor, ridge: float, max_iter: int, tol: float, share: float
) -> None:
    if len(X) != len(P):
        raise InputError(
            f"features have {len(X)} rows and scores {len(P)}; give both for the same images.",
            code="CL-INPUT-SHAPE",
        )
    Real(above=0).check("ridge", ridge)
    Whole(0).check("max_iter", max_iter)
    Real(least=0).check("tol", tol)
    Real(least=0, below=1).check("validation_fraction", share)
    if len(X) - round(share * len(X)) < 2:
        raise InputError(
            f"validation_fraction={share!r} of {len(X)} rows leaves too few to fit; at least 2 "
            "rows must be left.",
            code="CL-INPUT-RANGE",
        )
    flat = P.amax(dim=0) == P.amin(dim=0)
    if bool(flat.any()):
        raise InputError(
            f"{int(flat.sum())} concept(s) have the same score in all rows, the first in column "
            f"{int(flat.nonzero()[0, 0])}. Leave them out.",
            code="CL-INPUT-ZERO",
        )
