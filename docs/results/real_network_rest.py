"""Which ranking is best: by what becomes of the rest, from one start for all."""

from __future__ import annotations

import numpy as np
import torch
from real_network_models import CLASSES, cifar, coded, encode, lite0, photos, resnet20
from scipy.stats import t as student

from conceptlab.importance import SobolImportance
from conceptlab.importance.remainder import REMAINDERS

N_RANDOM = 10
CURVES = ("deletion from f", "insertion to f", "insertion alone")


def remainder() -> dict[str, list[dict]]:
    """Rank the same concepts three ways, and follow all rankings along the same curves.

    Concepts are taken out of f, the rest held; put back on the rest; and put in alone, from
    nothing to h(UW).
    """
    jobs = [
        (f"ResNet-20 {layer}", name, resnet20(layer), cifar(name, n), n_design)
        for layer, n, n_design in (("layer3", 40, 32), ("layer2", 24, 8))
        for name in CLASSES
    ]
    for name in ("dog", "other"):
        jobs.append(("EfficientNet-Lite0", name, lite0(), photos(name, 48), 32))
    rows, differences = [], []
    for network, name, split, images, n_design in jobs:
        A, logits = encode(split, images)
        head, U = coded(split, A.reshape(-1, A.shape[-1]), A)
        answer, rest, k = logits.argmax(1), head.rest(U, A), U.shape[-1]
        orders, areas = {}, {}
        for mode in REMAINDERS:
            found = SobolImportance(n_design, n_bootstrap=0, random_state=0, remainder=mode)(
                head, U, target=answer, activations=A
            )
            orders[mode] = found.ranking()
            areas[mode] = _areas(head, U, rest, answer, orders[mode][None])
        rng = np.random.default_rng(0)
        shuffled = np.array([rng.permutation(k) for _ in range(N_RANDOM)])
        areas["random"] = _areas(head, U, rest, answer, shuffled)
        row = {"network": network, "images": name, "n": len(U)}
        for curve in CURVES:
            row |= {f"{curve}, {mode}": float(areas[mode][curve].mean()) for mode in areas}
        row["Spearman"] = _spearman(orders["drop"], orders["hold"])
        rows.append(row)
        print(row, flush=True)
        for mode in ("hold", "player"):
            for curve in CURVES:
                better = -1 if curve == CURVES[0] else 1
                paired = better * (areas[mode][curve] - areas["drop"][curve])
                differences.append((network, mode, curve, paired))
    return {"rows": rows, "differences": _summary(differences)}


def _areas(head, U, rest, answer, orders: np.ndarray) -> dict[str, np.ndarray]:
    """Give the areas (n,) under each of CURVES, the mean over orders (m, k)."""
    k = orders.shape[1]
    place = orders.argsort(1)
    steps = np.arange(k + 1)[:, None]
    kept, put = place[:, None] >= steps, place[:, None] < steps
    masks = np.concatenate(
        [
            np.concatenate([of, np.full((*of.shape[:2], 1), held)], axis=2)
            for of, held in ((kept, 1), (put, 1), (put, 0))
        ]
    )
    masks = torch.from_numpy(masks.reshape(-1, k + 1)).float()
    found = np.empty((len(U), len(CURVES), len(orders)))
    with torch.no_grad():
        for i in range(len(U)):
            outputs = head.for_image(U[i], rest=rest[i])(masks).softmax(1)[:, answer[i]]
            curves = outputs.numpy().reshape(len(CURVES), len(orders), k + 1)
            found[i] = np.trapezoid(curves, axis=2) / k
    return dict(zip(CURVES, found.mean(2).T, strict=True))


def _spearman(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.corrcoef(one.argsort(), two.argsort())[0, 1])


def _summary(differences: list[tuple[str, str, str, np.ndarray]]) -> list[dict]:
    """Say by how much a ranking is better than that of `drop`: over classes, and pair by pair."""
    found = []
    groups = dict.fromkeys(key[:3] for key in differences)
    for network, mode, curve in groups:
        parts = [d for *key, d in differences if tuple(key) == (network, mode, curve)]
        means = np.array([d.mean() for d in parts])
        # Classes are the sample where there are ten; images where there are two sets only.
        sample = means if len(parts) > 2 else np.concatenate(parts)
        half = student.isf(0.025, len(sample) - 1) * sample.std(ddof=1) / len(sample) ** 0.5
        sure = [
            abs(d.mean()) > student.isf(0.025, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
            for d in parts
        ]
        found.append(
            {
                "network": network,
                "ranking": mode,
                "curve": curve,
                "gain": float(sample.mean()),
                "low": float(sample.mean() - half),
                "high": float(sample.mean() + half),
                "better": int(np.sum(np.array(sure) & (means > 0))),
                "worse": int(np.sum(np.array(sure) & (means < 0))),
                "sets": len(parts),
            }
        )
    return found
