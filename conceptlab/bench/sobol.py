"""Importance beside the reference way: time at one design, accuracy, order effect.

The reference way is implemented here from its description: an unscrambled Halton
sequence of 32 points in 2k dimensions, A and B its halves; the importance call
encodes the images again (g, then non-negative least squares at every position),
multiplies the coefficients of one image after the other by the masks, decodes
them, runs the head, and takes Jansen's total index with the variance of y(A).
"""

from __future__ import annotations

__all__ = ["run"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import qmc
from torch import nn

from conceptlab.bench import BenchResult, Row, cpu_time
from conceptlab.bench._workload import calibrated_resnet18, procedural_images
from conceptlab.importance import Design, HeadOnCoefficients, Importance, SobolImportance
from conceptlab.models import SplitModel

_TARGET = 3


class _NeverPooled(HeadOnCoefficients):
    """The head without its word on expanded views, so that no shortcut is tried."""

    expands = False


class _Deep(nn.Module):
    """A ResNet's body with two layers after the pooling."""

    def __init__(self, body: nn.Module, seed: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(body.children())[:-2])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.end = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify images."""
        return self.end(self.body(x).mean((2, 3)))


@dataclass(frozen=True, eq=False)
class _Case:
    """One head with the coefficients of some images."""

    split: SplitModel
    g: Callable[[torch.Tensor], torch.Tensor]
    h: Callable[[torch.Tensor], torch.Tensor]
    images: torch.Tensor
    W: torch.Tensor
    U: torch.Tensor


def halton_design(k: int, n: int = 32) -> Design:
    """Make the reference's design: the first points of an unscrambled Halton sequence."""
    points = qmc.Halton(2 * k, scramble=False).random(n)
    return Design(points[:, :k].copy(), points[:, k:].copy(), "halton, unscrambled")


def encode(
    g: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, W: torch.Tensor
) -> torch.Tensor:
    """Encode images the reference way: g in batches, scikit-learn's NNLS at every position."""
    from sklearn.decomposition import non_negative_factorization

    with torch.no_grad():
        maps = torch.cat([g(images[i : i + 64]) for i in range(0, len(images), 64)])
    rows = maps.permute(0, 2, 3, 1)
    flat = rows.reshape(-1, rows.shape[-1]).numpy()
    codes = non_negative_factorization(
        flat, H=W.numpy(), update_H=False, n_components=len(W), solver="cd", max_iter=200
    )[0]
    return torch.from_numpy(codes.astype(np.float32)).reshape(*rows.shape[:-1], len(W))


def reference_indices(
    h: Callable[[torch.Tensor], torch.Tensor], U: torch.Tensor, W: torch.Tensor, design: Design
) -> np.ndarray:
    """Mask image by image, decode, run the head, take Jansen's index: (n, k)."""
    n, k = design.A.shape
    masks = torch.from_numpy(design.stacked().astype(np.float32))
    found = []
    with torch.no_grad():
        for coefficients in U:
            outputs = []
            for i in range(0, len(masks), 64):
                masked = coefficients[None] * masks[i : i + 64, None, None, :]
                activations = (masked @ W).permute(0, 3, 1, 2)
                outputs.append(h(activations)[:, _TARGET])
            y = torch.cat(outputs).numpy().astype(np.float64).reshape(k + 2, n)
            a, c = y[0], y[2:]
            found.append(((a - c) ** 2).sum(1) / (2 * n * a.var(ddof=1)))
    return np.array(found)


def _case(model: nn.Module, layer: str, images: torch.Tensor, k: int, seed: int) -> _Case:
    """Cut the model and factorise its activations."""
    from sklearn.decomposition import NMF

    split = SplitModel(model, at=layer)
    split.check(images[:2])

    def g(x: torch.Tensor) -> torch.Tensor:
        a: torch.Tensor = split.g(x)
        return a

    with torch.no_grad():
        maps = torch.cat([g(images[i : i + 32]) for i in range(0, len(images), 32)])
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).numpy()
    step = max(1, len(rows) // 4000)
    factor = NMF(k, max_iter=200, tol=1e-3, random_state=seed).fit(rows[::step])
    W = torch.from_numpy(factor.components_.astype(np.float32))
    head = _tail(model, layer)
    return _Case(split, g, head, images, W, encode(g, images, W))


def _tail(model: nn.Module, layer: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Write the head out as the reference's user would."""
    if isinstance(model, _Deep):
        return lambda a: model.end(a.mean((2, 3)))
    net: Any = model
    if layer == "layer3":
        return lambda a: net.fc(net.layer4(a).mean((2, 3)))
    return lambda a: net.fc(a.mean((2, 3)))


@dataclass(frozen=True, eq=False)
class _Reference:
    """What the reference way took and found on one head."""

    encoding: float
    masking: float
    values: np.ndarray


def _reference(case: _Case) -> _Reference:
    encoding, _ = cpu_time(lambda: encode(case.g, case.images, case.W), repeats=1)
    design = halton_design(len(case.W))
    masking, values = cpu_time(lambda: reference_indices(case.h, case.U, case.W, design), repeats=1)
    return _Reference(encoding, masking, values)


def _time_rows(
    name: str,
    case: _Case,
    peer: _Reference,
    *,
    general: bool,
    exact: bool,
    goal: float,
    limit: str = "",
) -> list[Row]:
    """Time ours at the reference's design: without and with its encoding."""
    kind = _NeverPooled if general else HeadOnCoefficients
    head = kind(case.split, case.W)
    ours = SobolImportance(
        sampler=halton_design(len(case.W)),
        exact="auto" if exact else False,
        n_bootstrap=0,
        random_state=0,
    )
    seconds, found = cpu_time(
        lambda: ours(head, case.U, target=_TARGET), repeats=1 if general else 3
    )
    if exact:
        deviation = abs(found.values.sum(1) - 1).max()
        note = f"exact, indices sum to 1 within {deviation:.0e}"
    else:
        deviation = abs(_with_their_variance(found, peer.values) - peer.values).max()
        note = f"route {found.route}; largest difference at the same masks {deviation:.0e}"
    note += f"; {found.n_evaluations} evaluations"
    whole = peer.encoding + peer.masking
    return [
        Row(
            f"{name}: masks and head only",
            seconds,
            peer.masking,
            peer.masking / seconds,
            note="peer: coefficients given; " + note,
        ),
        Row(
            f"{name}: whole call",
            seconds,
            whole,
            whole / seconds,
            f">= {goal:g}",
            whole / seconds >= goal,
            note=f"peer encodes again ({peer.encoding:.1f} s of it); ours takes fit's coefficients"
            + limit,
        ),
    ]


def _bare_head(case: _Case, peer: _Reference) -> str:
    """Time decoding and head alone on a row for each mask, and say what that allows."""
    n_rows = len(case.U) * len(halton_design(len(case.W)).stacked())
    codes = case.U[:1].expand(64, *case.U.shape[1:]).contiguous()

    def passes() -> None:
        with torch.no_grad():
            for start in range(0, n_rows, 64):
                case.h((codes[: n_rows - start] @ case.W).permute(0, 3, 1, 2))

    seconds, _ = cpu_time(passes, repeats=3)
    most = (peer.encoding + peer.masking) / seconds
    return (
        f"; decoding and the head alone take {seconds:.2f} CPU s on as many rows, so at this "
        f"precision and design {most:.2f} is the most"
    )


def _fewer_masks_row(
    name: str,
    case: _Case,
    peer: _Reference,
    n_truth: int,
    goal: float,
    split: SplitModel | None = None,
) -> Row:
    """Compare at equal or better accuracy: a quarter of the masks, with the control.

    `split` is what ours runs on, if that is another one than what gives the truth.
    """
    head = HeadOnCoefficients(case.split, case.W)
    run_on = head if split is None else HeadOnCoefficients(split, case.W)
    ours = SobolImportance(8, exact=False, n_bootstrap=0, random_state=0)
    seconds, found = cpu_time(lambda: ours(run_on, case.U, target=_TARGET), repeats=1)
    some = case.U[:16]
    truth = SobolImportance(n_truth, exact=False, n_bootstrap=0, random_state=1)(
        head, some, target=_TARGET
    ).values
    error, theirs = (abs(v[: len(some)] - truth).max() for v in (found.values, peer.values))
    ratio = (peer.encoding + peer.masking) / seconds
    return Row(
        f"{name}: whole call, 8 masks for their 32",
        seconds,
        peer.encoding + peer.masking,
        ratio,
        f">= {goal:g}, no less accurate",
        ratio >= goal and bool(error <= theirs),
        note=f"largest error of a local index: ours {error:.2g}, peer {theirs:.2g} "
        f"(truth: {n_truth} masks, {len(some)} images)",
    )


def _with_their_variance(found: Importance, theirs: np.ndarray) -> np.ndarray:
    """Rescale ours, which divides by the variance of A and B, to the variance of A.

    The ratio is the same for all concepts of an image, so it is taken from the sums.
    """
    return found.values * (theirs.sum(1) / found.values.sum(1))[:, None]


def _quality_rows(case: _Case, seed: int, quick: bool) -> list[Row]:
    """Compare with the exact indices of the linear head: error, order effect."""
    k = len(case.W)
    head = HeadOnCoefficients(case.split, case.W)
    exact = SobolImportance(exact=True, n_bootstrap=0)(head, case.U, target=_TARGET).mean
    order = np.arange(k)[::-1].copy()
    turned = HeadOnCoefficients(case.split, case.W[order])
    design = halton_design(k)
    theirs = reference_pooled(case, design, np.arange(k))
    flipped = np.empty(k)
    flipped[order] = reference_pooled(case, design, order)

    def ours(n_design: int, control: str | None, seed: int) -> np.ndarray:
        importance = SobolImportance(
            n_design, control=control, exact=False, n_bootstrap=0, random_state=seed
        )
        return importance(head, case.U, target=_TARGET).mean

    rows = []
    for n_design in (32, 128, 1024)[: 2 if quick else 3]:
        peer = abs(reference_pooled(case, halton_design(k, n_design), np.arange(k)) - exact).max()
        for control in (None, "linear"):
            error = np.mean(
                [abs(ours(n_design, control, seed + s) - exact).max() for s in range(3)]
            )
            rows.append(
                Row(
                    f"error of the global index, n = {n_design}, control {control}",
                    float(error),
                    float(peer),
                    None,
                    "<= peer",
                    bool(error <= peer),
                    "index",
                    "linear head, exact index known; 16 images, mean of 3 seeds",
                )
            )
    size = 1024
    U = case.U.flip(-1)
    importance = SobolImportance(size, exact=False, n_bootstrap=0, random_state=seed)
    back = importance(turned, U, target=_TARGET).mean
    effect = abs(importance(head, case.U, target=_TARGET).mean - back[order]).max()
    # Without the columns following the size of coefficients: a plain scrambled design.
    plain = _scrambled(k, size, seed)
    loose = SobolImportance(sampler=plain, exact=False, n_bootstrap=0)
    noise = abs(
        loose(head, case.U, target=_TARGET).mean - loose(turned, U, target=_TARGET).mean[order]
    ).max()
    rows.append(
        Row(
            f"order effect, n = {size}",
            float(effect),
            float(abs(theirs - flipped).max()),
            None,
            "< 2e-3",
            bool(effect < 2e-3),
            "index",
            f"peer at its 32 masks; ours with fixed columns {noise:.1e}",
        )
    )
    return rows


def _scrambled(k: int, n: int, seed: int) -> Design:
    from conceptlab.importance import sample_design

    drawn = sample_design(n, k, random_state=seed)
    return Design(drawn.A, drawn.B)


def reference_pooled(case: _Case, design: Design, order: np.ndarray) -> np.ndarray:
    """Give the reference's global indices of the linear head, concepts in `order`.

    Masks commute with the mean over positions, so the pooled coefficients give the
    same numbers without the hours.
    """
    pooled = case.U.mean((1, 2), keepdim=True)[..., order]
    return reference_indices(case.h, pooled, case.W[order], design).mean(0)


def _ishigami(m: torch.Tensor) -> torch.Tensor:
    x = torch.pi * (2 * m - 1)
    return (
        torch.sin(x[:, 0]) + 7 * torch.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * torch.sin(x[:, 0])
    )


def _functions() -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], np.ndarray]]:
    """Test functions with their total indices."""
    a = np.array([0, 1, 4.5, 9, 99, 99, 99, 99])
    parts = 1 / (3 * (1 + a) ** 2)
    whole = np.prod(1 + parts)
    ts = torch.from_numpy(a)

    def linear(k: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], np.ndarray]:
        c = np.arange(k, 0, -1) / k
        weights = torch.from_numpy(c)
        return lambda m: m @ weights, c**2 / (c**2).sum()

    return {
        "Ishigami": (_ishigami, np.array([0.557589, 0.442411, 0.243684])),
        "Sobol g": (
            lambda m: (((4 * m - 2).abs() + ts) / (1 + ts)).prod(1),
            parts * whole / (1 + parts) / (whole - 1),
        ),
        "linear, 10": linear(10),
        "linear, 20": linear(20),
    }


