"""What both training scripts share: seeds, the schedule, the log line."""

from __future__ import annotations

__all__ = ["cpu_minutes", "one_cycle", "seeded", "show"]

import contextlib
import math
import sys
import time
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with one torch thread and a fixed global seed, both restored after.

    Initialisers draw from torch's global generator, so it is forked here.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def one_cycle(step: int, steps: int, peak: float, warm: float = 0.1) -> float:
    """Give the learning rate: up in a line, down along a cosine."""
    at = (step + 1) / steps
    if at < warm:
        return peak * at / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (at - warm) / (1 - warm)))


def cpu_minutes(start: float) -> float:
    """Give the minutes of CPU time since ``time.process_time()`` was `start`."""
    return round((time.process_time() - start) / 60, 2)


def show(text: str, *, quiet: bool) -> None:
    """Write a line of the log."""
    if not quiet:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
