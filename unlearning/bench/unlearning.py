"""What each method of forgetting a class costs beside retraining, and what an audit costs.

Everything runs on one thread, in one process, one after the other; figures are CPU time. With a
CUDA device the same ratios follow for a ResNet-50 at batches of 256, in wall time.
"""

from __future__ import annotations

__all__ = ["run"]

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from conceptlab.bench import BenchResult, Row
from unlearning.bench.recipes import scrub_recipe, ssd_recipe
from unlearning.classes.base import Unlearner
from unlearning.data import Samples, as_samples, quiet_randomness, split_classes
from unlearning.heads import features_and_logits, find_head

_GOAL, _AUDIT_GOAL = 0.3, 0.5


@dataclass
class _Problem:
    """A classifier that knows all classes, and what it was trained on."""

    name: str
    build: Callable[[], nn.Module]
    train: Samples
    test: Samples
    epochs: int
    batch_size: int
    device: torch.device
    lr: float = 0.05
    solved_head: bool = False


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure the methods and the audit.

    Parameters
    ----------
    quick : bool
        Few epochs, and on a GPU few images.
    seed : int
        Of weights, splits and methods.

    Returns
    -------
    BenchResult
        Ratios of each method's time to that of retraining.
    """
    problem = _digits(quick, seed)
    rows = _measure(problem, seed, quick)
    settings: dict[str, Any] = {
        "data": problem.name,
        "train": len(problem.train),
        "epochs": problem.epochs,
        "gpu": "none",
    }
    if torch.cuda.is_available():
        large = _photos(quick, seed)
        rows += _measure(large, seed, quick)
        settings["gpu"] = torch.cuda.get_device_name()
    return BenchResult("unlearning", rows, seed, settings)


def _digits(quick: bool, seed: int) -> _Problem:
    images, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    X = torch.from_numpy(images.reshape(-1, 1, 8, 8) / 16).float()[order]
    labels = torch.from_numpy(y)[order]
    return _Problem(
        "digits",
        _small_net,
        as_samples((X[:1078], labels[:1078]), name="train"),
        as_samples((X[1078:], labels[1078:]), name="test"),
        2 if quick else 15,
        64,
        torch.device("cpu"),
    )


def _photos(
    quick: bool,
    seed: int,
    *,
    n: int = 0,
    side: int = 64,
    device: str = "cuda",
    build: Callable[[], nn.Module] | None = None,
) -> _Problem:
    from torchvision.models import resnet50

    n = n or (512 if quick else 4096)
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 10
    X = torch.rand(n, 3, side, side, generator=generator)
    X[:, 0] += y[:, None, None] / 10  # something to learn
    return _Problem(
        "ResNet-50",
        build or partial(resnet50, num_classes=10),
        as_samples((X, y), name="train"),
        as_samples((X[: n // 4] + 0.001, y[: n // 4]), name="test"),
        2 if quick else 15,
        256,
        torch.device(device),
        solved_head=True,
    )


def _methods(problem: _Problem, seed: int) -> dict[str, Unlearner]:
    """Give the methods, with epochs as in the tables of results."""
    import unlearning as u

    size, device = {"batch_size": problem.batch_size}, {"device": problem.device}
    common: dict[str, Any] = {"random_state": seed, **device, **size}
    return {
        "ConceptPoisoning": u.ConceptPoisoning(stop=False, **common),
        "ConceptPoisoning, stop rule": u.ConceptPoisoning(**common),
        "LogitMask": u.LogitMask(**common),
        "FineTune": u.FineTune(10, 0.01, **common),
        "L1Sparse": u.L1Sparse(10, 0.01, **common),
        "GradientAscent": u.GradientAscent(5, 1e-4, **common),
        "NegGradPlus": u.NegGradPlus(3, 1e-3, **common),
        "RandomLabel": u.RandomLabel(3, 5e-3, **common),
        "SalUn": u.SalUn(3, 5e-3, **common),
        "BoundaryShrink": u.BoundaryShrink(10, 1e-5, **common),
        "BoundaryExpand": u.BoundaryExpand(10, 1e-5, **common),
        "BadTeacher": u.BadTeacher(3, 1e-4, **common),
        "SCRUB": u.SCRUB(5, 1e-4, **common),
        "SSD": u.SSD(**common),
        "UNSIR": u.UNSIR(n_noise=64, repeats=2, lr=1e-3, repair_lr=1e-3, **common),
        "FisherForgetting, sampled": u.FisherForgetting(labels="sampled", **common),
        "SoftRelabel": u.SoftRelabel(3, 5e-3, **common),
    }


def _measure(problem: _Problem, seed: int, quick: bool) -> list[Row]:
    """Time retraining, every method and the audit."""
    from unlearning.audit import audit
    from unlearning.classes.methods.retrain import Retrain

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    unit = "CPU s" if problem.device.type == "cpu" else "s"
    try:
        model = _original(problem, seed)
        forget, retain = split_classes(problem.train, 3)
        retrain, once_more = (
            Retrain(
                problem.build,
                problem.epochs,
                problem.lr,
                batch_size=problem.batch_size,
                device=problem.device,
                random_state=s,
            )
            for s in (seed, seed + 1)
        )
        parts: dict[str, Any] = {"forget": forget, "retain": retain, "progress": False}
        whole, reference = _timed(partial(retrain.unlearn, model, **parts), problem.device)
        rows = [Row(f"{problem.name}: Retrain", whole, whole, 1.0, unit=unit)]
        last = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, method in _methods(problem, seed).items():
                taken, result = _timed(partial(method.unlearn, model, **parts), problem.device)
                last = last or result
                asked = name.startswith("ConceptPoisoning") and not quick
                ratio = taken / whole
                rows.append(
                    Row(
                        f"{problem.name}: {name}",
                        taken,
                        whole,
                        ratio,
                        f"<= {_GOAL}" if asked else "",
                        ratio <= _GOAL if asked else None,
                        unit,
                        "peer is retraining",
                    )
                )
        gone, kept = (
            [
                (x.to(problem.device), y.to(problem.device))  # type: ignore[union-attr]
                for x, y in part.batches(problem.batch_size)
            ]
            for part in (forget, retain)
        )
        for name, recipe in {
            "SSD, the paper's recipe": lambda: ssd_recipe(model, gone, kept),
            "SCRUB, the paper's recipe": lambda: scrub_recipe(model, gone, kept, epochs=5),
        }.items():
            taken, _ = _timed(recipe, problem.device)
            own = next(r for r in rows if r.name == f"{problem.name}: {name.split(',')[0]}")
            rows.append(
                Row(
                    f"{problem.name}: {name}",
                    own.ours,
                    taken,
                    (own.ours or 0.0) / taken,
                    unit=unit,
                    note="ours beside the recipe, written from the paper here",
                )
            )
        references = [reference, once_more.unlearn(model, **parts)]
        taken, _ = _timed(
            lambda: audit(
                model,
                last,
                forget=forget,
                retain=retain,
                test=problem.test,
                retrained=references,
                progress=False,
            ),
            problem.device,
        )
        ratio = taken / whole
        rows.append(
            Row(
                f"{problem.name}: audit, two references",
                taken,
                whole,
                ratio,
                "" if quick else f"<= {_AUDIT_GOAL}",
                None if quick else ratio <= _AUDIT_GOAL,
                unit,
                "peer is retraining; five models are measured",
            )
        )
        return rows
    finally:
        torch.set_num_threads(threads)


def _original(problem: _Problem, seed: int) -> nn.Module:
    with quiet_randomness(seed):
        model = problem.build().to(problem.device)
        optimizer = torch.optim.SGD(model.parameters(), problem.lr / 2, 0.9, weight_decay=5e-4)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(problem.epochs):
            for x, y in problem.train.batches(problem.batch_size, generator):
                optimizer.zero_grad(set_to_none=True)
                loss = cross_entropy(model(x.to(problem.device)), y.to(problem.device))  # type: ignore[union-attr]
                torch.autograd.backward(loss)
                optimizer.step()
    model.eval()
    if problem.solved_head:
        _solve_head(model, problem)
    return model


def _solve_head(model: nn.Module, problem: _Problem) -> None:
    """Set the last layer by least squares: a few steps on noise may leave one answer for all."""
    with torch.no_grad():
        found = [
            features_and_logits(model, x.to(problem.device))[0].double().cpu()  # type: ignore[union-attr]
            for x, _ in problem.train.batches(problem.batch_size)
        ]
        A = nn.functional.pad(torch.cat(found), (0, 1), value=1.0)
        target = 10.0 * nn.functional.one_hot(problem.train.y).double()
        solution = torch.linalg.lstsq(A, target, driver="gelsd").solution.float()
        layer = find_head(model, problem.train.inputs[:2].to(problem.device)).linear  # type: ignore[index]
        layer.weight.copy_(solution[:-1].T)
        layer.bias.copy_(solution[-1])  # type: ignore[union-attr]


def _timed(fn: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Take CPU time, or on a GPU wall time between two waits for the device."""
    if device.type == "cpu":
        start = time.process_time()
        value = fn()
        return time.process_time() - start, value
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    value = fn()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start, value


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.short = nn.Sequential(
            nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the block's activations."""
        return torch.relu(self.body(x) + self.short(x))


def _small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _Block(16, 16, 1),
        _Block(16, 32, 2),
        _Block(32, 48, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )
