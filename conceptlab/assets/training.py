"""What the training scripts share: seeds, the schedule, the log line, the command line."""

from __future__ import annotations

__all__ = ["cpu_minutes", "one_cycle", "run_script", "seeded", "show"]

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def run_script(
    arguments: list[str] | None,
    description: str | None,
    *,
    out: Path,
    seed: int,
    settings: Mapping[str, Any],
    train: Callable[..., Any],
    evaluate: Callable[[Any], dict[str, Any]],
    save: Callable[..., Any],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Train, measure, and write the bundle with its card, as the command line asks.

    Parameters
    ----------
    arguments : list of str or None
        Of the command line.
    description : str or None
        For its help.
    out : Path
        Where the bundle lies by default.
    seed : int
        The default.
    settings : mapping
        Of the training, ``"steps"`` among them.
    train, evaluate, save : callable
        ``train(seed=, steps=)`` gives a model, ``evaluate(model)`` figures, and
        ``save(model, out, figures, card)`` writes them.
    parents : sequence of ArgumentParser
        Of a script's own options, which it has read itself; for the help.
    """
    parser = argparse.ArgumentParser(description=description, parents=list(parents))
    parser.add_argument("--out", type=Path, default=out, help="folder to write")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--steps", type=int, default=settings["steps"])
    chosen = parser.parse_args(arguments)
    start = time.process_time()
    model = train(seed=chosen.seed, steps=chosen.steps)
    minutes = cpu_minutes(start)
    measured = evaluate(model)
    card = {
        "seed": chosen.seed,
        "cpu_minutes": minutes,
        "settings": {**settings, "steps": chosen.steps},
    }
    save(model, chosen.out, measured, card)
    show(json.dumps(measured, indent=2), quiet=False)
