"""Unlearning in generators without a mapping: every method, by two judges trained apart.

``python docs/results/gan_plain.py`` writes ``gan-plain.md`` and ``gan-plain.json`` beside this
file; the generators, the guide and the judges are trained first, and kept in a cache
(``CONCEPTLAB_PLAIN``). Rows that are in the JSON are not measured again without ``--fresh``.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from plain_generators import FAMILIES, digit_generators, digit_witnesses

from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance
from unlearning.gan import (
    DirectionalAdaptation,
    LatentGuard,
    NegativeFineTune,
    RejectionFilter,
    TextToUnlearn,
    assess,
)

CASES = (
    ("digits, DCGAN", "seven"),
    ("digits, perceptron", "seven"),
    ("digits, perceptron", "blue"),
    ("digits, DCGAN", "blue"),
)
COLUMNS = {
    "judge: removed": "removed",
    "judge: kept, mean": "others kept",
    "judge: unchanged, never had it": "unchanged, never had it",
    "judge: leak": "leak",
    "judge: unclear": "off-palette",
}
GOALS = {
    "judge: removed": (0.90, 1),
    "judge: kept, mean": (0.95, 1),
    "judge: unchanged, never had it": (0.97, 1),
}


HEAD = """# Unlearning in a generator without a mapping

Generators from latents to images, trained in CPU minutes on 2000 digits (zero, one, three, seven)
in two inks: one adversarial with the shape of DCGAN, one the decoder of a variational autoencoder
of dense layers. The guide is a small image-text encoder trained on a third of the digits; two
judges of other shapes were trained apart, on the other thirds. Every figure is by the first and by
the second judge, a mean over samples of 2000 fresh latents with the range of the samples, which
holds no noise of the training: it is one seed unless said. ✗: below 90 % removed, 95 % of others
kept, or 97 % unchanged by one of the judges. *Off-palette*: latents that had the target whose image
fits no value (no probability of 0.7). CPU seconds are of one thread on a shared machine.
"""


def methods(encoder, target, seed):
    """Give every method by name, ours first."""
    options = {"retain": FAMILIES, "random_state": seed}
    return {
        "detour (the default)": TextToUnlearn(encoder, target, **options),
        "detour, distilled": TextToUnlearn(encoder, target, method="distilled", **options),
        "weights": TextToUnlearn(encoder, target, method="weights", **options),
        "the paper's method alone": TextToUnlearn.paper(encoder, target, **options),
        "directional adaptation": DirectionalAdaptation(encoder, target, **options),
        "negative fine-tuning": NegativeFineTune(encoder, target, **options),
        "latent guard": LatentGuard(encoder, target, **options),
        "rejection": RejectionFilter(encoder, target, **options),
    }


def measure(generator, result, target, encoder, judges, evaluations):
    """Assess by both judges, on several samples of latents."""
    rows = []
    for judge in judges:
        for seed in range(evaluations):
            report = assess(
                generator,
                result,
                target,
                encoder,
                judge,
                retain=FAMILIES,
                n=2000,
                random_state=900 + seed,
            )
            figures = {k: v for k, v in report.figures.items() if np.isfinite(v)}
            rows.append({"judge": judges.index(judge), "seed": seed, **figures})
    return {"seconds": result.seconds, "stopped": result.stopped, "rows": rows}


def cell(name, rows):
    """Write a figure by the first and by the second judge, with the range of the samples."""
    parts = []
    for judge in (0, 1):
        found = [100 * row[name] for row in rows if row["judge"] == judge and name in row]
        if found:
            parts.append(f"{np.mean(found):.1f} ({min(found):.1f}–{max(found):.1f})")
    good = True
    if name in GOALS:
        goal, sign = GOALS[name]
        means = [np.mean([r[name] for r in rows if r["judge"] == j]) for j in (0, 1)]
        good = all(sign * (m - goal) >= 0 for m in means)
    return " / ".join(parts) + ("" if good else " ✗")


def page(facts):
    """Lay the tables out."""
    missing = set(methods(None, "seven", 0))
    parts = [HEAD]
    done = {k: {n: runs for n, runs in v.items() if runs} for k, v in facts["rows"].items()}
    done = {k: v for k, v in done.items() if v}
    for case, by_method in done.items():
        missing -= by_method.keys()
        parts.append(f"## {case}\n")
        parts.append("| | " + " | ".join(COLUMNS.values()) + " | CPU s |")
        parts.append("|---" * (len(COLUMNS) + 2) + "|")
        for name, by_seed in by_method.items():
            rows = [row for run in by_seed.values() for row in run["rows"]]
            seconds = np.mean([run["seconds"] for run in by_seed.values()])
            cells = " | ".join(cell(column, rows) for column in COLUMNS)
            parts.append(f"| {name} | {cells} | {seconds:.0f} |")
        parts.append("")
    left = [f"{which}: {target}" for which, target in CASES if f"{which}: {target}" not in done]
    if left or missing:
        parts.append(f"Not measured yet: {', '.join([*left, *sorted(missing)])}.\n")
    parts.append("Made by `python docs/results/gan_plain.py`.\n")
    return "\n".join(parts)


def main():
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(CASES))))
    parser.add_argument("--only", nargs="*", help="names of methods")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    file = chosen.out / "gan-plain.json"
    facts = {"rows": {}}
    if file.exists() and not chosen.fresh:
        facts = json.loads(file.read_text())
    encoder, *judges = digit_witnesses()
    generators = digit_generators()
    for case in chosen.cases:
        which, target = CASES[case]
        label = f"{which}: {target}"
        for seed in range(chosen.seeds):
            for name, method in methods(encoder, target, seed).items():
                found = facts["rows"].setdefault(label, {}).setdefault(name, {})
                if str(seed) in found or (chosen.only and name not in chosen.only):
                    continue
                result = method.unlearn(generators[which], progress=False)
                found[str(seed)] = measure(
                    generators[which], result, target, encoder, judges, chosen.evaluations
                )
                facts["provenance"] = provenance()
                atomic_write(file, json.dumps(facts, indent=1).encode())
                print(label, name, result.stopped, flush=True)
                print("  ", [cell(c, found[str(seed)]["rows"]) for c in COLUMNS], flush=True)
    atomic_write(chosen.out / "gan-plain.md", page(facts).encode())


if __name__ == "__main__":
    main()
