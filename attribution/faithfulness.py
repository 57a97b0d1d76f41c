"""Is an explanation true to the model? Deletion, insertion, agreement, sparsity in one call."""

from __future__ import annotations

__all__ = ["faithfulness", "gini", "hoyer"]

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attribution.faithfulness_report import METRICS, Curve, FaithfulnessReport, area
from conceptlab.arrays import ArrayLike, as_floats, as_tensor, check_finite
from conceptlab.batching import AutoInt
from conceptlab.errors import InputError, unknown_name
from conceptlab.importance.evaluate import Evaluator, check_coefficients, resolve_target
from conceptlab.importance.probing import depends_on_mean
from conceptlab.importance.remainder import rest_of
from conceptlab.parameters import Real, Whole
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, numpy_generator, torch_generator

_ORDERS = ("global", "local")


def faithfulness(
    fn: Callable[[torch.Tensor], Any],
    U: Any,
    importance: Any,
    *,
    target: Any = None,
    logits: Any = None,
    activations: Any = None,
    order: str = "global",
    metric: str = "probability",
    n_random: int = 100,
    n_bootstrap: int = 500,
    confidence: float = 0.95,
    batch_size: AutoInt = "auto",
    random_state: RandomState = None,
    progress: Progress = None,
    remainder: str = "drop",
) -> FaithfulnessReport:
    """Measure how faithful concepts and their ranking are to a model.

    Parameters
    ----------
    fn : callable
        Maps coefficients (m, *positions, k) to outputs (m, n_outputs), such as
        :class:`~conceptlab.importance.HeadOnCoefficients`.
    U : array-like of shape (n, k) or (n, *positions, k)
        Coefficients of n images.
    importance : Importance, or array-like of shape (k,) or (n, k)
        Ranks the concepts, the greatest first.
    target : int, sequence of int, "predicted" or None
        The output that is followed, as for
        :class:`~conceptlab.importance.SobolImportance`.
    logits : array-like of shape (n, n_outputs), optional
        The model's own outputs f(x), for the agreement of h(U W) with f.
    activations : array-like of shape (n, *positions, p), optional
        The true activations, channels last, for the reconstruction error; `fn`
        then needs a method ``decode`` as ``HeadOnCoefficients`` has.
    order : {"global", "local"}
        Rank by the mean over the images, or image by image.
    metric : {"probability", "logit", "accuracy"}
        Which measure the report's headline figures speak of. All are computed:
        softmax probability of the target (sigmoid for a single output), the
        output itself, and whether the target is the largest output.
    n_random : int
        Random orders for the control; half of them are the reverses of the others. A p-value
        is never below 1 / (n_random + 1).
    n_bootstrap : int
        Resamples of the images for the intervals.
    confidence : float
        Level of the intervals.
    batch_size : int or "auto"
        Rows of coefficients in one call of `fn`.
    random_state : int, RandomState, Generator or None
        Seed of random orders and resamples.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.
    remainder : {"drop", "hold", "player"}
        What becomes of the part of the activations that the concepts do not code; see
        :mod:`conceptlab.importance.remainder`. With ``"hold"`` deletion starts from the model's
        own output whatever the extractor, with ``"player"`` (the rest is taken away in its turn,
        by ``importance.rest``) both ends are the same for all extractors, so that their curves
        can be compared; with ``"drop"`` they start where h(U W) and the offset lie.

    Returns
    -------
    FaithfulnessReport

    Raises
    ------
    InputError
        Arrays, a target or options that do not fit.

    Notes
    -----
    Deletion zeroes concepts one after another in U, insertion restores them
    from none, and the curve's area (over the share of concepts) is lower or
    higher the better the ranking (Fel et al., *CRAFT*, 2023, section 4.2, after
    Petsiuk et al., 2018). Areas mean little alone, hence the controls: random
    orders and the reverse. Insertion of an order is deletion of its reverse read
    backwards, so one set of masks gives both.

    Importance without sign ranks a concept that speaks against the target as
    high as one that speaks for it; rank by ``importance.signed`` to take the
    supporting ones out first.

    Examples
    --------
    >>> import torch
    >>> weights = torch.tensor([[4.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).T
    >>> report = faithfulness(lambda u: u @ weights, torch.ones(8, 4), [4, 2, 1, 0],
    ...                       target=0, random_state=0)
    >>> report.deletion_auc < report.deletion_auc_random < report.deletion_auc_reverse
    True
    """
    if order not in _ORDERS:
        raise unknown_name("order", order, _ORDERS)
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    Whole(1).check("n_random", n_random)
    Whole(1).check("n_bootstrap", n_bootstrap)
    Real(above=0, below=1).check("confidence", confidence)
    U = check_coefficients(U)
    rest = rest_of(fn, U, activations, remainder)
    n, k = len(U), U.shape[-1] + (remainder == "player")
    scores, means = _scores(importance, n, k, order)
    seed = draw_seed(random_state)
    evaluate = Evaluator(fn, batch_size)
    full = evaluate(U, rest)
    chosen = resolve_target(target, full, n)
    pooled = depends_on_mean(evaluate, U, full, torch_generator(seed), rest)
    codes, left = (U, rest) if pooled is None else pooled

    ranks = np.argsort(-scores, axis=1, kind="stable")
    generator = numpy_generator(seed)
    half = (n_random + 1) // 2
    shared = np.array([generator.permutation(k) for _ in range(half)])
    shared = np.concatenate([shared, shared[:, ::-1]])
    measures = np.empty((n, 2 + 2 * half, k + 1, len(METRICS)))
    for i in track(range(n), description="delete concepts", progress=progress, unit="image"):
        orders = np.concatenate([ranks[i : i + 1], ranks[i : i + 1, ::-1], shared])
        kept = None if left is None else left[i]
        measures[i] = _follow(evaluate, codes[i], orders, int(chosen[i]), kept)
    weights = generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n
    levels = ((1 - confidence) / 2, (1 + confidence) / 2)
    random = np.arange(2, 2 + 2 * half)
    curves: dict[str, dict[str, Curve]] = {"deletion": {}, "insertion": {}}
    for j, name in enumerate(METRICS):
        removed = measures[..., j]
        # Insertion of an order is deletion of its reverse, read from the end.
        restored = removed[:, [1, 0, *np.roll(random, half)[:n_random]], ::-1]
        removed = removed[:, [0, 1, *random[:n_random]]]
        curves["deletion"][name] = _curve(removed, weights, levels)
        curves["insertion"][name] = _curve(restored, weights, levels)
    return FaithfulnessReport(
        curves=curves,
        metric=metric,
        order=order,
        gini=gini(means),
        hoyer=hoyer(U),
        **_agreement(full if rest is None else evaluate(U), logits),
        reconstruction_error=_reconstruction(fn, U, activations),
        n_images=n,
        n_concepts=k,
        n_random=int(n_random),
        n_evaluations=evaluate.n_evaluations,
        confidence=float(confidence),
        seed=seed,
    )


