"""Features to FID beside torch-fidelity and torchmetrics, and U-IDS beside one SVM fit.

Times go from float32 features to the distance: statistics and square root. The peers'
own functions are used; without them the rows have no peer.
"""

from __future__ import annotations

__all__ = ["run"]

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from conceptlab.bench import BenchResult, Row, cpu_time
from unlearning.distances.fid import frechet_distance
from unlearning.distances.ids import u_ids
from unlearning.distances.kernels import kid


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Make non-negative features with a decaying spectrum, float32 (n, d)."""
    rng = np.random.default_rng(seed)
    rank = min(d, 256)
    mixing = np.random.default_rng(7).normal(size=(rank, d)) / np.arange(1, rank + 1)[:, None]
    rows = rng.normal(size=(n, rank)) @ mixing + 0.3 * rng.normal(size=(n, d)) + 0.4
    return np.maximum(rows, 0).astype(np.float32)


def fidelity(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute FID by torch-fidelity's own functions."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    first, second = (fid_features_to_statistics(torch.from_numpy(F)) for F in (X, Y))
    found: dict[str, Any] = fid_statistics_to_metric(first, second, False)
    return float(found["frechet_inception_distance"])


def fidelity_exact_means(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute FID by torch-fidelity's own functions, but with means summed in float64.

    It averages features in their own precision. In float32 that moves a mean over 5000 rows
    by up to 5e-5, which is where it differs from others in the sixth digit.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    first, second = (
        {**fid_features_to_statistics(torch.from_numpy(F)), "mu": F.mean(0, dtype=np.float64)}
        for F in (X, Y)
    )
    found: dict[str, Any] = fid_statistics_to_metric(first, second, False)
    return float(found["frechet_inception_distance"])


def metrics(X: Any, Y: Any, device: str = "cpu") -> float:
    """Compute FID by torchmetrics, with features in place of images."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Plain(torch.nn.Module):
        """Give the features back."""

        num_features = X.shape[1]

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            """Give the features back."""
            return batch

    metric = FrechetInceptionDistance(feature=Plain(), normalize=False).to(device)
    metric.set_dtype(torch.float64)
    metric.update(torch.as_tensor(X).to(device), real=True)
    metric.update(torch.as_tensor(Y).to(device), real=False)
    return float(metric.compute())


PEERS: dict[str, tuple[Callable[..., float], dict[str, float]]] = {
    "torch-fidelity": (fidelity, {"large": 0.55, "small": 0.05}),
    "torchmetrics": (metrics, {"large": 0.45, "small": 0.05}),
}


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure times and agreement.

    Parameters
    ----------
    quick : bool
        d = 256 in place of 2048, and a tenth of the rows.
    seed : int
        Of the features.

    Returns
    -------
    BenchResult
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        return _run(quick, seed)


def _run(quick: bool, seed: int) -> BenchResult:
    d = 256 if quick else 2048
    sizes = {"large": 625 if quick else 5000, "small": 62 if quick else 500}
    rows: list[Row] = []
    for size, n in sizes.items():
        X, Y = features(n, d, seed), features(n, d, seed + 1) + np.float32(0.01)
        ours, value = cpu_time(partial(frechet_distance, X, Y), repeats=3)
        for name, (peer, goals) in PEERS.items():
            try:
                taken, other = cpu_time(partial(peer, X, Y), repeats=2)
            except ImportError:
                rows.append(Row(f"FID, n = {n}, d = {d}", ours, None, note=f"{name} is missing"))
                continue
            ratio, goal = ours / taken, goals[size]
            rows.append(
                Row(
                    f"FID, n = {n}, d = {d}",
                    ours,
                    taken,
                    ratio,
                    f"<= {goal}",
                    ratio <= goal,
                    note=name,
                )
            )
            if size == "large":
                exact = peer(X.astype(np.float64), Y.astype(np.float64))
                gap, single = (abs(v - value) / value for v in (exact, other))
                rows += [
                    Row(
                        "relative difference, float64 features",
                        gap,
                        None,
                        gap,
                        "<= 2e-6",
                        gap <= 2e-6,
                        unit="",
                        note=name,
                    ),
                    Row("relative difference, float32 features", single, None, unit="", note=name),
                ]
                if name == "torch-fidelity":
                    gap = abs(fidelity_exact_means(X, Y) - value) / value
                    rows.append(
                        Row(
                            "relative difference, float32 features",
                            gap,
                            None,
                            gap,
                            "<= 2e-6",
                            gap <= 2e-6,
                            unit="",
                            note=f"{name}, its means summed in float64",
                        )
                    )
        if size == "large":
            rows += _others(X, Y)
    rows += _gpu(d, sizes["large"], seed)
    if quick:  # goals are of the full size
        rows = [replace(row, goal="", met=None) for row in rows]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return BenchResult("frechet", rows, seed, {"d": d, **sizes, "gpu": gpu})


def _others(X: np.ndarray, Y: np.ndarray) -> list[Row]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    labels = np.r_[np.ones(len(X)), np.zeros(len(Y))]

    def fit() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LinearSVC(dual=False).fit(np.concatenate([X, Y]), labels)

    ours, _ = cpu_time(lambda: u_ids(X, Y), repeats=2)
    peer, _ = cpu_time(fit, repeats=1)
    ratio = ours / peer
    alone, _ = cpu_time(lambda: kid(X, Y), repeats=1)
    return [
        Row(
            "unbiased U-IDS",
            ours,
            peer,
            ratio,
            "<= 0.4",
            ratio <= 0.4,
            note="peer is one LinearSVC fit, which in-sample U-IDS needs",
        ),
        Row("KID, all pairs", alone, None),
    ]


def _gpu(d: int, n: int, seed: int, device: str = "cuda") -> list[Row]:
    if device == "cuda" and not torch.cuda.is_available():
        return []
    import time

    X, Y = (torch.from_numpy(features(n, d, seed + i)).to(device) for i in (0, 1))

    def wait() -> None:
        if X.is_cuda:
            torch.cuda.synchronize(X.device)

    def timed(fn: Callable[[], float]) -> tuple[float, float]:
        fn()
        wait()
        start = time.perf_counter()
        value = fn()
        wait()
        return time.perf_counter() - start, value

    ours, value = timed(lambda: frechet_distance(X, Y))
    try:
        peer, other = timed(lambda: metrics(X, Y, device))
    except ImportError:
        return [Row("FID on the GPU", ours, None, unit="s", note="torchmetrics is missing")]
    note = f"torchmetrics on the GPU; relative difference {abs(other - value) / value:.1e}"
    return [Row("FID on the GPU", ours, peer, ours / peer, unit="s", note=note)]