def _accuracy_rows(seed: int, quick: bool) -> list[Row]:
    """Largest error of the total indices on functions of known truth."""
    rows = []
    for name, (fn, truth) in _functions().items():
        k = len(truth)
        ones = torch.ones(1, k, dtype=torch.float64)
        for n_design in (32, 128, 1024):
            design = halton_design(k, n_design)
            y = fn(torch.from_numpy(design.stacked())).numpy().reshape(k + 2, n_design)
            theirs = ((y[0] - y[2:]) ** 2).sum(1) / (2 * n_design * y[0].var(ddof=1))
            errors = {}
            for control in ("linear", None):
                errors[control] = np.mean(
                    [
                        abs(
                            SobolImportance(
                                n_design,
                                control=control,
                                exact=False,
                                n_bootstrap=0,
                                random_state=seed + s,
                            )(fn, ones).values[0]
                            - truth
                        ).max()
                        for s in range(5 if quick else 20)
                    ]
                )
            rows.append(
                Row(
                    f"{name}, n = {n_design}: largest error",
                    float(errors["linear"]),
                    float(abs(theirs - truth).max()),
                    None,
                    "",
                    None,
                    "index",
                    f"without the control {errors[None]:.2g}; mean of seeds",
                )
            )
    return rows


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure importance on a ResNet-18 and on functions of known truth.

    Parameters
    ----------
    quick : bool
        16 images instead of 128, fewer seeds.
    seed : int
        Seed of weights, images and designs.

    Returns
    -------
    BenchResult
    """
    n, k = (16 if quick else 128), 10
    images = procedural_images(n, seed=seed)
    model = calibrated_resnet18(images, seed)
    linear = _case(model, "layer4", images, k, seed)
    peer = _reference(linear)
    name = "GAP + linear (layer4)"
    rows = _time_rows(f"{name}, exact", linear, peer, general=False, exact=True, goal=100)
    rows += _time_rows(f"{name}, sampled", linear, peer, general=False, exact=False, goal=5)
    limit = _bare_head(linear, peer)
    hidden = f"{name}, as a black box"
    rows += _time_rows(hidden, linear, peer, general=True, exact=False, goal=5, limit=limit)
    deep = _case(_Deep(model, seed).eval().requires_grad_(False), "body", images, k, seed)
    peer = _reference(deep)
    name = "GAP + two layers"
    rows += _time_rows(name, deep, peer, general=False, exact=False, goal=5)
    rows.append(_fewer_masks_row(name, deep, peer, 1024, 5))
    early = _case(model, "layer3", images[:2], k, seed)
    peer = _reference(early)
    name = "layer4 + GAP + linear (2 images)"
    limit = _bare_head(early, peer)
    rows += _time_rows(name, early, peer, general=True, exact=False, goal=5, limit=limit)
    if not quick:
        rows.append(_fewer_masks_row(name, early, peer, 128, 3))
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        name += ", bfloat16"
        half = SplitModel(model, "layer3", precision="bfloat16", channels_last=True)
        half.check(images[:2])
        rows += _time_rows(
            name, replace(early, split=half), peer, general=True, exact=False, goal=5
        )
        if not quick:
            rows.append(_fewer_masks_row(name, early, peer, 128, 5, half))
    rows += _quality_rows(replace(linear, U=linear.U[:16]), seed, quick)
    rows += _accuracy_rows(seed, quick)
    settings = {"images": n, "concepts": k, "n_design": 32, "model": "resnet18 at 224 px"}
    return BenchResult("sobol", rows, seed, settings)
