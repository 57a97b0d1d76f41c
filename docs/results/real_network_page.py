"""The page of docs/results/real_network.py, from what its parts found."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(data: dict[str, Any], path: Path) -> None:
    """Write the page of all the parts that were measured."""
    if "remainder" in data:
        data = {**data, **{f"remainder {name}": rows for name, rows in data["remainder"].items()}}
    if "rows" in data:
        data["best"] = _best(data["rows"])
    lines = [HEAD]
    for part, text in TEXTS.items():
        if part in data:
            lines += [text, _table(COLUMNS[part], data[part])]
    path.write_text("\n\n".join(lines) + "\n")


def _best(rows: list[dict]) -> list[dict]:
    """Put what positions reach beside the best of the three ways, set by set."""
    found = []
    for key in dict.fromkeys((row["network"], row["images"], row["k"]) for row in rows):
        part = {
            row["rows"]: row["sufficient"]
            for row in rows
            if (row["network"], row["images"], row["k"]) == key
        }
        short = max(part.values()) - part["positions"]
        found.append(
            {
                "network": key[0],
                "images": key[1],
                "k": key[2],
                **part,
                "short": short,
                "within": "yes" if short <= 0.03 else "no",
            }
        )
    return found


def _table(columns: dict[str, str], found: list[dict]) -> str:
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
ImageNet photos, measured by `docs/results/real_network.py`, every table of this page. Weights and
photos are not part of the distribution; how they come is said in the script. Not measured yet:
sufficiency of 25 concepts at EfficientNet-Lite0, and `explain` beside bare passes (the part
`speed`)."""

TEXTS = {
    "best": """## What is factorised

Share of the images in which h(UW) gives the model's answer (*sufficient*), by what was
factorised: crops (9 of 32 px, 64 of 224 px), the positions of the whole images, or both together.
Positions are the default of `explain`; *short* is how far they are from the best of the three.
One image is 0.017 (ResNet-20) and 0.021 (Lite0).""",
    "rows": """### In full

*Sufficient* beside always giving the commonest answer and h of the mean activation. *Kept*:
share in which the rest alone, h(A − UW), still gives the answer. *P*: mean probability of the
answer by f and by the rest alone. *Error*: norm of A − UW over that of A. Crops code another
function than the model.""",
    "remainder differences": """## What becomes of the rest

Importances of the same concepts (positions, k = 10) with the rest dropped (the paper), held, and
as a player, and how good the rankings are along the same three curves of the probability of the
model's answer: concepts taken out of f, the rest held; put back on the rest, up to f; put in
alone, from nothing up to h(UW). *Gain*: how much better the area is than with the rest dropped
(positive is better), with a 95 % interval over the ten classes (Lite0: over the images); *better*
and *worse*: in how many sets a paired interval over the images lies off zero. Where the head is
linear in the pooled activations (layer3, Lite0), dropping and holding rank alike by definition.
At layer2 holding is better on average and no difference is sure over the classes, whichever the
curve. So nothing here asks for another default than the paper's: `remainder="drop"`.""",
    "remainder rows": """### In full

Areas under the curves, of random orders too (ten), and Spearman's correlation of the rankings
of `drop` and `hold`.""",
    "coverage": """## Do the intervals cover?

Concepts fixed; how often the 95 % interval of n images holds the mean over all images of a
population, averaged over its concepts and 120 draws (40 at n = 10 and 100; 400 resamples each).
The weight of the pseudo-images was chosen on the populations marked so; the others had no part.
*Percentile*: a plain percentile bootstrap of the same draws.""",
    "intervals": """### By population

*Least*: the coverage of the concept that is covered worst.""",
    "refit": """### With the concepts' own choice

`CRAFT(interval="refit")`, 20 refits, 40 images, a few draws of ten concepts: how often it holds
the importance that a concept's partner has when concepts and importances come from 400 photos;
*given* is what the interval "given these concepts" holds of it, which is not what it is for.""",
    "optima": """## How good is the optimum?

Squared error above the best of 20 starts of scikit-learn's NMF (k = 10; a negative number is
below it), the worst of three seeds, and the CPU seconds of a fit.""",
    "power": """## What the mixing test sees

How often it rejects, at 0.05, patches of one class (level, 80 draws) and half of one class with
half of another (power, all 45 pairs), ResNet-20; beside that how well the two statistics by
themselves tell the two apart (area under the ROC curve; 0.5 is chance, which no threshold
mends). Crops of one class are not one thing (an animal, its meadow), nor are 120 images at an
early layer: what is called level there grows with their number, as power does.""",
    "speed": """## Time

`explain` (ten concepts, all defaults) on 48 photos at EfficientNet-Lite0, one thread, beside the
bare passes of the network over the same photos.""",
}

COLUMNS: dict[str, dict[str, str]] = {
    "best": {
        "network": "network",
        "images": "images",
        "k": "k",
        "crops": "crops",
        "positions (default)": "positions",
        "both": "both",
        "short": "short",
        "within 0.03": "within",
    },
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
    "remainder differences": {
        "network": "network",
        "ranking": "ranking",
        "curve": "curve",
        "gain": "gain",
        "low": "low",
        "high": "high",
        "better": "better",
        "worse": "worse",
        "sets": "sets",
    },
    "remainder rows": {
        "network": "network",
        "images": "images",
        **{
            f"{short}, {mode}": f"{curve}, {mode}"
            for short, curve in (
                ("out of f", "deletion from f"),
                ("up to f", "insertion to f"),
                ("alone", "insertion alone"),
            )
            for mode in ("drop", "hold", "player", "random")
        },
        "Spearman": "Spearman",
    },
    "coverage": {
        "network": "network",
        "weight chosen on these": "chosen on",
        "populations": "populations",
        "n = 10": "n=10",
        "n = 40": "n=40",
        "lowest": "lowest, n=40",
        "highest": "highest, n=40",
        "n = 100": "n=100",
        "width, n = 40": "width, n=40",
        "percentile, n = 40": "percentile, n=40",
    },
    "intervals": {
        "network": "network",
        "images": "images",
        "chosen on": "chosen on",
        "n = 10": "n=10",
        "n = 40": "n=40",
        "least, n = 40": "least, n=40",
        "n = 100": "n=100",
        "width, n = 40": "width, n=40",
        "percentile, n = 40": "percentile, n=40",
    },
    "refit": {
        "network": "network",
        "images": "images",
        "draws": "draws",
        "refit": "refit",
        "given": "given",
        "width, refit": "width",
        "width, given": "width, given",
        "cosine of partners": "cosine",
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
        "AUC, kurtosis": "AUC, kurtosis",
        "AUC, index": "AUC, index",
    },
    "speed": {
        "what": "what",
        "CPU s": "seconds",
        "bare passes, CPU s": "bare",
        "times": "ratio",
    },
}
