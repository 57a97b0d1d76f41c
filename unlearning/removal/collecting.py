"""Go through the images once and keep what the scores need."""

from __future__ import annotations

__all__ = ["Collected", "Collector"]

from collections import defaultdict
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from unlearning.distances.rows import unit_rows
from unlearning.removal.cache import RemovalCache
from unlearning.removal.class_presence import region_crops
from unlearning.removal.coherence import context_deviation, removal_coherence
from unlearning.removal.context import ContextCheck, context_descriptor
from unlearning.removal.features import FeatureExtractor
from unlearning.removal.masks import effect_mask, grow
from unlearning.removal.paired import averaged, psnr, ssim_map
from unlearning.removal.removers.base import RemoverSetup
from unlearning.removal.surroundings import remove_score

RIM = 2
"""Pixels about the object that scores inside the mask look at too: where rims are left."""


@dataclass
class Collected:
    """Features and per-image scores of one class.

    Attributes
    ----------
    ids, comparison_ids : ndarray of int64
        Which images.
    setups : list of RemoverSetup
        Those that finished.
    removed : dict of str to ndarray of shape (n, d)
        Features of each remover's images.
    originals, comparison : ndarray
        Features of the images with the class and of those without.
    truth : ndarray or None
        Features of the true removals.
    values : dict of str to dict of str to ndarray of shape (n,)
        Per remover and per-image score.
    crops : dict of str to ndarray of shape (n,)
        Cosine of each hole to the class text.
    concepts : dict of str to ndarray of shape (n, q)
        Unit image vectors of the encoder.
    context : ndarray of shape (n, 3)
        Mean colours outside the masks.
    """

    ids: np.ndarray
    comparison_ids: np.ndarray
    setups: list[RemoverSetup]
    removed: dict[str, np.ndarray]
    originals: np.ndarray
    comparison: np.ndarray
    truth: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]]
    crops: dict[str, np.ndarray] = field(default_factory=dict)
    concepts: dict[str, np.ndarray] = field(default_factory=dict)
    original_crops: np.ndarray | None = None
    comparison_crops: np.ndarray | None = None
    comparison_concepts: np.ndarray | None = None
    context: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    check: ContextCheck | None = None