def gini(values: ArrayLike) -> float:
    """Give the Gini coefficient of absolute values.

    Parameters
    ----------
    values : array-like of shape (k,)
        Their signs do not count.

    Returns
    -------
    float
        0 when all are equal, (k - 1) / k when one has all, and 0 when all are zero.

    Examples
    --------
    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 1])
    (0.0, 0.75)
    """
    sizes = np.sort(abs(as_floats(values, "values")).ravel())
    check_finite(sizes, "values")
    total, k = sizes.sum(), len(sizes)
    if not total > 0:
        return 0.0
    return float((2 * np.arange(1, k + 1) - k - 1) @ sizes / (k * total))


def hoyer(U: ArrayLike) -> float:
    """Give the mean Hoyer sparsity of rows.

    (sqrt(k) - |u|_1 / |u|_2) / (sqrt(k) - 1) for each row that is not zero: 0
    when all entries are equal, 1 when one is not zero (Hoyer, 2004).

    Parameters
    ----------
    U : array-like of shape (..., k)
        Such as coefficients.

    Returns
    -------
    float
        In [0, 1], never NaN: 0 for one concept or where all rows are zero.

    Examples
    --------
    >>> hoyer([[0.0, 3.0], [0.0, 0.0]])
    1.0
    """
    given = as_tensor(U, name="U")
    if not given.ndim:
        raise InputError("U must hold rows of numbers, got a single one.", code="CL-INPUT-RANK")
    check_finite(given, "U")
    rows = given.double().reshape(-1, given.shape[-1]).abs()
    k = rows.shape[1]
    lengths = rows.norm(dim=1)
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    if not len(rows) or k == 1:
        return 0.0
    root = k**0.5
    return float(((root - rows.sum(1) / lengths) / (root - 1)).mean())


