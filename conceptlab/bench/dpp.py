"""Determinantal selection of 50 from 500 concepts beside three peers.

The first is the published loop of the zero-shot classifier, implemented here from its
description: in every step the kernel of the chosen is inverted anew for each block of 64
remaining items, to get their conditional variances. The second is Algorithm 1 of Chen, Zhang and
Zhou (2018) on the whole kernel. These get the same first item as ours, since with equal qualities
the formula leaves it to rounding. The third is submodlib (``pip install submodlib-py``), where it
is installed.
"""

from __future__ import annotations

__all__ = ["run"]

import importlib.util
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from conceptlab.bench import BenchResult, Row, cpu_time
from conceptlab.vocabulary.dpp import DPPSelector

_BLOCK, _JITTER = 64, 1e-5


def inverse_based(E: np.ndarray, n_select: int, first: int, *, block: int = _BLOCK) -> np.ndarray:
    """Choose greedily, with a fresh inverse for every block of candidates in every step.

    Parameters
    ----------
    E : ndarray of shape (n, d)
        Unit rows.
    n_select : int
        Items to choose.
    first : int
        The first item.
    block : int
        Candidates handled together.

    Returns
    -------
    ndarray of shape (n_select,), int64
    """
    chosen = [first]
    remaining = [i for i in range(len(E)) if i != first]
    while len(chosen) < n_select:
        best, best_variance = -1, -np.inf
        for start in range(0, len(remaining), block):
            part = np.array(remaining[start : start + block])
            kernel = E[chosen] @ E[chosen].T + _JITTER * np.eye(len(chosen), dtype=E.dtype)
            inverse = np.linalg.inv(kernel)
            cross = E[part] @ E[chosen].T
            own = (E[part] * E[part]).sum(axis=1)
            variance = own - ((cross @ inverse) * cross).sum(axis=1)
            place = int(variance.argmax())
            if variance[place] > best_variance:
                best, best_variance = int(part[place]), float(variance[place])
        chosen.append(best)
        remaining.remove(best)
    return np.array(chosen, dtype=np.int64)


def fast_greedy(E: np.ndarray, n_select: int, first: int) -> np.ndarray:
    """Choose greedily by Algorithm 1 of Chen et al. (2018), from the whole kernel.

    Parameters
    ----------
    E : ndarray of shape (n, d)
        Unit rows.
    n_select : int
        Items to choose.
    first : int
        The first item.

    Returns
    -------
    ndarray of shape (n_select,), int64
    """
    kernel = E @ E.T
    kernel[np.diag_indices(len(E))] += _JITTER
    rows = np.zeros((n_select, len(E)), dtype=E.dtype)
    variance = np.diag(kernel).copy()
    chosen = [first]
    while len(chosen) < n_select:
        k, j = len(chosen) - 1, chosen[-1]
        rows[k] = (kernel[j] - rows[:k, j] @ rows[:k]) / np.sqrt(variance[j])
        variance -= rows[k] ** 2
        variance[j] = -np.inf
        chosen.append(int(variance.argmax()))
    return np.array(chosen, dtype=np.int64)


def by_submodlib(E: np.ndarray, n_select: int) -> tuple[Any, Any]:
    """Give functions that build submodlib's objective, and that maximise it."""
    from submodlib import LogDeterminantFunction  # type: ignore[import-not-found]

    def build() -> Any:
        return LogDeterminantFunction(
            n=len(E), mode="dense", lambdaVal=_JITTER, sijs=(E @ E.T).astype(np.float64)
        )

    def maximise(objective: Any) -> np.ndarray:
        found = objective.maximize(
            budget=n_select,
            optimizer="NaiveGreedy",
            stopIfZeroGain=False,
            stopIfNegativeGain=False,
            show_progress=False,
        )
        return np.array([item for item, _ in found], dtype=np.int64)

    return build, maximise


def log_det(E: np.ndarray, chosen: np.ndarray) -> float:
    """Give the logarithm of the determinant of the kernel of some items."""
    part = E[chosen]
    return float(np.linalg.slogdet(part @ part.T + _JITTER * np.eye(len(chosen)))[1])


