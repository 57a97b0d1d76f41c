"""Are concepts named right? Scenes, whose words are known, beside published rules.

CRAFT is fitted to 200 scenes, at a layer of attributes and at the layer that ``explain`` takes.
Each rule names its concepts by the words that define species; right is the word whose presence
follows the coefficient most closely on 400 other scenes. Peers, re-derived from their papers:
soft-WPMI and cos-cubed (CLIP-Dissect: Oikarinen and Weng, ICLR 2023), the mean embedding of a
concept's best patches, the correlation over crops beside images, a word at random. The ceiling
is the correlation with the true words on the same 200 images.

How often the null holds a name back is measured on coefficients of shuffled images. Directions
drawn at random in the layer are named too: they follow what images show (a direction of a layer
that tells colours tells colours), so that their names are mostly right, which is told beside.
"""

from __future__ import annotations

__all__ = ["RULES", "cos_cubed", "run", "score_seed", "soft_wpmi"]

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from conceptlab.bench import BenchResult, Row
from conceptlab.datasets import load_embedded_classifier, load_scenes
from conceptlab.encoders import load_encoder
from conceptlab.extractors import CRAFT, RandomConcepts
from conceptlab.extractors.naming import name_coefficients
from conceptlab.models import SplitModel

N_SEEDS, N_IMAGES, N_TRUTH = 5, 200, 400
LAYERS: dict[str, dict[str, Any]] = {
    "layer2, 32 concepts": {"layer": "layer2", "n_concepts": 32, "patches": "none"},
    "layer4, 10 concepts": {"layer": "layer4", "n_concepts": 10, "patches": "none"},
}
GOAL, ABSTAINS = 0.65, 0.9
_SIDE, _STARTS = 32, (0, 16, 32)


