"""From what was collected to scores with intervals, floors and ceilings."""

from __future__ import annotations

__all__ = ["Scorer"]

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from unlearning.distances.features import Features
from unlearning.distances.fid import FewRowsWarning, FrechetResult, frechet, frechet_distance
from unlearning.distances.ids import p_ids, u_ids, u_ids_errors
from unlearning.distances.kernels import (
    CMMD_SCALE,
    Kernel,
    cmmd,
    cubic,
    kernel_sums,
    kid,
    mmd_of_sums,
    wide,
)
from unlearning.distances.statistics import auc, frechet_replicates, resample_counts
from unlearning.removal.class_presence import presence
from unlearning.removal.class_result import TOLD, ClassResult
from unlearning.removal.collecting import Collected
from unlearning.removal.concept_shift import concept_fid

_MEANS = (
    "remove_score",
    "cfd",
    "cfd_context",
    "coherence",
    "background_psnr",
    "psnr_truth",
    "psnr_mask",
    "psnr_effect",
    "ssim_truth",
    "ssim_mask",
    "lpips",
    "lpips_mask",
    "psnr_original",
)
_SPLITS = 3  # of the comparison set, for the floor
_LEAST = 8  # images in a part
PSNR_CAP = 100.0  # decibels that an exact copy counts in means


