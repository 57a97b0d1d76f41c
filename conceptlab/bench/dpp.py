"""Determinantal selection of 50 from 500 concepts beside the loop that inverts at every step.

The peer is the published loop, implemented here from its description: in every
step the kernel of the chosen is inverted anew for each block of 64 remaining
items, to get their conditional variances. Both get the same first item, since
with equal qualities the formula leaves it to rounding.
"""

from __future__ import annotations

__all__ = ["run"]

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
    settings = {"candidates": n, "select": n_select, "d": d, "classes": count, "jitter": _JITTER}
    return BenchResult("dpp", rows, seed, settings)
