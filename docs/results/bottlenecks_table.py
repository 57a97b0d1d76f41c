"""What the tables of bottlenecks on real data share: methods, controls and layout."""

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottlenecks import SparseCBM, SparseLinearHead, evaluate
from bottlenecks.labelfree import LabelFreeCBM
from bottlenecks.measures import name_fidelity, number_of_contributing_concepts
from bottlenecks.posthoc import PostHocCBM
from conceptlab import ConceptBank
from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance

NEC = 5
N_EXAMPLES = 100
TAUGHT = "`LabelFreeCBM`, taught presence in all rows of the fit"
FEWER = 2
N_RANDOM = 39
COLUMNS = ("accuracy, %", f"at NEC {FEWER}", "NEC", "NCC", "name AUC")


@dataclass(frozen=True)
class Task:
    """One draw of a data set.

    Attributes
    ----------
    seed : int
    X : ndarray of shape (n, d)
        Features.
    y : ndarray of shape (n,)
        Classes.
    names : list of k str
        Concepts.
    present : ndarray of shape (n, k), bool
        Which rows show which concept.
    examples, fit, test : ndarray of int
        Rows for the bank, for the classifiers, for the figures.
    """

    seed: int
    X: np.ndarray
    y: np.ndarray
    names: list
    present: np.ndarray
    examples: np.ndarray
    fit: np.ndarray
    test: np.ndarray


def learned_bank(task):
    """Learn a direction a concept from examples."""
    rng = np.random.default_rng(task.seed)
    examples = {}
    for j, name in enumerate(task.names):
        kinds = [task.examples[task.present[task.examples, j] == kind] for kind in (True, False)]
        drawn = [rng.permutation(rows)[:N_EXAMPLES] for rows in kinds]
        examples[name] = tuple(task.X[rows] for rows in drawn)
    return ConceptBank.from_examples(None, examples, space=None, random_state=task.seed)


def methods(bank, seed):
    """Give every method: name and estimator."""
    few = {"nec": NEC, "random_state": seed}
    yield "`PostHocCBM`", PostHocCBM(bank, nec=NEC)
    yield "`PostHocCBM`, residual", PostHocCBM(bank, nec=NEC, residual=True)
    for mode in ("anchored", "contrastive", "l1"):
        yield f'`SparseCBM`, "{mode}"', SparseCBM(bank, mode=mode, sparsity=0.5, **few)
    yield TAUGHT, LabelFreeCBM(**few)
    yield '`SparseCBM`, "reference"', SparseCBM(bank, mode="reference", **few)


