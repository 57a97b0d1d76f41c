"""The benchmarks of forgetting and of Fréchet distances, their parts for GPUs without one."""

import numpy as np
from torch import nn

from unlearning.bench import frechet, unlearning


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def test_methods_and_audit_are_timed():
    problem = unlearning._photos(True, 0, n=160, side=8, device="cpu", build=small)
    rows = unlearning._measure(problem, 0, quick=True)
    names = [row.name.removeprefix("ResNet-50: ") for row in rows]
    assert names[0] == "Retrain"
    assert names[-1] == "audit, two references"
    assert len(rows) == 21
    assert all(row.ours > 0 and row.ratio > 0 and row.met is None for row in rows)


def test_the_part_for_gpus_runs_without_one():
    (row,) = frechet._gpu(16, 100, 0, device="cpu")
    assert row.ours > 0
    assert row.peer is None or np.isfinite(row.ratio)
