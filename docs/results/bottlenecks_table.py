"""What the tables of bottlenecks on real data share: methods, controls and layout."""

import argparse
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

from bottlenecks import SparseCBM, SparseLinearHead, random_bank
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


def methods(bank, control, seed):
    """Give every method: name, estimator, and whether its concepts are named truly."""
    few = {"nec": NEC, "random_state": seed}
    yield "`PostHocCBM`", PostHocCBM(bank, nec=NEC), True
    yield "`PostHocCBM`, residual", PostHocCBM(bank, nec=NEC, residual=True), True
    yield '`SparseCBM`, "anchored"', SparseCBM(bank, sparsity=0.5, **few), True
    yield (
        '`SparseCBM`, "contrastive"',
        SparseCBM(bank, mode="contrastive", sparsity=0.5, **few),
        True,
    )
    yield '`SparseCBM`, "l1"', SparseCBM(bank, mode="l1", sparsity=0.5, **few), True
    yield TAUGHT, LabelFreeCBM(**few), True
    yield '`SparseCBM`, "reference"', SparseCBM(bank, mode="reference", **few), True
    yield "random concepts: `PostHocCBM`", PostHocCBM(control, nec=NEC), False
    yield 'random concepts: `SparseCBM`, "anchored"', SparseCBM(control, sparsity=0.5, **few), False


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
    control = random_bank(task.X[task.fit], len(bank), random_state=1000 + task.seed)
    k, d = len(bank), X.shape[1]
    found = {}
    for name, rows, width in (
        (f"dense probe on the {d} features", X, d),
        (f"dense probe on the {k} concept scores", bank.score(X), k),
        (f"dense probe on {k} random scores", control.score(X), k),
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
    for name, model, named in methods(bank, control, task.seed):
        taught = pd.DataFrame(task.present[task.fit].astype(float), columns=task.names)
        options = {"encoder_features": taught} if name == TAUGHT else {}
        model.fit(X[task.fit], y[task.fit], **options)
        every = model.predict_concepts(X)
        activations = every[task.test]
        kept = [task.names.index(c) for c in model.concept_names_] if named else []
        found[name] = (
            100 * model.score(X[task.test], y[task.test]),
            np.nan if "residual" in name else fewer(every, task),
            model.nec_,
            number_of_contributing_concepts(activations, model.coef_),
            name_fidelity(activations, task.present[task.test][:, kept]).mean()
            if named
            else np.nan,
        )
    return found


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


def concept_table(tasks):
    """Say how often each concept is there, and how well its direction finds it."""
    names = tasks[0].names
    rates = np.mean([task.present.mean(axis=0) for task in tasks], axis=0)
    aucs = [
        name_fidelity(learned_bank(task).score(task.X[task.test]), task.present[task.test])
        for task in tasks
    ]
    mean, sd = np.mean(aucs, axis=0), np.std(aucs, axis=0, ddof=1 if len(aucs) > 1 else 0)
    lines = ["| concept | share of the images, % | AUC of its score |", "|---|---|---|"]
    lines += [
        f"| {name} | {100 * rate:.0f} | {m:.3f} ± {s:.3f} |"
        for name, rate, m, s in zip(names, rates, mean, sd, strict=True)
    ]
    return "\n".join(lines)


def command(script, title, tasks, notes, reading, description):
    """Measure and write the page beside `script`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=5)
    name = Path(script).stem.replace("_", "-")
    parser.add_argument("--out", type=Path, default=Path(script).with_name(f"{name}.md"))
    options = parser.parse_args()
    start = time.process_time()
    drawn = list(tasks(options.seeds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        runs = [figures(task) for task in drawn]
    seconds = time.process_time() - start
    versions = ", ".join(f"{k} {v}" for k, v in provenance()["versions"].items())
    task = drawn[0]
    page = f"""# {title}

Made by `python docs/results/{Path(script).name}`; {options.seeds} seeds, mean ± standard deviation;
{len(task.examples)} rows for examples, {len(task.fit)} for the fit, {len(task.test)} for the test;
{seconds:.0f} CPU s; {versions}.

{notes}
NEC is the mean number of concepts with a weight, over the classes, and is set to {NEC}. NCC is the
mean number of concepts that make 95 % of a decision. The second column is the accuracy of a head
with {FEWER} concepts a class on the same outputs. Name AUC is that of output j for concept j,
mean over the concepts. Random concepts are as many directions, drawn with the covariance of the
features, one draw a seed and no other kind: the table was made before `evaluate` took the strongest
of all kinds, so what is said of random concepts holds for such directions only.

{as_table(runs)}

## What it says

{reading}
## The concepts

{concept_table(drawn)}
"""
    atomic_write(options.out, page)
    print(options.out)
