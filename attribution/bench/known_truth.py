"""Do the concepts that CRAFT finds match the ones that were planted? Five draws of scenes.

The embedded classifier tells species by the colour, shape and texture of their
main object; every scene comes with its attributes and masks. Concepts of
several extractors on the same crops are matched one-to-one with the species'
attributes (Hungarian assignment on correlations) and scored three ways:

- *correlation* of a concept's coefficient in an image with the attribute of the
  image's main object, over matched pairs;
- *pointing*: share of the energy of a matched concept's map inside the objects
  that have the attribute, over images whose main object has it; the objects'
  share of the area is the floor;
- *deletion*: area under the curve of the target's probability as concepts are
  taken away by their Sobol importance, beside random and reverse order.

Attributes are matched at ``layer2`` on whole-image maps, where the network still
holds them apart, and deletion is measured at ``layer4`` on crops, where the head is
linear. The same matching at ``layer4`` stands in the table without a goal: there
colours, shapes and textures have merged into parts of species, which is what
non-negative concepts then show, and directions of variance (PCA) follow single
attributes better.
"""

from __future__ import annotations

__all__ = ["match_attributes", "run", "score_seed"]

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from attribution.faithfulness import faithfulness
from conceptlab.bench import BenchResult, Row
from conceptlab.datasets import load_embedded_classifier, load_scenes
from conceptlab.extractors import (
    CRAFT,
    ConceptExtractor,
    KMeansConcepts,
    NMFConcepts,
    PCAConcepts,
    RandomConcepts,
)
from conceptlab.importance import HeadOnCoefficients
from conceptlab.maps import energy_pointing
from conceptlab.models import SplitModel

N_SEEDS, N_IMAGES = 5, 200
EARLY = {"layer": "layer2", "n_concepts": 24, "patches": "none"}
LATE = {"layer": "layer4", "n_concepts": 16, "patches": "grid", "patch_size": 24}
OURS = "CRAFT (NMF)"
EXTRACTORS: dict[str, type[ConceptExtractor]] = {
    OURS: NMFConcepts,
    "PCA": PCAConcepts,
    "k-means": KMeansConcepts,
    "random directions": RandomConcepts,
}
SIGNED = {"PCA", "random directions"}
"""Extractors whose directions have no sign, so that a negative correlation counts too."""


