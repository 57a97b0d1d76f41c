"""Benchmarks: us beside the peer, in one run, with the goal and whether it is met.

``python -m conceptlab.bench NAME [--quick] [--json]`` runs one of them.
"""

from __future__ import annotations

__all__ = ["BenchResult", "Row", "cpu_time"]

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes
    ----------
    name : str
        What was measured.
    ours, peer : float or None
        Our figure and the peer's, in `unit`.
    ratio : float, optional
        The figure that the goal speaks of, as ``goal`` states it.
    goal : str
        In words, such as ``">= 4"``; empty where there is none.
    met : bool or None
        Whether the goal is reached; None where there is none.
    unit : str
        Unit of `ours` and `peer`.
    note : str
        What the peer is, or why the goal is missed.

    Examples
    --------
    >>> Row("fit", ours=1.0, peer=4.0, ratio=4.0, goal=">= 2", met=True).unit
    'CPU s'
    """

    name: str
    ours: float | None
    peer: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    unit: str = "CPU s"
    note: str = ""


@dataclass
class BenchResult:
    """All rows of one benchmark with what it needs to be run again.

    Attributes
    ----------
    name : str
        Name of the benchmark.
    rows : list of Row
        What was measured.
    seed : int
        Seed of everything random in it.
    settings : dict
        Sizes of the problem.
    provenance : dict
        Versions and machine; filled in by the command line.
    seconds : float
        Wall time of the whole; filled in by the command line.

    Examples
    --------
    >>> result = BenchResult("nmf", [Row("fit", ours=1.0, peer=4.0)], seed=0)
    >>> result.to_dict()["rows"][0]["peer"]
    4.0
    """

    name: str
    rows: list[Row]
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give the result as JSON values."""
        return asdict(self)


def cpu_time(fn: Callable[[], T], *, repeats: int = 3, threads: int = 1) -> tuple[float, T]:
    """Take the best CPU time (all threads of this process) of some runs of `fn`.

    CPU time instead of wall time, and one torch thread, so that a busy machine
    changes the figure little.

    Parameters
    ----------
    fn : callable
        Without arguments.
    repeats : int
        How often it is run; the least time counts.
    threads : int
        Number of torch threads during the runs; restored after.

    Returns
    -------
    seconds : float
    value : object
        What the last run returned.

    Examples
    --------
    >>> seconds, value = cpu_time(lambda: sum(range(10)), repeats=1)
    >>> value, seconds >= 0
    (45, True)
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        best = float("inf")
        for _ in range(max(1, repeats)):
            start = time.process_time()
            value = fn()
            best = min(best, time.process_time() - start)
        return best, value
    finally:
        torch.set_num_threads(before)
