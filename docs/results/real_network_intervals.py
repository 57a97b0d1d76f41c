"""Do intervals of global importances cover? Given the concepts, and over refits too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from real_network_models import CLASSES, cifar, coded, encode, lite0, photos, resnet20

from conceptlab.extractors import CRAFT, NMFConcepts
from conceptlab.extractors.matching import match_concepts
from conceptlab.importance import HeadOnCoefficients, SobolImportance
from conceptlab.importance.intervals import mean_interval

CHOSE = (("layer3", "dog"), ("layer3", "ship"))
"""Populations that the weight of the pseudo-images was chosen on."""
SIZES = (10, 40, 100)
N_DRAWS = 120


def populations() -> Iterator[tuple[str, str, bool, np.ndarray]]:
    """Give (network, images, whether the weight was chosen on them, local importances).

    Concepts are those of the first 60 photos (48 at Lite0), importances those of others.
    """
    yield from at_resnet20("layer3", CLASSES, 500, 32)
    yield from at_resnet20("layer2", ("airplane", "bird", "cat", "horse", "ship"), 210, 8)
    yield from at_lite0()


def at_resnet20(layer, names, last: int, n_design: int) -> Iterator:
    """Give the populations of some classes at a layer of ResNet-20."""
    split = resnet20(layer)
    for name in names:
        A, _ = encode(split, cifar(name, last))
        target = CLASSES.index(name)
        values = _importances(split, A[:60], A[60:], target, 10, n_design)
        yield f"ResNet-20 {layer}", name, (layer, name) in CHOSE, values


def at_lite0() -> Iterator:
    """Give the populations at EfficientNet-Lite0."""
    split = lite0()
    A = {name: encode(split, photos(name, 100))[0] for name in ("dog", "other")}
    A["both"] = np.concatenate(list(A.values()))
    for k, of, on in (
        (10, "dog", "dog"),
        (10, "other", "other"),
        (10, "dog", "both"),
        (10, "other", "dog"),
        (25, "dog", "dog"),
        (25, "other", "other"),
    ):
        values = _importances(split, A[of][:48], A[on], "predicted", k, 32)
        yield "EfficientNet-Lite0", f"{on}, {k} concepts of {of}", False, values


def _importances(split, fitted, A, target, k: int, n_design: int) -> np.ndarray:
    head, U = coded(split, fitted.reshape(-1, A.shape[-1]), A, k)
    return SobolImportance(n_design, n_bootstrap=0, random_state=0)(head, U, target=target).values


def intervals() -> list[dict]:
    """How often intervals of n images hold the mean of all; percentile bootstrap beside."""
    return [coverage_of(*population) for population in populations()]


def coverage_of(network: str, name: str, chose: bool, values: np.ndarray) -> dict:
    """Measure one of :func:`populations`."""
    rng, truth = np.random.default_rng(0), values.mean(0)
    row = {"network": network, "images": name, "chosen on": "yes" if chose else "no"}
    for n in SIZES:
        held, widths, percentile = [], [], []
        for _ in range(N_DRAWS if n == 40 else N_DRAWS // 3):
            drawn = values[rng.integers(len(values), size=n)]
            low, high = mean_interval(drawn, 0.95, 400, rng).T
            held.append((low <= truth) & (truth <= high))
            widths.append((high - low).mean())
            weights = rng.multinomial(n, np.full(n, 1 / n), size=400) / n
            low, high = np.quantile(weights @ drawn, [0.025, 0.975], axis=0)
            percentile.append(((low <= truth) & (truth <= high)).mean())
        row |= {
            f"n={n}": float(np.mean(held)),
            f"least, n={n}": float(np.mean(held, axis=0).min()),
            f"width, n={n}": float(np.mean(widths)),
            f"percentile, n={n}": float(np.mean(percentile)),
        }
    print(row, flush=True)
    return row


def coverage_by_network(found: list[dict]) -> list[dict]:
    """Average over the populations of a network, those that chose the weight apart."""
    rows = []
    for key in dict.fromkeys((row["network"], row["chosen on"]) for row in found):
        part = [row for row in found if (row["network"], row["chosen on"]) == key]
        row = {"network": key[0], "chosen on": key[1], "populations": len(part)}
        for n in SIZES:
            for what in ("n", "width, n", "percentile, n"):
                row[f"{what}={n}"] = float(np.mean([one[f"{what}={n}"] for one in part]))
        row["lowest, n=40"] = min(one["n=40"] for one in part)
        row["highest, n=40"] = max(one["n=40"] for one in part)
        rows.append(row)
    return rows


def refit() -> list[dict]:
    """Measure the coverage of `interval="refit"` for a class."""
    return [refit_of(name) for name in ("cat",)]


def refit_of(name: str, n_draws: int = 4, n_refits: int = 20) -> dict:
    """How often `interval="refit"` of 40 images holds what all photos give, fit and all.

    The long-run value of a concept is the importance, on all photos, of its partner in the
    concepts that all photos give.
    """
    split = resnet20("layer3")
    images, target = cifar(name, 400), CLASSES.index(name)
    A, _ = encode(split, images)
    whole = NMFConcepts(10, n_init=5, random_state=0).fit(A.reshape(-1, A.shape[-1])[::5])
    U = whole.transform(A.reshape(-1, A.shape[-1])).reshape(*A.shape[:-1], -1)
    head = HeadOnCoefficients.from_extractor(split, whole)
    truth = SobolImportance(n_bootstrap=0)(head, U, target=target).mean
    rng, rows = np.random.default_rng(0), []
    for draw in range(n_draws):
        some = images[rng.choice(len(images), 40, replace=False)]
        craft = CRAFT(split, 10, patches="none", interval="refit", random_state=draw)
        craft.set_params(n_refits=n_refits).fit(some, target=target, progress=False)
        order, cosine = match_concepts(craft.components_, whole.components_)
        given = craft.estimate_importance(some, target=target, progress=False).interval
        ends = np.stack([craft.importance_.interval, given])
        held = (ends[..., 0] <= truth[order]) & (truth[order] <= ends[..., 1])
        rows.append([*held, *np.diff(ends)[..., 0], cosine])
    refits, given, width, width_given, cosine = np.mean(rows, axis=(0, 2))
    found = {
        "network": "ResNet-20 layer3",
        "images": name,
        "draws": n_draws,
        "refit": float(refits),
        "given": float(given),
        "width": float(width),
        "width, given": float(width_given),
        "cosine": float(cosine),
    }
    print(found, flush=True)
    return found