class Collector:
    """Batch by batch: originals, each remover's images, comparison images.

    Parameters
    ----------
    features : FeatureExtractor
        For the distances.
    encoder : Encoder or None
        For presence and concepts.
    feature_map, lpips : callable or None
        See :class:`RemovalBenchmark`.
    prompts : list of str
        Texts of the class.
    cache : RemovalCache or None
        Of finished removals.
    seed : int
        Of the removers.
    dilation : int
        Of the policy that all removers share.
    """

    def __init__(
        self,
        *,
        features: FeatureExtractor,
        encoder: Any,
        feature_map: Any,
        lpips: Any,
        prompts: list[str],
        cache: RemovalCache | None,
        seed: int,
        dilation: int,
    ) -> None:
        self.features, self.encoder = features, encoder
        self.feature_map, self.lpips = feature_map, lpips
        # Windows of a coarse map hold too few cells to compare.
        self.fine_maps = feature_map is not None and _cells(feature_map) >= 8
        self.cache, self.seed, self.dilation = cache, seed, dilation
        self._setups: dict[str, RemoverSetup] = {}
        self._parts: dict[str, list[np.ndarray]] = defaultdict(list)
        self._values: dict[str, dict[str, list[np.ndarray]]] = {}
        self._masks: list[torch.Tensor] = []
        self._text: np.ndarray | None = None
        if encoder is not None:
            vectors = as_numpy(encoder.encode_text(prompts)).astype(np.float64)
            mean = vectors.mean(axis=0)
            self._text = mean / np.linalg.norm(mean)

    def add_originals(
        self, images: torch.Tensor, masks: torch.Tensor, truth: torch.Tensor | None
    ) -> None:
        """Take a batch of images with the class."""
        self._masks.append(masks)
        self._keep("original", images, masks)
        self._parts["context"].append(context_descriptor(images, self._grown(masks, RIM)))
        if truth is not None:
            self._parts["truth/features"].append(self.features(truth))

    def add_removed(
        self,
        setup: RemoverSetup,
        images: torch.Tensor,
        masks: torch.Tensor,
        truth: torch.Tensor | None,
        names: list[str],
    ) -> None:
        """Remove the class from a batch and look at what came out."""
        given = self._grown(masks, 0)
        removed = setup.run(
            images, given, seed=self.seed, truth=truth, cache=self.cache, names=names
        )
        label = setup.label
        self._setups[label] = setup
        self._keep(f"removed/{label}", removed, masks)
        hole = torch.from_numpy(grow(given.numpy(), setup.dilation))
        region = self._grown(masks, RIM)
        gap = ((removed - images).abs() * ~hole).amax(dim=(1, 2, 3))
        found: dict[str, np.ndarray] = {
            "psnr_original": psnr(removed, images),
            "background_psnr": psnr(removed, images, ~hole),
            "background_max": as_numpy(gap),
        }
        if truth is not None:
            found["psnr_truth"] = psnr(removed, truth)
            found["psnr_mask"] = psnr(removed, truth, region)
            effects = effect_mask(images, truth, masks)
            if bool(effects.any()):
                found["psnr_effect"] = psnr(removed, truth, effects)
            else:
                found["psnr_effect"] = np.full(len(images), np.nan)
            if min(images.shape[-2:]) >= 11:
                local = ssim_map(removed, truth)
                found["ssim_truth"] = averaged(local, None)
                found["ssim_mask"] = averaged(local, region)
            if self.lpips is not None:
                found["lpips"] = as_numpy(self.lpips(removed, truth)).astype(np.float64)
                if hasattr(self.lpips, "inside"):
                    inside = self.lpips.inside(removed, truth, region)
                    found["lpips_mask"] = as_numpy(inside).astype(np.float64)
        if self.feature_map is not None:
            found |= self._about_holes(removed, region)
        values = self._values.setdefault(label, defaultdict(list))
        for name, value in found.items():
            values[name].append(value)

    def add_comparison(self, images: torch.Tensor, masks: torch.Tensor) -> None:
        """Take a batch without the class, with holes at places like the others'."""
        self._keep("comparison", images, masks)

    def drop(self, label: str) -> None:
        """Forget a remover that failed."""
        self._setups.pop(label, None)
        self._values.pop(label, None)

    def all_masks(self) -> torch.Tensor:
        """Give the objects of all images so far."""
        return torch.cat(self._masks)

    def result(self, ids: np.ndarray, pool: np.ndarray) -> Collected:
        """Put everything together."""
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        labels = list(self._setups)
        return Collected(
            ids=ids,
            comparison_ids=pool,
            setups=list(self._setups.values()),
            removed={k: joined[f"removed/{k}/features"] for k in labels},
            originals=joined["original/features"],
            comparison=joined["comparison/features"],
            truth=joined.get("truth/features"),
            values={
                k: {name: np.concatenate(parts) for name, parts in self._values[k].items()}
                for k in labels
            },
            crops={k: joined[f"removed/{k}/crops"] for k in labels} if self.encoder else {},
            concepts={k: joined[f"removed/{k}/concepts"] for k in labels} if self.encoder else {},
            original_crops=joined.get("original/crops"),
            comparison_crops=joined.get("comparison/crops"),
            comparison_concepts=joined.get("comparison/concepts"),
            context=joined["context"],
        )

    def _grown(self, masks: torch.Tensor, more: int) -> torch.Tensor:
        return torch.from_numpy(grow(masks.numpy(), self.dilation + more))

    def _about_holes(self, removed: torch.Tensor, region: torch.Tensor) -> dict[str, np.ndarray]:
        """Compute what needs no reference, from maps of features."""
        with torch.no_grad():
            maps = self.feature_map(removed)
        found = {"remove_score": remove_score(maps, region)}
        if find_spec("skimage") is not None:  # which cuts into segments
            deviation = context_deviation(removed, region, maps)
            found["cfd"], found["cfd_context"] = deviation.total, deviation.context
        if self.fine_maps:
            found["coherence"] = removal_coherence(removed, region, self.feature_map)
        return found

    def _keep(self, what: str, images: torch.Tensor, masks: torch.Tensor) -> None:
        features = self.features(images)
        self._parts[f"{what}/features"].append(features)
        if self.encoder is None or self._text is None:
            return
        same = self.features.source is self.encoder
        vectors = features if same else self._vectors(images)
        self._parts[f"{what}/concepts"].append(unit_rows(vectors).numpy().astype(np.float32))
        crops = region_crops(images, masks)
        self._parts[f"{what}/crops"].append(unit_rows(self._vectors(crops)).numpy() @ self._text)

    def _vectors(self, images: torch.Tensor) -> np.ndarray:
        return np.asarray(as_numpy(self.encoder.encode_image(images, progress=False)))


def _cells(feature_map: Any) -> int:
    """Count the cells along a side of the map of a square as RC-S takes it."""
    with torch.no_grad():
        found = feature_map(torch.full((1, 3, 448, 448), 0.5))
    return int(min(found.shape[-2:]))