def candidates(n: int, d: int, seed: int) -> np.ndarray:
    """Make unit rows that look like texts composed of three from 50 atomic concepts."""
    rng = np.random.default_rng(seed)
    shared, atoms = rng.normal(size=d), rng.normal(size=(50, d))
    rows = np.stack([atoms[rng.choice(50, 3, replace=False)].sum(axis=0) for _ in range(n)])
    rows += 2.0 * shared + 0.3 * rng.normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure the time of a class and compare the picks.

    Parameters
    ----------
    quick : bool
        Two classes instead of twenty.
    seed : int
        Seed of the candidates.

    Returns
    -------
    BenchResult
    """
    # NumPy's BLAS has threads of its own, which on a busy machine only wait for each other.
    with threadpool_limits(1):
        return _run(2 if quick else 20, seed)


def _run(n_classes: int, seed: int) -> BenchResult:
    n, d, n_select = 500, 512, 50
    classes = [candidates(n, d, seed + i) for i in range(n_classes)]
    selector = DPPSelector(n_select, start="central", jitter=_JITTER)
    selector.fit(classes[0])  # first use loads libraries

    def all_of_ours(banks: list[np.ndarray]) -> list[np.ndarray]:
        return [selector.fit(E).selected_ for E in banks]

    ours, picks = cpu_time(lambda: all_of_ours(classes), repeats=5)
    peer, expected = cpu_time(
        lambda: [inverse_based(E, n_select, p[0]) for E, p in zip(classes, picks, strict=True)],
        repeats=2,
    )
    count = len(classes)
    ratio = peer / ours
    same = float(np.mean([np.array_equal(a, b) for a, b in zip(picks, expected, strict=True)]))
    rows = [
        Row(
            "greedy, one class, float64",
            ours / count,
            peer / count,
            ratio,
            ">= 20",
            ratio >= 20,
            note="peer inverts for every block of 64 in every step",
        ),
        Row(
            "classes with the same picks in the same order",
            same,
            1.0,
            same,
            "= 1",
            same == 1.0,
            unit="share",
        ),
    ]
    single = [E.astype(np.float32) for E in classes]
    ours32, picks32 = cpu_time(lambda: all_of_ours(single), repeats=3)
    peer32, _ = cpu_time(
        lambda: [inverse_based(E, n_select, p[0]) for E, p in zip(single, picks32, strict=True)],
        repeats=1,
    )
    rows.append(
        Row(
            "greedy, one class, float32 in",
            ours32 / count,
            peer32 / count,
            peer32 / ours32,
            note="ours computes in float64 all the same",
        )
    )
    swaps = DPPSelector(n_select, jitter=_JITTER, exchange=True)
    swapped, gains = cpu_time(
        lambda: [swaps.fit(E).log_det_ - float(swaps.gains_.sum()) for E in classes], repeats=1
    )
    rows.append(
        Row(
            "greedy and exchanges, one class",
            swapped / count,
            None,
            note=f"raises log det by {np.mean(gains):.3f} on average",
        )
    )
    rows += _beside_fast_greedy(classes, picks, ours)
    settings = {"candidates": n, "select": n_select, "d": d, "classes": count, "jitter": _JITTER}
    return BenchResult("dpp", rows, seed, settings)


def _beside_fast_greedy(
    classes: list[np.ndarray], picks: list[np.ndarray], ours: float
) -> list[Row]:
    """Compare with Algorithm 1 on the whole kernel, and with submodlib."""
    count, n_select = len(classes), len(picks[0])
    fast, found = cpu_time(
        lambda: [fast_greedy(E, n_select, p[0]) for E, p in zip(classes, picks, strict=True)],
        repeats=5,
    )
    same = float(np.mean([np.array_equal(a, b) for a, b in zip(found, picks, strict=True)]))
    default = DPPSelector(n_select, jitter=_JITTER)
    several, wide = cpu_time(lambda: [default.fit(E).log_det_ for E in classes], repeats=3)
    plain = [log_det(E, p) for E, p in zip(classes, picks, strict=True)]
    gain = float(np.mean(np.array(wide) - plain))
    rows = [
        Row(
            "greedy, beside the fast greedy of Chen et al.",
            ours / count,
            fast / count,
            ours / fast,
            "<= 0.9",
            ours <= 0.9 * fast,
            note=f"peer makes the whole kernel; the same picks in {same:.0%} of the classes",
        ),
        Row(
            "the default, several starts, beside the same",
            several / count,
            fast / count,
            several / fast,
            note=f"log det {gain:+.3f} above that of one start",
        ),
    ]
    name = "greedy, beside submodlib"
    if importlib.util.find_spec("submodlib") is None:
        return [
            *rows,
            Row(name, None, note="not measured: submodlib is not installed", goal="<= 0.9"),
        ]
    E, step = classes[0], by_submodlib(classes[0], n_select)
    made, objective = cpu_time(step[0], repeats=1)
    alone, chosen = cpu_time(lambda: step[1](objective), repeats=1)
    lead = plain[0] - log_det(E, chosen)
    rows.append(
        Row(
            name,
            ours / count,
            made + alone,
            ours / count / (made + alone),
            "<= 0.9",
            ours / count <= 0.9 * (made + alone),
            note=f"of the peer's time {made:.3f} s hand the kernel over; log det of ours "
            f"{lead:+.3f} above the peer's",
        )
    )
    return rows