def probe():
    """Make the dense probe."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def fewer(activations, task):
    """Give the accuracy of a head with FEWER concepts a class on the same outputs."""
    head = SparseLinearHead(nec=FEWER, constant="ignore", tol=1e-3)
    head.fit(activations[task.fit], task.y[task.fit])
    return 100 * head.score(activations[task.test], task.y[task.test])


def figures(task):
    """Measure all methods on one draw: {name: figures in the order of COLUMNS}."""
    X, y = task.X, task.y
    bank = learned_bank(task)
    k, d = len(bank), X.shape[1]
    found = {}
    for name, rows, width in (
        (f"dense probe on the {d} features", X, d),
        (f"dense probe on the {k} concept scores", bank.score(X), k),
    ):
        model = probe().fit(rows[task.fit], y[task.fit])
        accuracy = 100 * model.score(rows[task.test], y[task.test])
        truth = task.present[task.test]
        fidelity = name_fidelity(rows[task.test], truth).mean() if "concept" in name else np.nan
        found[name] = accuracy, np.nan, width, np.nan, fidelity
    truth = task.present.astype(float)
    model = probe().fit(truth[task.fit], y[task.fit])
    accuracy = 100 * model.score(truth[task.test], y[task.test])
    found[f"dense probe on the {k} true concepts"] = accuracy, np.nan, k, np.nan, 1.0
    model = SparseLinearHead(nec=NEC, constant="ignore").fit(truth[task.fit], y[task.fit])
    found["`SparseLinearHead` on the true concepts"] = (
        100 * model.score(truth[task.test], y[task.test]),
        fewer(truth, task),
        model.nec_,
        number_of_contributing_concepts(truth[task.test], model.coef_),
        1.0,
    )
    for name, model in methods(bank, task.seed):
        taught = pd.DataFrame(task.present[task.fit].astype(float), columns=task.names)
        options = {"encoder_features": taught} if name == TAUGHT else {}
        model.fit(X[task.fit], y[task.fit], **options)
        every = model.predict_concepts(X)
        activations = every[task.test]
        kept = [task.names.index(c) for c in model.concept_names_]
        found[name] = (
            100 * model.score(X[task.test], y[task.test]),
            np.nan if "residual" in name else fewer(every, task),
            model.nec_,
            number_of_contributing_concepts(activations, model.coef_),
            name_fidelity(activations, task.present[task.test][:, kept]).mean(),
        )
    return found


def beside_random(task):
    """Let `evaluate` set the named concepts beside random ones: {name: facts}."""
    bank = learned_bank(task)
    models = {
        f"`PostHocCBM(nec={FEWER})`": PostHocCBM(bank, nec=FEWER),
        f"`PostHocCBM(nec={NEC})`": PostHocCBM(bank, nec=NEC),
        f"`SparseCBM(nec={NEC})`": SparseCBM(bank, nec=NEC, sparsity=0.5, random_state=task.seed),
    }
    test, fit = (task.X[task.test], task.y[task.test]), (task.X[task.fit], task.y[task.fit])
    return {
        name: against_random(model.fit(*fit), test, fit, task.seed)
        for name, model in models.items()
    }


def against_random(model, test, fit, seed, encoder=None):
    """Take what a fitted model reaches beside random concepts, as values of JSON."""
    report = evaluate(
        model,
        *test,
        train=fit,
        n_random=N_RANDOM,
        n_permutations=0,
        encoder=encoder,
        random_state=seed,
    )
    return {
        "named": report.refitted_accuracy,
        "random": {kind: draws.tolist() for kind, draws in report.controls.items()},
        "control": report.control,
        "gain": report.gain,
        "interval": report.intervals["accuracy, refitted less random"],
        "p": report.p_value,
    }


def as_table(runs):
    """Lay the figures of all draws out as mean ± standard deviation."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    forms = ("{:.1f} ± {:.1f}", "{:.1f} ± {:.1f}", "{:.1f}", "{:.1f} ± {:.1f}", "{:.3f} ± {:.3f}")
    for name in runs[0]:
        values = np.array([run[name] for run in runs], dtype=float)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(COLUMNS))
        cells = [
            "" if np.isnan(mean) else form.format(mean, sd)
            for form, mean, sd in zip(forms, values.mean(axis=0), spread, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def random_table(found):
    """Lay out {name: facts of every seed}, all draws of all seeds together."""
    kinds = next(iter(found.values()))[0]["random"]
    head = ["method", "its concepts", *kinds, "less the best kind, points", "p by seed", "verdict"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, facts in found.items():
        named = 100 * np.array([f["named"] for f in facts])
        cells = [f"{named.mean():.1f} ± {named.std(ddof=min(1, len(named) - 1)):.1f}"]
        for kind in kinds:
            draws = 100 * np.concatenate([f["random"][kind] for f in facts])
            cells.append(f"{draws.mean():.1f} ± {draws.std(ddof=1):.1f}")
        gains = 100 * np.array([f["gain"] for f in facts])
        ends = 100 * np.array([f["interval"] for f in facts])
        cells.append(f"{gains.mean():+.1f} ({ends[:, 0].min():+.1f} to {ends[:, 1].max():+.1f})")
        cells.append(", ".join(f"{f['p']:.2f}" for f in facts))
        ranks = np.array([f["p"] for f in facts])
        ahead = int(((ends[:, 0] > 0) & (ranks <= 0.05)).sum())
        behind = int((ends[:, 1] < 0).sum())
        cells.append(f"ahead in {ahead}, behind in {behind} of {len(facts)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def of_concepts(task):
    """Give the share of rows with each concept, and how well its direction finds it."""
    scores = learned_bank(task).score(task.X[task.test])
    return task.present.mean(axis=0), name_fidelity(scores, task.present[task.test])


def concept_table(names, runs):
    """Say how often each concept is there, and how well its direction finds it."""
    rates = np.mean([rate for rate, _ in runs], axis=0)
    aucs = [auc for _, auc in runs]
    mean, sd = np.mean(aucs, axis=0), np.std(aucs, axis=0, ddof=1 if len(aucs) > 1 else 0)
    lines = ["| concept | share of the images, % | AUC of its score |", "|---|---|---|"]
    lines += [
        f"| {name} | {100 * rate:.0f} | {m:.3f} ± {s:.3f} |"
        for name, rate, m, s in zip(names, rates, mean, sd, strict=True)
    ]
    return "\n".join(lines)


def measure(task):
    """Measure all on one draw, as values of JSON."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = {
            "figures": {name: [float(v) for v in row] for name, row in figures(task).items()},
            "beside random": beside_random(task),
            "concepts": [values.tolist() for values in of_concepts(task)],
            "rows": [len(task.examples), len(task.fit), len(task.test)],
            "names": task.names,
        }
    return {**found, "seconds": time.process_time() - start}


def command(script, title, tasks, notes, reading, description):
    """Measure and write the page beside `script`; draws that were measured before are kept."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="measure all draws again")
    name = Path(script).stem.replace("_", "-")
    parser.add_argument("--out", type=Path, default=Path(script).with_name(f"{name}.md"))
    options = parser.parse_args()
    kept = options.out.with_suffix(".json")
    known = json.loads(kept.read_text()) if kept.exists() and not options.fresh else {}
    missing = [seed for seed in range(options.seeds) if str(seed) not in known]
    for task in tasks(missing) if missing else ():
        known[str(task.seed)] = measure(task)
        atomic_write(kept, json.dumps(known, indent=1) + "\n")
    runs = [known[str(seed)] for seed in range(options.seeds)]
    seconds = sum(run["seconds"] for run in runs)
    versions = ", ".join(f"{k} {v}" for k, v in provenance()["versions"].items())
    examples, fit, test = runs[0]["rows"]
    beside = {
        name: [run["beside random"][name] for run in runs] for name in runs[0]["beside random"]
    }
    page = f"""# {title}

Made by `python docs/results/{Path(script).name} --seeds {options.seeds}`; {options.seeds} seeds,
mean ± standard deviation;
{examples} rows for examples, {fit} for the fit, {test} for the test;
{seconds:.0f} CPU s; {versions}.

{notes}
NEC is the mean number of concepts with a weight, over the classes, and is set to {NEC}. NCC is the
mean number of concepts that make 95 % of a decision. The second column is the accuracy of a head
with {FEWER} concepts a class on the same outputs. Name AUC is that of output j for concept j,
mean over the concepts.

{as_table([run["figures"] for run in runs])}

## Beside random concepts

By `evaluate`: as many random concepts of either kind, {N_RANDOM} draws a seed, under the same head
with as many effective concepts, fitted on the same rows. The difference is to the kind that is best
on average in its seed, mean over the seeds; in brackets the least and the largest end of their 95 %
intervals, over rows and draws; p is the rank of the named concepts among those draws. *Ahead* and
*behind* count seeds whose interval leaves zero out.

{random_table(beside)}

## What it says

{reading}
## The concepts

{concept_table(runs[0]["names"], [run["concepts"] for run in runs])}
"""
    atomic_write(options.out, page)
    print(options.out)
