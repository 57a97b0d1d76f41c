"""What a GPU gives: crops beside the bare forward pass, a large factorisation, many small codings.

Wall time, with the device synchronised before and after. The goals count on a CUDA
device only. Without one the same code runs on the CPU at a small size, so that it
is known to work, and the rows say so.
"""

from __future__ import annotations

__all__ = ["run"]

import time
from collections.abc import Callable
from typing import Any

import torch

from conceptlab.arrays import resolve_device
from conceptlab.bench import BenchResult, Row
from conceptlab.bench._workload import calibrated_resnet18, procedural_images
from conceptlab.extractors import CRAFT, NMFConcepts
from conceptlab.extractors.coding import nnls
from conceptlab.models import SplitModel

_LAYER, _PATCH = "layer4", 64


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure on the first CUDA device, or a small problem on the CPU.

    Parameters
    ----------
    quick : bool
        A small problem also on a GPU.
    seed : int
        Seed of images, matrices and starts.

    Returns
    -------
    BenchResult
    """
    device = resolve_device("auto")
    large = device.type == "cuda" and not quick
    note = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU here: the CPU"
    n_images, n_rows, width = (512, 1_000_000, 2048) if large else (2, 4000, 128)
    rows = _crop_rows(device, n_images, seed, note)
    rows += _factorisation_rows(device, n_rows, width, seed, note)
    settings = {
        "device": str(device),
        "images": n_images,
        "rows": n_rows,
        "width": width,
        "layer": _LAYER,
        "patch": _PATCH,
    }
    return BenchResult("gpu", rows, seed, settings)


def _wall(fn: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    """Take the best wall time of some runs, after one that is not counted."""
    best = float("inf")
    for number in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        fn()
        _wait(device)
        if number:
            best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _crop_rows(device: torch.device, n: int, seed: int, note: str) -> list[Row]:
    """Time the encoding of crops beside g alone on inputs that lie on the device."""
    images = procedural_images(n, seed=seed)
    model = calibrated_resnet18(images[:64], seed).to(device)
    per_image = len(range(0, images.shape[-1] - _PATCH + 1, int(0.8 * _PATCH))) ** 2
    rows = []
    # Processors without bfloat16 emulate it, many times slower.
    for precision in ("float32", "bfloat16") if device.type == "cuda" else ("float32",):
        split = SplitModel(model, _LAYER, precision=precision, channels_last=True, device=device)
        craft = CRAFT(split, 10, patch_size=_PATCH, depth=0, random_state=seed)
        fit = _wall(lambda craft=craft: craft.fit(images, target=None), device, repeats=2)  # type: ignore[misc]
        batch = images[: min(n, 64)].to(device)
        passes = -(-n * per_image // len(batch))

        def bare(split: SplitModel = split, batch: torch.Tensor = batch, m: int = passes) -> None:
            with torch.no_grad():
                for _ in range(m):
                    split.g(batch)

        seconds = _wall(bare, device, repeats=2)
        ours, peer = n * per_image / fit, passes * len(batch) / seconds
        goal = device.type == "cuda"
        rows.append(
            Row(
                f"crops, whole fit, {precision}",
                ours,
                peer,
                ours / peer,
                ">= 0.9 on a GPU",
                ours / peer >= 0.9 if goal else None,
                "crops/s",
                f"peer: the bare forward pass on ready inputs; {note}",
            )
        )
    return rows


def _factorisation_rows(
    device: torch.device, n: int, width: int, seed: int, note: str
) -> list[Row]:
    """Time a factorisation, beside its two matrix products, and exact coding."""
    generator = torch.Generator(device).manual_seed(seed)
    k = 32
    U = torch.rand(n, k, device=device, generator=generator).pow_(8)
    W = torch.rand(k, width, device=device, generator=generator).pow_(4)
    A = U @ W
    del U
    model = NMFConcepts(k, max_iter=50, tol=0.0, device=device, random_state=seed)
    seconds = _wall(lambda: model.fit(A), device, repeats=1)
    steps = int(model.n_iter_)

    def products() -> None:
        for _ in range(steps):
            code = A @ W.T
            code.T @ A

    peer = _wall(products, device, repeats=1)
    rows = [
        Row(
            f"factorisation of {n} x {width}, {steps} steps",
            seconds,
            peer,
            peer / seconds,
            unit="s",
            note=f"peer: as many times the two products with A that a step needs; {note}",
        )
    ]
    small = torch.rand(n, 16, device=device, generator=generator)
    basis = torch.rand(8, 16, device=device, generator=generator)
    coding = _wall(lambda: nnls(small, basis), device)
    rows.append(
        Row("exact coding of small problems (8 x 16)", n / coding, None, unit="rows/s", note=note)
    )
    return rows
