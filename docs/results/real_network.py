"""What is said of two real networks: docs/results/real-network.md.

Reads the folder that ``CONCEPTLAB_DATA`` names, or ``../shared/data`` beside the checkout (see
real_network_models.py). Each part takes some CPU minutes:

    python docs/results/real_network.py rows remainder intervals refit optima power speed
    python docs/results/real_network.py page
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FOUND = HERE / "real-network.json"
sys.path.insert(0, str(HERE))

from real_network_intervals import coverage_by_network, intervals, refit
from real_network_mixing import power
from real_network_models import cifar, coded, encode, lite0, photos, resnet20
from real_network_page import write
from real_network_rest import remainder

from conceptlab.extractors import NMFConcepts
from conceptlab.importance import decision
from conceptlab.models import pooled_activations

N_STARTS = 20


def rows() -> list[dict]:
    """Sufficient and necessary by what is factorised."""
    return [row for job in row_jobs() for row in rows_of(*job)]


def row_jobs() -> list[tuple]:
    """List network, images, cut model, photos, side of a crop, and numbers of concepts."""
    jobs = [
        (f"ResNet-20 {layer}", name, resnet20(layer), cifar(name, 60), 9, (10,))
        for layer in ("layer3", "layer2")
        for name in ("dog", "ship", "horse")
    ]
    for name in ("dog", "other"):
        jobs.append(("EfficientNet-Lite0", name, lite0(), photos(name, 48), 64, (10,)))
    return jobs


def rows_of(network, name, split, images, side, ranks) -> list[dict]:
    """Measure one of :func:`row_jobs`."""
    A, _ = encode(split, images)
    crops = np.asarray(pooled_activations(split, images, patch_size=side, progress=False).rows)
    whole = A.reshape(-1, A.shape[-1])
    ways = {"crops": crops, "positions": whole, "both": np.concatenate([crops, whole])}
    found = []
    for k in ranks:
        for how, used in ways.items():
            head, U = coded(split, used, A, k)
            facts = decision(head, U, A).to_dict()
            found.append({"network": network, "images": name, "k": k, "rows": how, **facts})
            print(found[-1], flush=True)
    return found


def optima() -> list[dict]:
    """How far the default factorisation ends from the best of 20 scikit-learn starts."""
    return [optimum_of(*job) for job in optimum_jobs()]


def optimum_jobs() -> list[tuple]:
    """List three real matrices."""
    return [
        ("ResNet-20 layer3, 60 dogs", resnet20("layer3"), cifar("dog", 60)),
        ("ResNet-20 layer2, 30 dogs", resnet20("layer2"), cifar("dog", 30)),
        ("EfficientNet-Lite0, 48 dogs", lite0(), photos("dog", 48)),
    ]


def optimum_of(name, split, images) -> dict:
    """Measure one of :func:`optimum_jobs`."""
    from sklearn.decomposition import NMF

    A, _ = encode(split, images)
    A = A.reshape(-1, A.shape[-1])
    errors = []
    for seed in range(N_STARTS):
        init = "random" if seed else "nndsvda"
        model = NMF(10, init=init, random_state=seed, max_iter=400, tol=1e-5)
        errors.append(float(model.fit(A).reconstruction_err_) ** 2)
    row = {"what": name, "shape": list(A.shape), "worst": max(errors) / min(errors) - 1}
    for n_init in (1, 5):
        start = time.process_time()
        ends = [
            NMFConcepts(10, n_init=n_init, random_state=s).fit(A).reconstruction_err_ ** 2
            for s in range(3)
        ]
        row[f"n_init={n_init}"] = max(ends) / min(errors) - 1
        row[f"seconds, n_init={n_init}"] = (time.process_time() - start) / 3
    print(row, flush=True)
    return row


def speed() -> list[dict]:
    """CPU seconds of `explain` on 48 photos at EfficientNet-Lite0, beside bare passes."""
    import torch

    from attribution.explain import explain

    split, images = lite0(), photos("dog", 48)
    with torch.no_grad():
        split.f(images[:2])
    start = time.process_time()
    with torch.no_grad():
        for i in range(0, len(images), 16):
            split.f(images[i : i + 16])
    bare = time.process_time() - start
    found = []
    for what, settings in (
        ("explain", {}),
        ("explain, no maps, no refits", {"maps": None, "n_refits": 0}),
    ):
        start = time.process_time()
        explain(split, images, random_state=0, progress=False, **settings)
        seconds = time.process_time() - start
        found.append({"what": what, "seconds": seconds, "bare": bare, "ratio": seconds / bare})
        print(found[-1], flush=True)
    return found


PARTS = {
    "rows": rows,
    "remainder": remainder,
    "intervals": intervals,
    "refit": refit,
    "optima": optima,
    "power": power,
    "speed": speed,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for part in sys.argv[1:]:
        if part != "page":
            values = PARTS[part]()
            data = json.loads(FOUND.read_text()) if FOUND.exists() else {}
            FOUND.write_text(json.dumps({**data, part: values}, indent=1) + "\n")
            continue
        data = json.loads(FOUND.read_text())
        if "intervals" in data:
            data["coverage"] = coverage_by_network(data["intervals"])
        write(data, HERE / "real-network.md")
