"""Attacks with shadow models: each sample has its own line between "seen" and "not seen".

How sure a model is of a sample depends on the sample more than on whether it was trained on it.
An attacker who can train models like the one under attack, some with the sample and some without,
knows both distributions of its confidence, and asks which of them fits.
"""

from __future__ import annotations

__all__ = ["ShadowAttack", "likelihood_ratio", "lira", "scaled_confidence", "u_lira"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import ArrayLike, as_floats, check_finite
from conceptlab.errors import InputError
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, numpy_generator
from unlearning.audit.reading import borrowed, device_of, moved
from unlearning.data import Samples, as_samples, check_disjoint_samples, check_same_kind, concat
from unlearning.heads import run_model

_FEW = 4
"""Shadow models of a kind below which a spread cannot be told."""
_EACH = 16
"""Models of a kind from which every sample gets a spread of its own."""


@dataclass(frozen=True, eq=False)
class ShadowAttack:
    """What an attack with shadow models found.

    Attributes
    ----------
    scores : ndarray of shape (n,), float64
        For each sample the logarithm of how much likelier the model's confidence is among
        shadow models that saw it than among those that did not.
    accuracy : float
        How often the attack is right on its own shadow models, each attacked by the others and
        both kinds weighted alike; near one half it says nothing of the model either.
    inside, outside : float
        Share of samples with a positive score: the mean over shadow models that saw them, and
        over those that did not, each attacked by the others. :attr:`share` is read beside them.
    n_inside, n_outside : int
        Shadow models of each kind, the fewest for any sample.

    Examples
    --------
    >>> ShadowAttack(np.array([1.0, -2.0]), 0.7, 0.8, 0.4, 8, 8).share
    0.5
    """

    scores: np.ndarray
    accuracy: float
    inside: float
    outside: float
    n_inside: int
    n_outside: int

    @property
    def share(self) -> float:
        """Share of samples with a positive score."""
        return float(np.mean(self.scores > 0))


def scaled_confidence(logits: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Compute log p_y - log(1 - p_y), which is nearly normal from model to model.

    Parameters
    ----------
    logits : array-like of shape (n, C)
        Before softmax, so that the surest answers are not rounded to 1.
    y : array-like of shape (n,)
        True classes.

    Returns
    -------
    ndarray of shape (n,), float64

    References
    ----------
    Carlini et al., "Membership inference attacks from first principles", S&P 2022, section IV.C.

    Examples
    --------
    >>> scaled_confidence([[2.0, 0.0, 0.0]], [0]).round(4)
    array([1.3069])
    """
    values, labels = as_floats(logits, "logits").astype(np.float64), as_floats(y, "y").astype(int)
    if values.ndim != 2 or values.shape[1] < 2 or labels.shape != (len(values),):
        raise InputError(
            f"Expected logits (n, C) of two classes or more and labels (n,), got shapes "
            f"{values.shape} and {labels.shape}.",
            code="CL-INPUT-SHAPE",
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= values.shape[1]):
        raise InputError(
            f"Labels must lie in 0..{values.shape[1] - 1}, got {labels.min()}..{labels.max()}.",
            code="CL-INPUT-LABELS",
        )
    rows = np.arange(len(labels))
    own = values[rows, labels]
    rest = values.copy()
    rest[rows, labels] = -np.inf
    high = rest.max(axis=1)
    return np.asarray(own - high - np.log(np.exp(rest - high[:, None]).sum(axis=1)))


def likelihood_ratio(target: ArrayLike, inside: ArrayLike, outside: ArrayLike) -> np.ndarray:
    """Say for each sample which kind of shadow models a model's confidence is like.

    Parameters
    ----------
    target : array-like of shape (n,)
        :func:`scaled_confidence` of the model under attack.
    inside, outside : array-like of shape (s, n), (t, n)
        The same of shadow models that saw a sample, and that did not; NaN where a model is not
        of that kind for a sample.

    Returns
    -------
    ndarray of shape (n,), float64
        log N(target; inside) - log N(target; outside).

    Raises
    ------
    InputError
        ``CL-INPUT-FEW``: fewer than four models of a kind for some sample.

    Notes
    -----
    Means are each sample's own. So are variances from sixteen models of a kind on; with fewer
    they are the mean over samples, which is less exact and far less noisy.

    References
    ----------
    Carlini et al., "Membership inference attacks from first principles", S&P 2022, algorithm 1;
    Hayes et al., "Inexact unlearning needs more careful evaluations", arXiv 2403.01218 (U-LiRA).

    Examples
    --------
    >>> spread = np.array([-1.0, 1.0, -1.0, 1.0])[:, None]
    >>> likelihood_ratio([2.0], 2 + spread, spread)
    array([2.])
    """
    aim = as_floats(target, "target").astype(np.float64)
    check_finite(aim, "target")
    sides = []
    for name, values in (("inside", inside), ("outside", outside)):
        rows = as_floats(values, name).astype(np.float64)
        if aim.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(aim):
            raise InputError(
                f"Expected confidences (n,) of the model and `{name}` (models, n), got shapes "
                f"{aim.shape} and {rows.shape}.",
                code="CL-INPUT-SHAPE",
            )
        count = np.isfinite(rows).sum(axis=0)
        if len(aim) and count.min() < _FEW:
            raise InputError(
                f"`{name}` holds {count.min()} shadow models for a sample; a spread needs at least "
                f"{_FEW}. Train more (n_models=).",
                code="CL-INPUT-FEW",
            )
        sides.append(rows)
    return _ratio(aim, *sides)


def _ratio(target: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    logs = []
    for rows in (inside, outside):
        count = np.isfinite(rows).sum(axis=0)
        mean, variance = np.nanmean(rows, axis=0), np.nanvar(rows, axis=0)
        if count.min(initial=_EACH) < _EACH:
            variance = np.full_like(variance, variance.mean() if len(variance) else 1.0)
        variance = np.maximum(variance, 1e-6)
        logs.append(-((target - mean) ** 2) / (2 * variance) - np.log(variance) / 2)
    return np.asarray(logs[0] - logs[1])


def lira(
    model: nn.Module,
    samples: Any,
    train: Callable[[Samples, int], nn.Module],
    *,
    n_models: int = 16,
    random_state: RandomState = 0,
    progress: Progress = None,
) -> ShadowAttack:
    """Ask of each sample whether a model was trained on it.

    Parameters
    ----------
    model : torch.nn.Module
        The model under attack; it is not changed.
    samples : object
        Of which some may have been trained on; see :func:`unlearning.as_samples`. Give members
        and others alike, as many as were trained on or more.
    train : callable
        ``train(samples, seed)`` trains a model as the one under attack was.
    n_models : int
        Shadow models, an even number of at least 8. Each is trained on one half of the samples, and
        each sample is in the half of one half of the models.
    random_state : int, RandomState, Generator or None
        Of halves and seeds.
    progress : optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    ShadowAttack

    Raises
    ------
    InputError
        ``CL-INPUT-FEW``: too few shadow models.

    References
    ----------
    Carlini et al., "Membership inference attacks from first principles", S&P 2022 (LiRA, online).

    Examples
    --------
    >>> X, y = torch.eye(8).repeat(2, 1), torch.arange(16) % 2
    >>> def train(samples, seed):  # a memory: the mean of what was seen, and nothing else
    ...     layer = nn.Linear(8, 2, bias=False)
    ...     layer.weight.data = 9 * nn.functional.one_hot(samples.y, 2).float().T @ samples.inputs
    ...     return layer
    >>> attack = lira(train(as_samples((X[:4], y[:4])), 0), (X[:8], y[:8]), train, n_models=8)
    >>> (attack.scores > 0).tolist()
    [True, True, True, True, False, False, False, False]
    """
    _check_number(n_models)
    pool = as_samples(samples, name="samples")
    rng = numpy_generator(random_state)
    # A balanced design: every model has one half, every sample is in one half of the models.
    order = np.stack([rng.permutation(n_models) for _ in range(len(pool))], axis=1)
    member = order < n_models // 2
    found = []
    for row in track(
        member, description="shadow models", total=n_models, progress=progress, unit="model"
    ):
        shadow = train(pool.select(torch.from_numpy(row)), int(rng.integers(2**31)))
        found.append(_confidences(shadow, pool))
    return _attack(_confidences(model, pool), np.stack(found), member)


def u_lira(
    model: nn.Module,
    forget: Any,
    retain: Any,
    train: Callable[[Samples, int], nn.Module],
    method: Any,
    *,
    n_models: int = 16,
    random_state: RandomState = 0,
    progress: Progress = None,
) -> ShadowAttack:
    """Ask of each forgotten sample whether a model unlearned it, or never saw it.

    Parameters
    ----------
    model : torch.nn.Module
        The unlearned model under attack; it is not changed.
    forget, retain : object
        Training samples: those that were unlearned, and all others; see
        :func:`unlearning.as_samples`.
    train : callable
        ``train(samples, seed)`` trains a model as the original was.
    method : Unlearner
        What unlearned; anything with ``unlearn(model, forget=, retain=, progress=)``.
    n_models : int
        Shadow models, an even number of at least 8: one half is trained on everything and unlearned
        by `method`, one half never saw the forgotten samples.
    random_state : int, RandomState, Generator or None
        Of seeds.
    progress : optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    ShadowAttack
        An `accuracy` near one half means that unlearning is like never having seen the samples,
        as far as confidence tells.

    Raises
    ------
    InputError
        ``CL-INPUT-FEW``: too few shadow models; ``CL-INPUT-LABELS``: sets that overlap.

    References
    ----------
    Hayes et al., "Inexact unlearning needs more careful evaluations to avoid a false sense of
    privacy", arXiv 2403.01218 (U-LiRA).

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> X, y = torch.eye(8), torch.arange(8) % 2
    >>> def train(samples, seed):  # a memory: the mean of what was seen, and nothing else
    ...     layer = nn.Linear(8, 2, bias=False)
    ...     layer.weight.data = 9 * nn.functional.one_hot(samples.y, 2).float().T @ samples.inputs
    ...     return layer
    >>> nothing = SimpleNamespace(unlearn=lambda model, **_: model)
    >>> model = train(as_samples((X, y)), 0)
    >>> u_lira(model, (X[:4], y[:4]), (X[4:], y[4:]), train, nothing, n_models=8).accuracy
    1.0
    """
    _check_number(n_models)
    if not callable(getattr(method, "unlearn", None)):
        raise InputError(
            "method must have unlearn(model, forget=, retain=), as the classes of `unlearning` "
            f"do, got {type(method).__name__}.",
            code="CL-INPUT-TYPE",
        )
    gone, kept = as_samples(forget, name="forget"), as_samples(retain, name="retain")
    check_same_kind(gone, kept)
    check_disjoint_samples(gone, kept)
    whole = concat(kept, gone, name="train")
    rng = numpy_generator(draw_seed(random_state))
    seen = np.arange(n_models) % 2 == 0
    found = []
    for was in track(
        seen, description="shadow models", total=n_models, progress=progress, unit="model"
    ):
        seed = int(rng.integers(2**31))
        shadow: Any = train(whole if was else kept, seed)
        if was:
            shadow = method.unlearn(shadow, forget=gone, retain=kept, progress=False)
        found.append(_confidences(getattr(shadow, "model", shadow), gone))
    member = np.repeat(seen[:, None], len(gone), axis=1)
    return _attack(_confidences(model, gone), np.stack(found), member)


def _check_number(n_models: int) -> None:
    if n_models < 2 * _FEW or n_models % 2:
        raise InputError(
            f"n_models must be even and at least {2 * _FEW}, got {n_models}: with fewer than "
            f"{_FEW} shadow models of each kind no spread can be told, and the attack would accuse "
            "by chance.",
            code="CL-INPUT-FEW",
        )


def _attack(target: np.ndarray, found: np.ndarray, member: np.ndarray) -> ShadowAttack:
    """Attack a model by shadow models, and each of these by the others."""
    inside, outside = np.where(member, found, np.nan), np.where(member, np.nan, found)
    scores = likelihood_ratio(target, inside, outside)
    called = np.stack(
        [
            _ratio(found[i], np.delete(inside, i, axis=0), np.delete(outside, i, axis=0)) > 0
            for i in range(len(found))
        ]
    )
    within, beyond = float(called[member].mean()), float(called[~member].mean())
    return ShadowAttack(
        scores,
        (within + 1 - beyond) / 2,
        within,
        beyond,
        int(member.sum(axis=0).min()),
        int((~member).sum(axis=0).min()),
    )


def _confidences(model: nn.Module, samples: Samples, batch_size: int = 512) -> np.ndarray:
    with borrowed(model), torch.no_grad():
        device = device_of(model)
        rows: Sequence[torch.Tensor] = [
            run_model(model, moved(x, device)).float().cpu() for x, _ in samples.batches(batch_size)
        ]
    found = scaled_confidence(torch.cat(list(rows)), samples.y)
    check_finite(found, "confidences of a shadow model")
    return found