def match_attributes(
    U: np.ndarray, presence: np.ndarray, *, signed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair concepts with attributes one-to-one by correlation.

    Parameters
    ----------
    U : ndarray of shape (n, k)
        Coefficients of images.
    presence : ndarray of shape (n, n_attributes), bool
        Which attributes an image shows.
    signed : bool
        Whether a negative correlation counts as much as a positive one.

    Returns
    -------
    concepts, attributes : ndarray of shape (min(k, n_attributes),)
    correlations : ndarray of the same shape
    """
    left = (U - U.mean(0)) / np.maximum(U.std(0), 1e-12)
    right = presence - presence.mean(0)
    right = right / np.maximum(right.std(0), 1e-12)
    table = left.T @ right / len(U)
    score = np.abs(table) if signed else table
    concepts, attributes = linear_sum_assignment(-score)
    return concepts, attributes, score[concepts, attributes]


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Score every extractor on scenes whose concepts are known.

    Parameters
    ----------
    quick : bool
        One draw instead of five.
    seed : int
        The first seed.

    Returns
    -------
    BenchResult
        One row a score and control; ratios above 1 mean that CRAFT is better.
    """
    seeds = range(seed, seed + (1 if quick else N_SEEDS))
    found: dict[str, dict[str, list[float]]] = {name: {} for name in EXTRACTORS}
    for number in seeds:
        for name, scores in score_seed(number).items():
            for key, value in scores.items():
                found[name].setdefault(key, []).append(value)
    ours = found[OURS]
    others = [name for name in EXTRACTORS if name != OURS]
    rows = [
        _row(metric, ours[metric], found[name][metric], name)
        for metric in ("correlation", "pointing")
        for name in others
    ]
    rows.append(_row("pointing", ours["pointing"], ours["area"], "share of the area"))
    for control in ("random order", "reverse order"):
        rows.append(_row("deletion AUC", ours["deletion"], ours[control], control, lower=True))
    for metric in ("late correlation", "late pointing"):
        for name in others:
            rows.append(_row(metric, ours[metric], found[name][metric], name, goal=False))
    settings = {"seeds": len(seeds), "images": N_IMAGES, "early": EARLY, "late": LATE}
    return BenchResult("known-truth", rows, seed, settings)


def score_seed(seed: int) -> dict[str, dict[str, float]]:
    """Fit every extractor on one draw of scenes.

    Parameters
    ----------
    seed : int
        Seed of the scenes and of every fit.

    Returns
    -------
    dict of str to dict of str to float
        Scores by extractor.
    """
    scenes = load_scenes("test", N_IMAGES, seed=seed)
    model = load_embedded_classifier()
    planted = sorted({a for species in scenes.species for a in species.attributes})
    # The species is decided by the main object, so its attributes are the truth.
    presence = np.array([[a in scenes.species[y].attributes for a in planted] for y in scenes.y])
    masks = np.stack([scenes.attribute_masks(name) for name in planted], axis=1)
    scores: dict[str, dict[str, float]] = {}
    for name, kind in EXTRACTORS.items():
        scores[name] = {}
        for prefix, settings in (("", EARLY), ("late ", LATE)):
            chosen = dict(settings)
            split = SplitModel(model, str(chosen.pop("layer")), class_names=scenes.class_names)
            craft = CRAFT(split, extractor=kind(), random_state=seed).set_params(**chosen)
            ranked = name == OURS and settings is LATE
            craft.fit(scenes.images, target="predicted" if ranked else None)
            U = craft.transform(scenes.images, pooled=False)
            pooled = U.mean(axis=(1, 2))
            pairs = match_attributes(pooled, presence, signed=name in SIGNED)
            found = {"correlation": float(pairs[2].mean())}
            found |= _pointing(craft, scenes.images, masks, *pairs[:2], pooled, presence)
            scores[name] |= {prefix + key: value for key, value in found.items()}
            if ranked:
                scores[name] |= _deletion(craft, pooled, seed)
    return scores


def _pointing(
    craft: CRAFT,
    images: np.ndarray,
    masks: np.ndarray,
    concepts: np.ndarray,
    attributes: np.ndarray,
    U: np.ndarray,
    presence: np.ndarray,
) -> dict[str, float]:
    """Average, over matched pairs and images with the attribute, energy inside the objects."""
    maps = craft.maps(images, method="upsample")
    energy, area = [], []
    for concept, attribute in zip(concepts, attributes, strict=True):
        shown = presence[:, attribute] & masks[:, attribute].any(axis=(1, 2))
        # A direction without sign points with the side that correlates.
        covariance = np.cov(U[:, concept], presence[:, attribute])[0, 1]
        values = maps[shown, concept] * (1.0 if covariance >= 0 else -1.0)
        share = energy_pointing(values, masks[shown, attribute])
        energy.append(float(np.nanmean(np.nan_to_num(share))))
        area.append(float(masks[shown, attribute].mean()))
    return {"pointing": float(np.mean(energy)), "area": float(np.mean(area))}


def _deletion(craft: CRAFT, U: Any, seed: int) -> dict[str, float]:
    report = faithfulness(
        HeadOnCoefficients.from_extractor(craft.split, craft.extractor_),
        U,
        craft.importance_,
        target=craft.importance_.target,
        random_state=seed,
    )
    return {
        "deletion": report.deletion_auc,
        "random order": report.deletion_auc_random,
        "reverse order": report.deletion_auc_reverse,
    }


def _row(
    metric: str,
    ours: list[float],
    peer: list[float],
    against: str,
    *,
    lower: bool = False,
    goal: bool = True,
) -> Row:
    a, b = float(np.mean(ours)), float(np.mean(peer))
    ratio = b / a if lower else a / b
    return Row(
        f"{metric}, against {against}",
        a,
        b,
        ratio,
        "> 1" if goal else "",
        ratio > 1 if goal else None,
        unit="mean",
        note=f"sd {np.std(ours):.3f} and {np.std(peer):.3f}",
    )
