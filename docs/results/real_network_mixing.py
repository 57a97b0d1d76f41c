"""What the test of a mixture sees, by layer, by what a row is, and by the number of rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from real_network_models import CLASSES, cifar, encode, resnet20

from conceptlab.explanation.mixing import mixing_test
from conceptlab.models import pooled_activations

N_SINGLE = 8  # draws of each class
ROWS = {"whole images": None, "crops of 16 px": 16, "crops of 9 px": 9}


def power() -> list[dict]:
    """How often the mixing test rejects one class, and half of one with half of another."""
    found = []
    for layer in ("layer3", "layer2", "layer1"):
        split = resnet20(layer)
        for how, side in ROWS.items():
            if layer == "layer1" and side:
                continue
            seen = {name: _rows(split, cifar(name, 200), side) for name in CLASSES}
            for size in (30, 60, 120):
                found.append({"layer": layer, "rows": how, "size": size, **_rates(seen, size)})
                print(found[-1], flush=True)
    return found


def _rows(split, images, side: int | None) -> np.ndarray:
    if side is None:
        return encode(split, images)[0].mean((1, 2))
    made = pooled_activations(
        split, images, mode="random", patch_size=side, n_crops=1, progress=False
    )
    return np.asarray(made.rows)


def _rates(seen: dict[str, np.ndarray], size: int) -> dict[str, float]:
    """Give level and power, and how well kurtosis and index tell them apart (AUC)."""
    rng = np.random.default_rng(0)
    one = [
        mixing_test(rng.permutation(seen[name])[:size], random_state=0)
        for name in CLASSES
        for _ in range(N_SINGLE)
    ]
    two = [
        mixing_test(
            np.concatenate([rng.permutation(seen[name])[: size // 2] for name in pair]),
            random_state=0,
        )
        for pair in combinations(CLASSES, 2)
    ]

    def apart(name: str) -> float:
        a, b = (np.array([getattr(test, name) for test in part]) for part in (one, two))
        return float((a[:, None] > b).mean())

    return {
        "level": float(np.mean([test.mixes() for test in one])),
        "power": float(np.mean([test.mixes() for test in two])),
        "AUC, kurtosis": apart("kurtosis"),
        "AUC, index": apart("cluster_index"),
    }
