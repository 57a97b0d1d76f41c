"""How often the audit's word is wrong, on models whose truth is known; writes audit-errors.md.

    python docs/results/audit_errors.py --settings 4

Every setting is a network of `unlearning.bench.planted`, a class of the digits and a seed: 18
models that certainly hold the class and 9 that never saw it, each judged with two retrained
references, with one, and with none. Settings that are in audit-errors.json are not run again.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch
from scipy.stats import beta

from conceptlab.io.files import atomic_write
from unlearning.audit.examining import examine, read_subjects
from unlearning.audit.options import Attacks, Conditions
from unlearning.audit.subjects import check_sets
from unlearning.audit.verdict import judge
from unlearning.bench.planted import (
    NETWORKS,
    digits_problem,
    removed_models,
    suppressed_models,
)

HERE = Path(__file__).parent
JSON, PAGE = HERE / "audit-errors.json", HERE / "audit-errors.md"
WORDS = ("removed", "suppressed", "not forgotten", "damaged", "undecided")
KEPT = {
    *("fa_train", "fa_test", "ta", "fa_int8", "fa_int4", "fa_recovered", "js", "js_mask", "donor"),
    *("mia_confidence", "mia_accuracy", "features_kept", "features_kept_middle", "probe_recall"),
    *("probe_5", "probe_20", "probe_5_middle", "probe_20_middle"),
}
"""Figures that the verdict reads."""
WAYS = ("two references", "one reference", "no reference")


def run(network, number):
    """Judge all models of a setting."""
    start = time.process_time()
    forgotten, seed = (3 * number) % 10, 10 + number
    problem = digits_problem(network, forgotten, seed)
    planted = {
        "suppressed": suppressed_models(problem),
        "removed": removed_models(problem, 1000 + 100 * number),
    }
    models = {"before": problem.original}
    models |= {"retrained": problem.retrain(500 + seed), "retrained_b": problem.retrain(700 + seed)}
    for truth, made in planted.items():
        models |= {f"{truth}: {name}": model for name, model in made.items()}
    sets = check_sets(problem.forget, problem.retain, problem.test)
    how = Conditions(seed, progress=False)
    found = examine(read_subjects(models, sets, how), sets, how, Attacks(relearn=False)).values
    seconds = time.process_time() - start
    print(f"{network}, class {forgotten}, seed {seed}: {seconds:.0f} CPU s", flush=True)
    return {
        "network": network,
        "class": forgotten,
        "seed": seed,
        "sizes": {
            "forget": len(sets.forget),
            "test": int(sets.kept.sum()),
            "forget_test": int(sets.mine.sum()),
        },
        "values": {
            name: {key: round(v, 4) for key, v in own.items() if key in KEPT}
            for name, own in found.items()
        },
    }


def judged(setting):
    """Give a row for each planted model of a setting: its truth and the words."""
    values, sizes = setting["values"], setting["sizes"]
    first, second = values["retrained"], values["retrained_b"]
    given = {"before": values["before"], "mask": values["mask"], "sizes": sizes}
    ways = ({"reference": first, "second": second}, {"reference": first}, {})
    for name, own in values.items():
        truth, _, kind = name.partition(": ")
        if not kind:
            continue
        near = min(abs(own["mia_confidence"] - v["mia_confidence"]) for v in (first, second))
        over = own["probe_recall"] - max(v["probe_recall"] for v in (first, second))
        yield {
            "network": setting["network"],
            "truth": truth,
            "kind": kind,
            "words": {
                way: judge(own, **given, **beside).word
                for way, beside in zip(WAYS, ways, strict=True)
            },
            "membership": "removed" if near <= 0.1 else "suppressed",
            "probe": "suppressed" if over > 0.05 else "removed",
        }


def interval(k, n):
    """Give the exact 95 % interval of a share (Clopper and Pearson)."""
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def page(rows):
    """Write the tables."""
    lines = [
        "# How often the audit is wrong",
        "",
        "Models whose truth is known, judged by the audit. *Suppressed* in truth: "
        f"{len({r['kind'] for r in rows if r['truth'] == 'suppressed'})} kinds of masks of every "
        "parametrisation, edits of the last layer, noise, projections and few steps of "
        "relabelling, all made from the original. *Removed* in truth: "
        f"{len({r['kind'] for r in rows if r['truth'] == 'removed'})} kinds of honest training "
        "without the class, with other seeds, rates, lengths, sizes and units. Networks: "
        f"{', '.join(NETWORKS)}, on scikit-learn's digits. Made by `docs/results/audit_errors.py`; "
        "the lines of the verdict were drawn on other seeds.",
        "",
    ]
    for way in WAYS:
        lines += [
            f"## With {way}", "",
            "| in truth | models | " + " | ".join(WORDS) + " |", "|---|---|" + "---|" * len(WORDS),
        ]  # fmt: skip
        for truth in ("suppressed", "removed"):
            mine = [r for r in rows if r["truth"] == truth]
            count = Counter(r["words"][way] for r in mine)
            cells = [str(count[w]) for w in WORDS]
            lines.append(f"| {truth} | {len(mine)} | " + " | ".join(cells) + " |")
        lines.append("")
        for truth, word in (
            ("suppressed", "removed"),
            ("removed", "suppressed"),
            ("removed", "undecided"),
            ("suppressed", "undecided"),
        ):
            mine = [r for r in rows if r["truth"] == truth]
            k = sum(r["words"][way] == word for r in mine)
            lines.append(
                f"- {truth}, called {word}: {k} of {len(mine)} "
                f"(95 % interval {interval(k, len(mine))})"
            )
        lines.append("")
    lines += [
        "## Beside single figures", "",
        "With two references. A membership attack alone: *removed* where its share is within 0.1 "
        "of a retrained model's. A linear probe of the last features alone, with a threshold of "
        "0.05: the linear form of tests that ask what layers still encode.", "",
        "| judged by | suppressed, called removed | removed, called suppressed |", "|---|---|---|",
    ]  # fmt: skip
    for title, key in (("membership attack", "membership"), ("linear probe", "probe")):
        cells = []
        for truth, word in (("suppressed", "removed"), ("removed", "suppressed")):
            mine = [r for r in rows if r["truth"] == truth]
            k = sum(r[key] == word for r in mine)
            cells.append(f"{k} of {len(mine)} ({interval(k, len(mine))})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    cells = []
    for truth, word in (("suppressed", "removed"), ("removed", "suppressed")):
        mine = [r for r in rows if r["truth"] == truth]
        k = sum(r["words"][WAYS[0]] == word for r in mine)
        cells.append(f"{k} of {len(mine)} ({interval(k, len(mine))})")
    lines += ["| the audit | " + " | ".join(cells) + " |", "", "## By network and kind", ""]
    lines += ["With two references.", "", "| in truth | kind | " + " | ".join(NETWORKS) + " |"]
    lines.append("|---|---|" + "---|" * len(NETWORKS))
    for truth in ("suppressed", "removed"):
        for kind in dict.fromkeys(r["kind"] for r in rows if r["truth"] == truth):
            cells = []
            for network in NETWORKS:
                count = Counter(
                    r["words"][WAYS[0]]
                    for r in rows
                    if (r["network"], r["truth"], r["kind"]) == (network, truth, kind)
                )
                cells.append(", ".join(f"{w} {n}" for w, n in count.most_common()))
            lines.append(f"| {truth} | {kind} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## What it does not say",
        "",
        "The planted models keep features that a linear map finds again, or were never trained "
        "on the class. A method that turns features over by a map that is not linear, or that "
        "hides the class in another layer than the last and the middle one, is not among them.",
        "",
    ]
    return "\n".join(lines)


def main():
    """Run what is missing and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--settings", type=int, default=4, help="settings for each network")
    told = options.parse_args()
    torch.set_num_threads(1)
    settings = json.loads(JSON.read_text()) if JSON.exists() else []
    done = {(s["network"], s["seed"]) for s in settings}
    for number in range(told.settings):
        for network in NETWORKS:
            if (network, 10 + number) not in done:
                settings.append(run(network, number))
                atomic_write(JSON, json.dumps(settings, separators=(",", ":")))
    atomic_write(PAGE, page([row for setting in settings for row in judged(setting)]))


if __name__ == "__main__":
    main()
