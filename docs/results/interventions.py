"""Accuracy while true concepts are set, by what presence becomes and whether the others follow.

``python docs/results/interventions.py [digits|scenes] [SEED ...]`` writes ``interventions.md``
beside this file; of one world or other seeds it prints the table alone. Digits:
seven segments of a display by class, as directions learned from the rows of the fit. Scenes:
the attributes of the main object, as texts of the embedded encoder or from other scenes.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bottlenecks import ConceptBottleneck, PostHocCBM, SparseCBM
from conceptlab import ConceptBank
from conceptlab.datasets import load_scenes
from conceptlab.encoders import load_encoder
from conceptlab.io.files import atomic_write

DISPLAY = "1110111 0010010 1011101 1011011 0111010 1101011 1101111 1010010 1111111 1111011"
SEGMENTS = np.array([[on == "1" for on in digit] for digit in DISPLAY.split()])
HERE = Path(__file__).resolve().parent
PAGE = """# Concepts set right

Accuracy while true concepts are set one after the other, the least decided first. What a present
concept becomes is one of four ways: quantiles of the activations of the fit; the same, and the
other concepts follow (`realign`); means of the rows that show it; and the default, means and
`realign="auto"`. A step harms where its loss exceeds its interval.

{table}

{facts}

*Made by `python docs/results/interventions.py`.*
"""
WAYS = {
    "quantiles": {"levels": "fit", "realign": False},
    "quantiles, others follow": {"levels": "fit", "realign": True},
    "means": {"levels": "rows", "realign": False},
    "default": {},
}


def digits(seed):
    X, y = load_digits(return_X_y=True)
    a, b, ya, yb = train_test_split(X / 16, y, test_size=0.5, random_state=seed, stratify=y)
    C, D = SEGMENTS[ya], SEGMENTS[yb]
    examples = {f"segment {j}": (a[C[:, j]], a[~C[:, j]]) for j in range(7)}
    for method in ("shrunken", "svm"):
        bank = ConceptBank.from_examples(None, examples, method=method, n_folds=0)
        yield f"digits, {method}, PostHocCBM", PostHocCBM(bank).fit(a, ya), b, D, yb
    model = PostHocCBM(bank, residual=True)
    yield "digits, svm, PostHocCBM + residual", model.fit(a, ya), b, D, yb
    yield "digits, svm, SparseCBM", SparseCBM(bank, random_state=seed).fit(a, ya), b, D, yb
    for mode in ("independent", "sequential", "joint"):
        model = ConceptBottleneck(mode=mode, random_state=seed).fit(a, ya, concepts=C)
        yield f"digits, ConceptBottleneck {mode}", model, b, D, yb


def scenes(seed):
    encoder = load_encoder("embedded", device="cpu")
    train, test, more = (
        load_scenes(part, n, seed=seed, n_objects=(1, 3))
        for part, n in (("train", 600), ("test", 500), ("val", 500))
    )
    X, Xt, E = (encoder.encode_image(s.images) for s in (train, test, more))
    C, D, shown = train.main_attributes, test.main_attributes, more.main_attributes
    often = np.flatnonzero(
        np.all([(v.sum(0) >= 5) & ((~v).sum(0) >= 5) for v in (C, D, shown)], axis=0)
    )
    names = [train.attribute_names[j] for j in often]
    pairs = {name: (E[shown[:, j]], E[~shown[:, j]]) for name, j in zip(names, often, strict=True)}
    banks = {
        "texts": ConceptBank.from_texts(encoder, names),
        "examples": ConceptBank.from_examples(None, pairs, n_folds=0, space=encoder.fingerprint),
    }
    D = D[:, often]
    for kind, bank in banks.items():
        yield f"scenes, {kind}, PostHocCBM", PostHocCBM(bank).fit(X, train.y), Xt, D, test.y
        model = SparseCBM(bank, nec=3, random_state=seed).fit(X, train.y)
        yield f"scenes, {kind}, SparseCBM(nec=3)", model, Xt, D, test.y
    for mode in ("independent", "joint"):
        model = ConceptBottleneck(mode=mode, random_state=seed)
        model.fit(X, train.y, concepts=C[:, often])
        yield f"scenes, ConceptBottleneck {mode}", model, Xt, D, test.y


def table(worlds, seeds):
    """Lay out the accuracy after none, one, two and all concepts, by model and way."""
    found = {}
    for seed in seeds:
        for world in worlds:
            for tag, model, X, C, y in {"digits": digits, "scenes": scenes}[world](seed):
                for way, options in WAYS.items():
                    curve = model.intervention_curve(X, C, y, **options)
                    row = (*curve.accuracy[[0, 1, 2, -1]], len(curve.harmful))
                    found.setdefault((tag, way), []).append(row)
                    sys.stderr.write(f"{seed} {tag} {way} {np.round(row, 3)}\n")
    lines = [
        "| model | presence becomes | start | 1 | 2 | all | steps that harm |",
        "|---" * 7 + "|",
    ]
    for (tag, way), rows in found.items():
        mean = np.mean(rows, axis=0)
        cells = " | ".join(f"{v:.3f}" for v in mean[:4])
        lines.append(f"| {tag} | {way} | {cells} | {mean[4]:.1f} |")
    return "\n".join(lines)


def main():
    warnings.simplefilter("ignore")
    start = time.process_time()
    worlds = sys.argv[1:2] or ["digits", "scenes"]
    seeds = [int(s) for s in sys.argv[2:]] or [0, 1, 2, 3]
    made = table(worlds, seeds)
    facts = f"Seeds {seeds}, {time.process_time() - start:.0f} CPU s, 1 thread."
    if sys.argv[1:]:
        sys.stdout.write(f"{made}\n\n{facts}\n")
        return
    atomic_write(HERE / "interventions.md", PAGE.format(table=made, facts=facts))


if __name__ == "__main__":
    main()
