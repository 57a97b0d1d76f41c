"""How fast scenes are drawn, on one core."""

from __future__ import annotations

__all__ = ["run"]

from conceptlab.bench import BenchResult, Row, cpu_time
from conceptlab.datasets import load_scenes

GOAL = 2000.0


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure images a second for drawing, masks and counterfactuals.

    Parameters
    ----------
    quick : bool
        512 scenes instead of 4096.
    seed : int

    Returns
    -------
    BenchResult
    """
    n = 512 if quick else 4096
    load_scenes("train", 64, seed=seed).pixels  # noqa: B018 - fills the cache of noise fields
    scenes = load_scenes("train", n, seed=seed)
    jobs = {
        "layout and images (bytes)": lambda: load_scenes("train", n, seed=seed).pixels,
        "layout and images (float32)": lambda: load_scenes("train", n, seed=seed).images,
        "masks": lambda: load_scenes("train", n, seed=seed).masks,
        "without object 0": lambda: scenes.without(0),
        "captions": lambda: load_scenes("train", n, seed=seed).captions,
    }
    rows = []
    for name, job in jobs.items():
        seconds, _ = cpu_time(job, repeats=3)
        speed = n / seconds
        goal = name.startswith("layout")
        rows.append(
            Row(
                name,
                ours=round(speed, 0),
                goal=f">= {GOAL:.0f}" if goal else "",
                met=speed >= GOAL if goal else None,
                unit="images/CPU s",
            )
        )
    return BenchResult("scenes", rows, seed, {"n": n, "size": 64})