def _scores(importance: Any, n: int, k: int, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Give what ranks the concepts of each image (n, k), and the global importances (k,)."""
    held = getattr(importance, "values", importance)
    rest = getattr(importance, "rest", None)
    if rest is not None and held.shape[-1] == k - 1:
        held = np.column_stack([held, rest])
    # A tensor has a method of that name.
    values = as_floats(importance if callable(held) else held, "importance")
    if values.shape not in ((k,), (n, k)):
        raise InputError(
            f"importance must have shape ({k},) or ({n}, {k}) to fit U, got {values.shape}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(values, "importance")
    means = values if values.ndim == 1 else values.mean(0)
    if order == "local" and values.ndim == 1:
        raise InputError(
            f"order='local' needs importances of shape ({n}, {k}), got {values.shape}.",
            code="CL-INPUT-SHAPE",
        )
    return (values if order == "local" else np.broadcast_to(means, (n, k))), means


def _follow(
    evaluate: Evaluator,
    U_i: torch.Tensor,
    orders: np.ndarray,
    target: int,
    rest: torch.Tensor | None,
) -> np.ndarray:
    """Remove the concepts of one image in several orders: (n_orders, k + 1, n_metrics)."""
    n_orders, k = orders.shape
    place = np.empty_like(orders)
    np.put_along_axis(place, orders, np.arange(k)[None], axis=1)
    # After j steps those that stand at place j or later are left.
    masks = place[:, None, :] >= np.arange(k + 1)[None, :, None]
    unique, where = np.unique(masks.reshape(-1, k), axis=0, return_inverse=True)
    outputs = evaluate.masked(U_i, torch.from_numpy(unique).to(U_i), rest=rest)
    logit = outputs[:, target]
    if outputs.shape[1] == 1:
        probability, right = logit.sigmoid(), logit > 0
    else:
        probability = outputs.softmax(1)[:, target]
        right = outputs.argmax(1) == target
    columns = {"probability": probability, "logit": logit, "accuracy": right.double()}
    found = torch.stack([columns[name] for name in METRICS], dim=1).numpy()
    return np.asarray(found[where.ravel()].reshape(n_orders, k + 1, len(METRICS)))


def _curve(values: np.ndarray, weights: np.ndarray, levels: tuple[float, float]) -> Curve:
    """Summarise (n, 2 + n_random, k + 1): importance, reverse, random orders."""
    means = values.mean(0)
    drawn = weights @ values[:, 0]
    return Curve(
        importance=means[0],
        interval=np.ascontiguousarray(np.quantile(drawn, levels, axis=0).T),
        reverse=means[1],
        random=means[2:],
        auc_interval=np.quantile(area(drawn), levels),
    )


def _agreement(full: torch.Tensor, logits: ArrayLike) -> dict[str, float | None]:
    """Compare h(U W) with f: same class, divergence, share of the logits' variance."""
    if logits is None:
        return {"agreement": None, "kl": None, "logit_r2": None}
    true = as_tensor(logits).detach().to("cpu", torch.float64)
    if true.ndim == 1:
        true = true[:, None]
    if true.shape != full.shape:
        raise InputError(
            f"logits must have the shape of fn(U), {tuple(full.shape)}, got {tuple(true.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    check_finite(true, "logits")
    if full.shape[1] == 1:
        both = [torch.cat([z, torch.zeros_like(z)], 1) for z in (true, full)]
    else:
        both = [true, full]
    p, q = (z.log_softmax(1) for z in both)
    spread = float((true - true.mean(0)).square().sum())
    rest = float((true - full).square().sum())
    return {
        "agreement": float((both[0].argmax(1) == both[1].argmax(1)).double().mean()),
        "kl": float((p.exp() * (p - q)).sum(1).mean()),
        "logit_r2": 1 - rest / spread if spread > 0 else (1.0 if rest == 0 else 0.0),
    }


def _reconstruction(fn: Any, U: torch.Tensor, activations: ArrayLike) -> float | None:
    if activations is None:
        return None
    if not hasattr(fn, "decode"):
        raise InputError(
            "The reconstruction error needs fn.decode(U), which HeadOnCoefficients has; got "
            f"{type(fn).__name__}. Leave out activations to go without.",
            code="CL-INPUT-TYPE",
        )
    true = as_tensor(activations).detach()
    check_finite(true, "activations")
    rest = size = 0.0
    for start in range(0, len(U), 64):
        with torch.no_grad():
            decoded = fn.decode(U[start : start + 64])
        part = true[start : start + 64].to(decoded)
        if part.shape != decoded.shape:
            raise InputError(
                f"activations must have shape (n, *positions, p) = "
                f"{(len(U), *decoded.shape[1:])}, got {tuple(true.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        rest += float((part - decoded).double().square().sum())
        size += float(part.double().square().sum())
    return float((rest / size) ** 0.5) if size > 0 else 0.0