class Scorer:
    """Scores of one class.

    Parameters
    ----------
    encoder : Encoder or None
        For concept texts.
    name : str
        The class.
    prompts : list of str
        Its texts.
    concepts : sequence of str
        Of the data set.
    n_bootstrap, confidence, published, seed
        See :class:`RemovalBenchmark`.
    """

    def __init__(
        self,
        *,
        encoder: Any,
        name: str,
        prompts: list[str],
        concepts: tuple[str, ...],
        n_bootstrap: int,
        confidence: float,
        published: bool,
        seed: int,
    ) -> None:
        self.encoder, self.name, self.prompts = encoder, name, prompts
        self.concepts = tuple(c for c in concepts if c != name)
        self.n_bootstrap, self.confidence = n_bootstrap, confidence
        self.published, self.seed = published, seed

    def score(self, data: Collected) -> ClassResult:
        """Compute all scores that the data allows."""
        labels = [s.label for s in data.setups]
        rows: dict[str, dict[str, float]] = {label: {} for label in labels}
        features = _Matrices.of(data)
        shown = [np.isfinite(v["psnr_effect"]) for v in data.values.values() if "psnr_effect" in v]
        effects = int(shown[0].sum()) if shown else 0
        for label in labels:
            self._distances(rows[label], features.removed[label], features)
            for name, values in data.values[label].items():
                if name in _MEANS:
                    capped = np.minimum(values, PSNR_CAP) if "psnr" in name else values
                    finite = capped[np.isfinite(capped)]
                    rows[label][name] = float(finite.mean()) if len(finite) else float("nan")
            if not effects:
                rows[label].pop("psnr_effect", None)
            rows[label]["background_max"] = float(data.values[label]["background_max"].max())
        floors, ceilings = self._anchors(features)
        for label in labels:
            span = ceilings["fid"] - floors["fid"]
            value = (ceilings["fid"] - rows[label]["fid"]) / span if span > 0 else float("nan")
            rows[label]["fid_normalised"] = value
        shifts = self._concepts(rows, data) if self.encoder is not None else {}
        seen = self._seen(data)
        if seen is not None and seen >= TOLD:
            self._presence(rows, data)
        replicates = self._replicates(data, features, seen) if self.n_bootstrap else {}
        check = data.check
        return ClassResult(
            name=self.name,
            n=len(data.ids),
            n_comparison=len(data.comparison),
            labels=labels,
            rows=rows,
            floors=floors,
            ceilings=ceilings,
            replicates=replicates,
            shifts=shifts,
            truth_is_floor=data.truth is not None,
            context_check=None if check is None else vars(check) | {},
            originals_presence=seen,
            effects=effects,
        )

    def _distances(self, row: dict[str, float], X: Features, given: _Matrices) -> None:
        found = _frechet(X, given.comparison)
        row["fid"], row["fid_debiased"] = found.distance, found.debiased
        row["fid_null"], row["fid_dimension"] = found.null_bias, found.dimension
        row["kid"] = kid(X, given.comparison)
        row["cmmd"] = cmmd(X, given.comparison)
        row["u_ids"] = u_ids(given.comparison, X)
        row["fid_original"] = frechet_distance(X, given.originals)
        row["kid_original"] = kid(X, given.originals)
        row["cmmd_original"] = cmmd(X, given.originals)
        row["u_ids_original"] = u_ids(given.originals, X, paired=True)
        if given.truth is not None:
            row["fid_truth"] = frechet_distance(X, given.truth)
        if self.published:
            row["u_ids_cv"] = u_ids(given.comparison, X, method="cv", random_state=self.seed)
            row["u_ids_in_sample"] = u_ids(given.comparison, X, method="in-sample")
            row["p_ids_original"] = p_ids(given.originals, X, method="in-sample")

    def _anchors(self, given: _Matrices) -> tuple[dict[str, float], dict[str, float]]:
        """Give the best and the worst that can be expected of each score."""
        scores: dict[str, Callable[[Any, Any], float]] = {
            "kid": kid,
            "cmmd": cmmd,
            "u_ids": lambda X, Y: u_ids(Y, X),
        }

        def ends(X: Features) -> dict[str, float]:
            found = _frechet(X, given.comparison)
            return {name: fn(X, given.comparison) for name, fn in scores.items()} | {
                "fid": found.distance,
                "fid_debiased": found.debiased,
            }

        floors = self._halves(given, scores) if given.truth is None else ends(given.truth)
        return floors, ends(given.originals)

    def _halves(
        self, given: _Matrices, scores: dict[str, Callable[[Any, Any], float]]
    ) -> dict[str, float]:
        """Estimate the floor from parts of the comparison set, where there is no truth.

        Two parts of one law have a distance of bias alone. For FID it goes with
        h = 1/n + 1/m at first and less than that with few images, so that halves and
        quarters fix a parabola in h, which is read at the sizes of the comparison.
        """
        rng, n, m = np.random.default_rng(self.seed), len(given.originals), len(given.comparison)
        rows = given.comparison.rows
        floors: dict[str, float] = {}
        halves, distances = self._parts(rows, m // 2, rng)
        for name, fn in scores.items():
            floors[name] = float(np.mean([fn(A, B) for A, B in halves]))
        here, large = 1 / n + 1 / m, 2 / (m // 2)
        floors["cmmd"] *= here / large  # a V-statistic: all bias, and proportional
        slope, bend = distances / large, 0.0
        if m >= 4 * _LEAST:
            small = 2 / (m // 4)
            _, further = self._parts(rows, m // 4, rng)
            bend = (further / small - slope) / (small - large)
            slope -= bend * large
        floors["fid"] = max(slope * here + bend * here**2, 0.0)
        floors["fid_debiased"] = 0.0  # of one law, without bias
        return floors

    def _parts(
        self, rows: torch.Tensor, size: int, rng: np.random.Generator
    ) -> tuple[list[tuple[Features, Features]], float]:
        """Draw pairs of parts without common rows, and give their mean Fréchet distance."""
        pairs = []
        for _ in range(_SPLITS):
            order = rng.permutation(len(rows))
            pairs.append((Features(rows[order[:size]]), Features(rows[order[size : 2 * size]])))
        return pairs, float(np.mean([frechet_distance(A, B) for A, B in pairs]))

    def _seen(self, data: Collected) -> float | None:
        """Tell how well the encoder tells originals from places without the class: an AUC."""
        if not data.crops:
            return None
        return float(auc(data.original_crops, data.comparison_crops))

    def _presence(self, rows: dict[str, dict[str, float]], data: Collected) -> None:
        for label, scores in data.crops.items():
            found = presence(
                scores,
                data.comparison_crops,
                data.original_crops,
                confidence=self.confidence,
                n_bootstrap=max(self.n_bootstrap, 200),
                random_state=self.seed,
            )
            rows[label].update(
                presence=found.auc,
                presence_low=found.low,
                presence_high=found.high,
                removed_share=found.removed_share,
                residue_rate=found.residue_rate,
                p_gone=found.p_equivalence,
            )

    def _concepts(self, rows: dict[str, dict[str, float]], data: Collected) -> dict[str, Any]:
        if data.comparison_concepts is None:
            return {}
        own = as_numpy(self.encoder.encode_text(self.prompts)).mean(axis=0, keepdims=True)
        texts = own / np.linalg.norm(own)
        if self.concepts:
            others = as_numpy(self.encoder.encode_text(list(self.concepts)))
            texts = np.concatenate([texts, others])
        names = (self.name, *self.concepts)
        reference = data.comparison_concepts @ texts.T
        shifts = {}
        for label, vectors in data.concepts.items():
            found = concept_fid(vectors @ texts.T, reference, names, target=self.name)
            rows[label].update(
                concept_fid=found.distance,
                concept_removal=found.removal,
                concept_collateral=found.collateral,
            )
            shifts[label] = found
        return shifts

    def _replicates(
        self, data: Collected, given: _Matrices, seen: float | None
    ) -> dict[str, np.ndarray]:
        """Draw bootstrap samples of images, the same for all removers."""
        V = resample_counts(len(data.ids), self.n_bootstrap, self.seed)
        W = resample_counts(
            len(data.comparison), self.n_bootstrap, np.random.default_rng([3, self.seed])
        )
        sets, other = [given.removed[s.label] for s in data.setups], given.comparison
        rows, units = [X.rows for X in sets], [X.unit for X in sets]
        found = {
            "fid": frechet_replicates(sets, other, V, W),
            "kid": _mmd_replicates(rows, other.rows, V, W, cubic, unbiased=True),
            "cmmd": CMMD_SCALE * _mmd_replicates(units, other.unit, V, W, wide, unbiased=False),
        }
        errors = [u_ids_errors(other, X) for X in sets]
        found["u_ids"] = np.stack(
            [(W @ real / W.sum(1) + V @ fake / V.sum(1)) / 2 for real, fake in errors]
        )
        if seen is not None and seen >= TOLD:
            crops = [data.crops[s.label] for s in data.setups]
            found["presence"] = np.stack([auc(c, data.comparison_crops, V, W) for c in crops])
        paired = ("psnr_truth", "psnr_mask", "ssim_truth", "ssim_mask", "lpips", "lpips_mask")
        for name in paired:
            if all(name in data.values[s.label] for s in data.setups):
                values = [data.values[s.label][name] for s in data.setups]
                if "psnr" in name:
                    values = [np.minimum(v, PSNR_CAP) for v in values]
                found[name] = np.stack([V @ v / V.sum(1) for v in values])
        return found


def _frechet(X: Features, Y: Features) -> FrechetResult:
    """Give the distance; that rows are few is a note of the report, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewRowsWarning)
        return frechet(X, Y)


@dataclass(frozen=True)
class _Matrices:
    """The features of all sets, checked once."""

    removed: dict[str, Features]
    originals: Features
    comparison: Features
    truth: Features | None

    @classmethod
    def of(cls, data: Collected) -> _Matrices:
        return cls(
            {s.label: Features.of(data.removed[s.label], s.label) for s in data.setups},
            Features.of(data.originals, "originals"),
            Features.of(data.comparison, "comparison"),
            None if data.truth is None else Features.of(data.truth, "truth"),
        )


def _mmd_replicates(
    sets: list[torch.Tensor],
    other: torch.Tensor,
    V: np.ndarray,
    W: np.ndarray,
    kernel: Kernel,
    *,
    unbiased: bool,
) -> np.ndarray:
    v, w = torch.from_numpy(V.T.copy()), torch.from_numpy(W.T.copy())
    yy = kernel_sums(other, other, w, w, kernel, off_diagonal=unbiased)
    out = []
    for rows in sets:
        xx = kernel_sums(rows, rows, v, v, kernel, off_diagonal=unbiased)
        xy = kernel_sums(rows, other, v, w, kernel)
        out.append(mmd_of_sums(xx, yy, xy, v, w, unbiased=unbiased).numpy())
    return np.stack(out)