def correlation(U: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Correlate columns of U (n, k) with columns of S (n, t): (k, t)."""
    left, right = (v - v.mean(0) for v in (U, S))
    left, right = (v / np.maximum(v.std(0), 1e-12) for v in (left, right))
    return np.asarray(left.T @ right / len(U))


def soft_wpmi(
    U: np.ndarray, S: np.ndarray, *, scale: float = 10.0, top: int = 100, weight: float = 1.0
) -> np.ndarray:
    """Score words by soft weighted pointwise mutual information (CLIP-Dissect, section 3.3).

    Parameters
    ----------
    U : ndarray of shape (n, k)
        Coefficients.
    S : ndarray of shape (n, t)
        Cosine of images and words.
    scale : float
        Of the softmax over words.
    top : int
        Images that count for a concept; the chance to belong to it falls from 0.998 to 0.97.
    weight : float
        Of the prior of a word, the mean over concepts.

    Returns
    -------
    ndarray of shape (k, t)

    Examples
    --------
    >>> U, S = np.eye(4)[:, :2], np.eye(4)[:, :3]
    >>> soft_wpmi(U, S, scale=5.0, top=1, weight=0.0).argmax(1).tolist()
    [0, 1]
    """
    logits = scale * S
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    found = []
    for column in U.T:
        best = np.argsort(-column, kind="stable")[:top]
        belongs = np.linspace(0.998, 0.97, len(best))[:, None]
        found.append(np.log(1 + belongs * (p[best] - 1)).sum(axis=0))
    likelihood = np.stack(found)
    peak = likelihood.max(axis=0)
    prior = np.log(np.exp(likelihood - peak).mean(axis=0)) + peak
    return likelihood - weight * prior


def cos_cubed(U: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Score words by the cosine of cubed deviations (CLIP-Dissect, section 3.3): (k, t).

    Examples
    --------
    >>> cos_cubed(np.eye(4)[:, :2], np.eye(4)[:, :3]).argmax(1).tolist()
    [0, 1]
    """
    left, right = ((v - v.mean(0)) ** 3 for v in (U, S))
    left, right = (v / np.maximum(np.linalg.norm(v, axis=0), 1e-12) for v in (left, right))
    return np.asarray(left.T @ right)


def _best_patches(view: _View, n: int = 24) -> np.ndarray:
    """Compare words with the mean vector of a concept's best crops, less the mean of all."""
    U = view.crop_U.reshape(-1, view.crop_U.shape[-1])
    seen = view.crop_vectors.reshape(len(U), -1)
    means = np.stack([seen[np.argsort(-u, kind="stable")[:n]].mean(0) for u in U.T])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    found = means @ view.words.T
    return np.asarray(found - found.mean(0))


class _View:
    """One set of concepts: coefficients and vectors of images and of their crops."""

    def __init__(self, U: np.ndarray, places: np.ndarray, base: dict[str, Any]) -> None:
        self.U, self.crop_U = U, places
        self.vectors, self.crop_vectors, self.words = base["images"], base["crops"], base["words"]
        self.presence = base["presence"]

    @property
    def S(self) -> np.ndarray:
        return np.asarray(self.vectors @ self.words.T)

    @property
    def crops(self) -> tuple[np.ndarray, np.ndarray]:
        U = self.crop_U.reshape(-1, self.crop_U.shape[-1])
        return U, (self.crop_vectors @ self.words.T).reshape(len(U), -1)


RULES: dict[str, Callable[[_View], np.ndarray]] = {
    "ours": lambda v: correlation(v.U, v.S),
    "CLIP-Dissect, soft-WPMI": lambda v: soft_wpmi(v.U, v.S),
    "CLIP-Dissect, cos-cubed": lambda v: cos_cubed(v.U, v.S),
    "mean of the best patches": _best_patches,
    "correlation over images and crops": lambda v: correlation(v.U, v.S) + correlation(*v.crops),
    "random word": lambda v: np.random.default_rng(len(v.U)).random((v.U.shape[1], len(v.words))),
    "ceiling: the true words of the same images": lambda v: correlation(v.U, v.presence),
}


def score_seed(seed: int, where: str) -> dict[str, float]:
    """Name the concepts of one draw of scenes by every rule.

    Parameters
    ----------
    seed : int
        Seed of scenes and fits.
    where : str
        A key of ``LAYERS``.

    Returns
    -------
    dict of str to float
        Share right by rule, and the shares of what is named.
    """
    scenes, encoder = load_scenes("test", N_IMAGES + N_TRUTH, seed=seed), load_encoder()
    words = sorted({a for species in scenes.species for a in species.attributes})
    columns = [list(scenes.attribute_names).index(word) for word in words]
    presence = scenes.attributes[:, columns].astype(float)
    some = torch.from_numpy(scenes.images[:N_IMAGES])
    corners = [(y, x) for y in _STARTS for x in _STARTS]
    crops = [
        torch.nn.functional.interpolate(
            some[:, :, y : y + _SIDE, x : x + _SIDE], size=64, mode="bilinear"
        )
        for y, x in corners
    ]
    base = {
        "images": np.asarray(encoder.encode_image(some)),
        "crops": np.stack([np.asarray(encoder.encode_image(crop)) for crop in crops], axis=1),
        "words": np.asarray(encoder.encode_text(words)),
        "presence": presence[:N_IMAGES],
    }
    settings = dict(LAYERS[where])
    split = SplitModel(load_embedded_classifier(), settings.pop("layer"))
    craft = CRAFT(split, depth=0, n_refits=0, random_state=seed, **settings)
    found: dict[str, float] = {}
    for kind, extractor in (("", None), ("random directions", RandomConcepts())):
        craft.set_params(extractor=extractor).fit(scenes.images[:N_IMAGES], target=None)
        U = craft.transform(scenes.images, pooled=False)
        pooled = U.mean(axis=(1, 2))
        truth = correlation(pooled[N_IMAGES:], presence[N_IMAGES:]).argmax(axis=1)
        names = name_coefficients(pooled[:N_IMAGES], some, encoder, words, random_state=seed)
        if kind:
            found["random directions named"] = float(names.named.mean())
            found["random directions right"] = float((names.scores.argmax(1) == truth).mean())
            continue
        view = _View(pooled[:N_IMAGES], _at_crops(U[:N_IMAGES], corners), base)
        for rule, score in RULES.items():
            found[rule] = float((score(view).argmax(axis=1) == truth).mean())
        found["named"] = float(names.named.mean())
        rng = np.random.default_rng(seed)
        shuffled = np.stack([rng.permutation(u) for u in pooled[:N_IMAGES].T], axis=1)
        nothing = name_coefficients(shuffled, some, encoder, words, random_state=seed)
        found["abstains"] = float(1 - nothing.named.mean())
    return found


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure how often names are right, beside other rules, and how often they are held back.

    Parameters
    ----------
    quick : bool
        One draw instead of five.
    seed : int
        The first seed.

    Returns
    -------
    BenchResult
    """
    seeds = range(seed, seed + (1 if quick else N_SEEDS))
    rows = []
    for where in LAYERS:
        found = [score_seed(number, where) for number in seeds]
        mean = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
        ours = mean["ours"]
        note = ", ".join(f"{f['ours']:.2f}" for f in found)
        rows.append(
            Row(f"right, {where}", ours, None, ours, f">= {GOAL}", ours >= GOAL, "share", note)
        )
        for rule in RULES:
            if rule != "ours":
                rows.append(Row(f"right, {where}: {rule}", ours, mean[rule], unit="share"))
        held = mean["abstains"]
        rows += [
            Row(
                f"named, {where}: concepts, random directions",
                mean["named"],
                mean["random directions named"],
                unit="share",
            ),
            Row(
                f"right, {where}: random directions",
                ours,
                mean["random directions right"],
                unit="share",
            ),
            Row(
                f"no name, {where}: shuffled images",
                held,
                None,
                held,
                f">= {ABSTAINS}",
                held >= ABSTAINS,
                "share",
            ),
        ]
    settings = {"seeds": len(seeds), "images": N_IMAGES, "truth": N_TRUTH, "layers": LAYERS}
    return BenchResult("naming", rows, seed, settings)


def _at_crops(U: np.ndarray, corners: list[tuple[int, int]]) -> np.ndarray:
    """Average coefficients (n, h, w, k) over the positions of each crop: (n, crops, k)."""
    h, w = U.shape[1:3]
    parts = []
    for y, x in corners:
        rows = slice(y * h // 64, max(-(-(y + _SIDE) * h // 64), y * h // 64 + 1))
        columns = slice(x * w // 64, max(-(-(x + _SIDE) * w // 64), x * w // 64 + 1))
        parts.append(U[:, rows, columns].mean(axis=(1, 2)))
    return np.stack(parts, axis=1)
