"""CRAFT end to end beside the reference way, which is implemented here from its description.

The reference (section 3 of the paper and the authors' released code, as
described): all grid crops at once, all unpooled activations kept and then
averaged, scikit-learn's NMF with its defaults, importance that encodes the
images again, solves for the coefficients, and masks image by image with an
unscrambled Halton design.
"""

from __future__ import annotations

__all__ = ["run"]

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import qmc
from sklearn.decomposition import NMF
from torch.nn.functional import interpolate

from conceptlab.bench import BenchResult, Row, cpu_time
from conceptlab.bench._memory import peak_above_start
from conceptlab.bench._workload import calibrated_resnet18, procedural_images
from conceptlab.extractors import CRAFT
from conceptlab.models import SplitModel

_LAYER, _TARGET, _PATCH = "layer4", 3, 64


class Reference:
    """The reference way: everything in memory, one image at a time where it masks."""

    def __init__(self, model: Any, n_concepts: int, batch_size: int = 64) -> None:
        self.body = torch.nn.Sequential(*list(model.children())[:-2]).eval()
        self.head = torch.nn.Sequential(model.avgpool, torch.nn.Flatten(), model.fc).eval()
        self.n_concepts, self.batch_size = n_concepts, batch_size

    @torch.no_grad()
    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        parts = [self.body(batch) for batch in images.split(self.batch_size)]
        return torch.cat(parts)

    def fit(self, images: torch.Tensor) -> Reference:
        """Crop, encode, average and factorise."""
        side = images.shape[-1]
        crops = images.unfold(2, _PATCH, int(0.8 * _PATCH)).unfold(3, _PATCH, int(0.8 * _PATCH))
        crops = crops.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, _PATCH, _PATCH)
        resized = interpolate(crops, size=(side, side), mode="bilinear", align_corners=False)
        activations = self._encode(resized).mean(dim=(2, 3)).numpy()
        self.nmf = NMF(n_components=self.n_concepts).fit(activations)
        self.W = torch.from_numpy(self.nmf.components_.astype(np.float32))
        return self

    @torch.no_grad()
    def importance(self, images: torch.Tensor, n_design: int = 32) -> np.ndarray:
        """Encode again, solve for U, mask image by image, Jansen's total index."""
        maps = self._encode(images)
        n, channels, height, width = maps.shape
        rows = maps.permute(0, 2, 3, 1).reshape(-1, channels).numpy()
        U = torch.from_numpy(self.nmf.transform(rows).astype(np.float32))
        U = U.reshape(n, height, width, self.n_concepts)
        k = self.n_concepts
        design = qmc.Halton(2 * k, scramble=False).random(n_design).astype(np.float32)
        A, B = design[:, :k], design[:, k:]
        mixed = [A]
        for i in range(k):
            C = A.copy()
            C[:, i] = B[:, i]
            mixed.append(C)
        masks = torch.from_numpy(np.concatenate([*mixed, B]))
        values = []
        for u in U:
            outputs = []
            for part in masks.split(self.batch_size):
                perturbed = (u[None] * part[:, None, None, :]) @ self.W
                outputs.append(self.head(perturbed.permute(0, 3, 1, 2))[:, _TARGET])
            y = torch.cat(outputs).numpy().reshape(k + 2, n_design)[: k + 1]
            variance = y[0].var(ddof=1)
            values.append(((y[0] - y[1:]) ** 2).sum(axis=1) / (2 * n_design * variance))
        return np.mean(values, axis=0)


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure fit, importance and memory of CRAFT beside the reference.

    Parameters
    ----------
    quick : bool
        16 images instead of 128.
    seed : int
        Seed of the workload and of the factorisation.

    Returns
    -------
    BenchResult
    """
    n = 16 if quick else 128
    images = procedural_images(n, seed=seed)
    model = calibrated_resnet18(images, seed)
    n_concepts = 10
    reference = Reference(model, n_concepts)
    reference_fit, _ = cpu_time(lambda: reference.fit(images), repeats=1)
    reference_importance, _ = cpu_time(lambda: reference.importance(images), repeats=1)

    rows = []
    bare = _bare(model, images, "float32")
    ours, craft = cpu_time(
        lambda: _craft(model, "float32", "grid", seed).fit(images, target=None), repeats=1
    )
    rows.append(
        Row(
            "fit, same crops, float32",
            ours,
            reference_fit,
            reference_fit / ours,
            ">= 1.5",
            reference_fit / ours >= 1.5,
            note="whole fit against the whole reference fit",
        )
    )
    share = max(0.0, ours - bare) / ours
    rows.append(
        Row(
            "fit: all but the model",
            ours - bare,
            bare,
            share,
            "<= 0.05",
            share <= 0.05,
            note="peer: the bare passes of g over the same crops; ratio: share of the fit",
        )
    )
    half, note = _bfloat16_fit(model, images, seed)
    rows.append(
        Row(
            "fit, same crops, bfloat16",
            half,
            reference_fit,
            reference_fit / half,
            ">= 3",
            reference_fit / half >= 3,
            note=note,
        )
    )
    whole, _ = cpu_time(
        lambda: _craft(model, "float32", "none", seed).fit(images, target=None), repeats=1
    )
    once = _whole_pass(model, images)
    most = reference_fit / once
    rows.append(
        Row(
            "fit, whole-image maps",
            whole,
            reference_fit,
            reference_fit / whole,
            ">= 25",
            reference_fit / whole >= 25,
            note="another estimand: every position is a row; one bare "
            f"pass of g over the images takes {once:.2f} CPU s, so {most:.1f} is the most",
        )
    )
    both, _ = cpu_time(
        lambda: _craft(model, "float32", "none", seed).fit(images, target=_TARGET), repeats=1
    )
    job = reference_fit + reference_importance
    rows.append(
        Row(
            "fit and importance, whole-image maps",
            both,
            job,
            job / both,
            ">= 25",
            job / both >= 25,
            note="the whole job; ours runs g once, the reference twice",
        )
    )
    if _has_bfloat16():
        half, _ = cpu_time(
            lambda: _craft(model, "bfloat16", "none", seed).fit(images, target=None), repeats=1
        )
        rows.append(
            Row(
                "fit, whole-image maps, bfloat16",
                half,
                reference_fit,
                reference_fit / half,
                ">= 25",
                reference_fit / half >= 25,
                note="bfloat16 in hardware",
            )
        )
    exact, _ = cpu_time(lambda: craft.estimate_importance(images, target=_TARGET), repeats=1)
    rows.append(
        Row(
            "importance from images",
            exact,
            reference_importance,
            reference_importance / exact,
            note="with g and coding on both sides; ours in closed form",
        )
    )
    for count in (n, 2 * n):
        peak = peak_above_start(__name__, "prepare_fit", which="ours", n=count, seed=seed)
        rows.append(
            Row(
                f"peak memory of fit, {count} images",
                peak,
                None,
                peak,
                "<= 300",
                peak <= 300,
                unit="MB above start",
            )
        )
    peak = peak_above_start(__name__, "prepare_fit", which="reference", n=n, seed=seed)
    rows.append(Row(f"peak memory, reference, {n} images", None, peak, unit="MB above start"))
    settings = {"images": n, "px": 224, "layer": _LAYER, "k": n_concepts, "patch": _PATCH}
    return BenchResult("craft", rows, seed, settings)


def prepare_fit(which: str, n: int, seed: int) -> Callable[[], Any]:
    """Set the workload up and give the fit, for :mod:`conceptlab.bench._memory`."""
    images = procedural_images(n, seed=seed)
    model = calibrated_resnet18(images[:64], seed)
    if which == "reference":
        reference = Reference(model, 10)
        return lambda: reference.fit(images)
    craft = _craft(model, "float32", "grid", seed)
    craft.split.f(images[:2])  # first use loads libraries
    return lambda: craft.fit(images, target=None)


def _craft(model: Any, precision: str, patches: str, seed: int) -> CRAFT:
    split = _split(model, precision)
    return CRAFT(split, 10, patches=patches, patch_size=_PATCH, random_state=seed)


def _split(model: Any, precision: str) -> SplitModel:
    return SplitModel(
        model,
        _LAYER,
        precision=precision,
        channels_last=True,
        fold_batch_norm=True,
        device="cpu",
    )


def _bare(model: Any, images: torch.Tensor, precision: str) -> float:
    """Time g alone over as many inputs as there are crops, the way SplitModel runs it."""
    split = _split(model, precision)
    per_image = len(range(0, images.shape[-1] - _PATCH + 1, int(0.8 * _PATCH))) ** 2

    def passes() -> None:
        with torch.no_grad():
            for batch in images.split(16):
                for _ in range(per_image):
                    split.g(batch)

    return cpu_time(passes, repeats=1)[0]


def _whole_pass(model: Any, images: torch.Tensor) -> float:
    """Time g alone over whole images, the way SplitModel runs it, once it is set up."""
    split = _split(model, "float32")

    def passes() -> None:
        with torch.no_grad():
            for batch in images.split(16):
                split.g(batch)

    split.g(images[:1])
    return cpu_time(passes, repeats=1)[0]


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _bfloat16_fit(model: Any, images: torch.Tensor, seed: int) -> tuple[float, str]:
    """Time the fit in bfloat16; on a processor that emulates it, on a few images, scaled up."""
    native = _has_bfloat16()
    part = images if native else images[:4]
    seconds, _ = cpu_time(
        lambda: _craft(model, "bfloat16", "grid", seed).fit(part, target=None), repeats=1
    )
    if native:
        return seconds, "bfloat16 in hardware"
    note = f"no bfloat16 in this processor ({torch.backends.cpu.get_cpu_capability()}): "
    return seconds * len(images) / len(part), f"{note}timed on {len(part)} images and scaled up"
