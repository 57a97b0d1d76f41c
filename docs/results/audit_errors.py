"""How often the audit's word is wrong, on models whose truth is known; writes audit-errors.md.

    CONCEPTLAB_DATA=folder python docs/results/audit_errors.py --settings 4 3 3

Every setting is a network of `unlearning.bench.planted`, a set of images, a class and a seed: 18
models that certainly hold the class and 8 that never saw it, each judged with two retrained
references, with one, and with none. Settings that are in audit-errors.json are not run again. The
folder is the one that `unlearning_cifar10.py` reads; without it there are no photos.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from audit_errors_page import page

from conceptlab.io.files import atomic_write
from unlearning.audit.examining import examine, read_subjects
from unlearning.audit.options import Attacks, Conditions
from unlearning.audit.subjects import check_sets
from unlearning.bench.planted import (
    NETWORKS,
    digits_problem,
    planted_problem,
    removed_models,
    suppressed_models,
)
from unlearning.bench.rivals import cohesion, information, places, restored
from unlearning.data import as_samples

HERE = Path(__file__).parent
JSON, PAGE = HERE / "audit-errors.json", HERE / "audit-errors.md"
KEPT = {
    *("fa_train", "fa_test", "ta", "fa_int8", "fa_int4", "fa_recovered", "js", "js_mask", "donor"),
    *("mia_confidence", "mia_accuracy", "mia_neighbours", "features_kept", "features_kept_middle"),
    *("probe_recall", "probe_5", "probe_20", "probe_5_middle", "probe_20_middle"),
}
"""Figures that the verdict reads, and the attack by neighbours."""
DATA = ("digits", "scenes", "CIFAR-10")
EPOCHS = {"MLP": 12, "CNN": 20, "residual net": 14}
"""On colour images, of which the networks see patches of 4 x 4 pixels."""


def problem_of(data, network, number, seed):
    """Draw images and train the original."""
    if data == "digits":
        return digits_problem(network, (3 * number) % 10, seed)
    if data == "scenes":
        from unlearning_scenes import drawn

        parts = drawn("train", 1000, seed), drawn("test", 800, seed)
        sets = [as_samples(((part.images - 0.5) / 0.25, part.y)) for part in parts]
        forgotten = (5 * number + 1) % 6
    else:
        from unlearning_cifar10 import drawn

        train, test = drawn(seed, 200)
        sets = [train, test.select(torch.arange(0, len(test), 2))]
        forgotten = (3 * number + 1) % 10
    return planted_problem(network, *sets, forgotten, seed, epochs=EPOCHS[network])


def rivals(readings, sets, problem):
    """Take the figures of other tests for every model."""
    c = problem.forget.classes[0]
    y = sets.retain.y.numpy()
    labels = np.repeat([True, False], [len(sets.forget), len(sets.retain)])
    head = [w.detach().numpy() for w in (problem.original.head.weight, problem.original.head.bias)]

    def parts(reading, name):
        own = getattr(reading, name)
        return own["forget"], own["retain"], own["test"]

    found, where = {}, {}
    for name, reading in readings.items():
        told = 0.0
        for layer in ("features", "middle"):
            forget, retain, test = parts(reading, layer)
            told += information(np.concatenate([forget, retain]), labels, test, sets.mine)
        _, retain, test = parts(reading, "features")
        old = readings["before"].features["retain"]
        where[name] = places(retain, y, test[sets.mine])
        found[name] = {
            "information": told,
            "restored": restored(retain, old, test[sets.mine], *head, c),
            "cohesion": cohesion(retain, y, test[sets.mine]),
        }
    for name in readings:
        for other in ("before", "retrained", "retrained_b"):
            gap = float(np.abs(where[name] - where[other]).mean())
            found[name][f"places_{other}"] = gap
    return found


def run(data, network, number):
    """Take the figures of all models of a setting."""
    start = time.process_time()
    seed = 10 + number
    problem = problem_of(data, network, number, seed)
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
    subjects = read_subjects(models, sets, how)
    found = examine(subjects, sets, how, Attacks(relearn=False)).values
    others = rivals(subjects.readings, sets, problem)
    seconds = time.process_time() - start
    print(f"{data}, {network}, class {sets.classes[0]}, seed {seed}: {seconds:.0f} s", flush=True)
    return {
        "data": data,
        "network": network,
        "class": sets.classes[0],
        "seed": seed,
        "seconds": round(seconds),
        "sizes": {
            "forget": len(sets.forget),
            "test": int(sets.kept.sum()),
            "forget_test": int(sets.mine.sum()),
        },
        "values": {
            name: {
                key: round(v, 4)
                for key, v in {**own, **others[name]}.items()
                if key in KEPT or key in others[name]
            }
            for name, own in found.items()
        },
    }


def main():
    """Run what is missing and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--settings",
        type=int,
        nargs=3,
        default=[4, 3, 3],
        help="settings for each network, of digits, scenes and photos",
    )
    options.add_argument("--first", type=int, default=0, help="number of the first setting")
    told = options.parse_args()
    torch.set_num_threads(1)
    settings = json.loads(JSON.read_text()) if JSON.exists() else []
    done = {(s["data"], s["network"], s["seed"]) for s in settings}
    for number in range(told.first, max(told.settings)):
        for data, count in zip(DATA, told.settings, strict=True):
            if data == "CIFAR-10" and "CONCEPTLAB_DATA" not in os.environ:
                continue
            for network in NETWORKS if number < count else ():
                if (data, network, 10 + number) not in done:
                    settings.append(run(data, network, number))
                    atomic_write(JSON, json.dumps(settings, separators=(",", ":")))
    atomic_write(PAGE, page(settings))


if __name__ == "__main__":
    main()
