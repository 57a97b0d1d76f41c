"""Bottlenecks on scenes, where the concepts of every class are known.

``python docs/results/bottlenecks_scenes.py`` writes ``bottlenecks-scenes.md`` and ``.json``
beside this file.

Ten species, each a colour, a texture and a shape: three planted concepts a class, so that the
planted number of effective concepts (NEC) is 3. Concepts are the 31 attributes of the world,
as texts of the embedded encoder or learned from 600 labelled scenes of another draw.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from bottlenecks_table import N_RANDOM, against_random, random_table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottlenecks import SparseCBM, SparseLinearHead
from conceptlab import ConceptBank
from conceptlab.datasets import load_scenes
from conceptlab.encoders import load_encoder
from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance

NEC = 3
WORLDS = {"one to three objects": (1, 3), "one object": 1}
# Ten times as long as released, and at a larger rate, so that the classes are learned.
RELEASED = {"mode": "reference", "max_epochs": 100, "learning_rate": 1e-3}
ROWS = {
    "scores, dense probe": "probe",
    "scores, `SparseLinearHead(nec=3)`": "head",
    "scores, `SparseLinearHead(nec=3, positive=True)`": "positive head",
    "`SparseCBM(nec=3)`": {"nec": NEC},
    '`SparseCBM(mode="contrastive", nec=3)`': {"nec": NEC, "mode": "contrastive"},
    '`SparseCBM(mode="l1", nec=3)`': {"nec": NEC, "mode": "l1"},
    "`SparseCBM(sparsity=0.7, nec=3)`": {"nec": NEC, "sparsity": 0.7},
    '`SparseCBM(scale="concept", nec=3)`': {"nec": NEC, "scale": "concept"},
    'released loss (`mode="reference"`), Gumbel': RELEASED,
    "released loss, contrastive": {**RELEASED, "reference_loss": "contrastive"},
    "released loss, l1": {**RELEASED, "reference_loss": "l1"},
}
BANKS = {"text": "Concepts as texts", "examples": "Concepts from examples"}
COLUMNS = ("accuracy", "NEC", "zeros", "name AUC", "recall")


class Draw:
    """Features, labels and truth of one seed."""

    def __init__(self, encoder, seed, n_objects, n_train, n_test):
        sets = [
            load_scenes(split, n, seed=seed, n_objects=n_objects)
            for split, n in (("train", n_train), ("test", n_test), ("val", 600))
        ]
        train, test, examples = sets
        self.X, self.Xt, E = (encoder.encode_image(s.images) for s in sets)
        self.y, self.yt = train.y, test.y
        self.truth, shown = test.main_attributes, examples.main_attributes
        self.planted, self.names = train.class_attributes, train.attribute_names
        # A concept that hardly any image has, or lacks, can be neither learned nor measured.
        common = (self.truth.sum(0) >= 5) & ((~self.truth).sum(0) >= 5)
        self.measured = common & (shown.sum(0) >= 5) & ((~shown).sum(0) >= 5)
        self.banks = {"text": ConceptBank.from_texts(encoder, self.names)}
        pairs = {
            self.names[j]: (E[shown[:, j]], E[~shown[:, j]]) for j in np.flatnonzero(self.measured)
        }
        self.banks["examples"] = ConceptBank.from_examples(
            None, pairs, n_folds=0, space=encoder.fingerprint, random_state=seed
        )
        self.seed = seed

    def columns(self, bank):
        """Give places of the bank's concepts among the attributes."""
        return np.array([self.names.index(name) for name in bank.names])

    def fidelity(self, A, bank):
        """Give the mean AUC of output j for concept j."""
        places = self.columns(bank)
        aucs = [
            roc_auc_score(self.truth[:, place], A[:, j])
            for j, place in enumerate(places)
            if self.measured[place]
        ]
        return float(np.mean(aucs))

    def recall(self, coef, bank):
        """Give the share of planted pairs that have a positive weight."""
        planted = self.planted[:, self.columns(bank)]
        return float(((coef > 0) & planted).sum() / self.planted.sum())


def measure(draw, bank, what):
    """Give accuracy, NEC, share of zeros, name AUC and recall of one method."""
    none = float("nan")
    if isinstance(what, dict):
        model = SparseCBM(bank, random_state=draw.seed, **what).fit(draw.X, draw.y)
        A, coef = model.predict_concepts(draw.Xt), model.coef_
        accuracy = model.score(draw.Xt, draw.yt)
    else:
        S, A = bank.score(draw.X), bank.score(draw.Xt)
        if what.endswith("head"):
            model = SparseLinearHead(nec=NEC, positive=what == "positive head").fit(S, draw.y)
            coef = model.coef_
        else:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            coef = model.fit(S, draw.y)[-1].coef_
        accuracy = model.score(A, draw.yt)
    nec = float((coef != 0).sum(axis=1).mean())
    recall = none if (coef != 0).all() else draw.recall(coef, bank)
    return float(accuracy), nec, float((A == 0).mean()), draw.fidelity(A, bank), recall


def cell(values, number):
    """Write mean and standard deviation over seeds."""
    if np.isnan(values).any():
        return "–"
    mean, sd = values.mean(), values.std(ddof=min(1, len(values) - 1))
    if number == "NEC":
        return f"{mean:.2f}"
    digits = 1 if number != "name AUC" else 2
    return f"{100 * mean:.{digits}f} ± {100 * sd:.{digits}f}"


def as_tables(figures):
    """Lay the figures out, one table for each world and bank."""
    parts = []
    for world in WORLDS:
        parts.append(f"## Scenes of {world}\n")
        for bank, title in BANKS.items():
            parts.append(f"### {title}\n")
            parts.append("| method | " + " | ".join(COLUMNS) + " |")
            parts.append("|---" * (len(COLUMNS) + 1) + "|")
            for method in ROWS:
                table = np.array(figures[world, bank, method])
                cells = [cell(table[:, i], name) for i, name in enumerate(COLUMNS)]
                parts.append(f"| {method} | " + " | ".join(cells) + " |")
            parts.append("")
    return "\n".join(parts)


def verdicts(figures):
    """Compare with what was asked for, on the means."""
    lines = []
    for (world, bank, method), rows in figures.items():
        if method != "`SparseCBM(nec=3)`":
            continue
        ours, probe = (np.mean(t, axis=0) for t in (rows, figures[world, bank, next(iter(ROWS))]))
        kept, gap = ours[3] - probe[3] >= -0.01, probe[0] - ours[0] <= 0.03
        found = ours[4] >= 0.9
        told = [
            f"name AUC {100 * (ours[3] - probe[3]):+.2f} points ({'kept' if kept else 'MISSED'})",
            f"recall {ours[4]:.2f} ({'kept' if found else 'MISSED'})",
            f"accuracy {100 * (ours[0] - probe[0]):+.1f} points ({'kept' if gap else 'MISSED'})",
        ]
        lines.append(f"- {world}, {bank}: " + "; ".join(told) + ".")
    return "\n".join(lines)


def beside_random(draw, bank, encoder):
    """Let `evaluate` set `SparseCBM(nec=3)` beside random concepts of every kind."""
    model = SparseCBM(bank, nec=NEC, random_state=draw.seed).fit(draw.X, draw.y)
    return against_random(model, (draw.Xt, draw.yt), (draw.X, draw.y), draw.seed, encoder)


def main(arguments=None):
    """Measure and write the page; what was measured before is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--controls", type=int, help="seeds with random concepts; all by default")
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "bottlenecks-scenes.md")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", ConvergenceWarning)
    encoder = load_encoder(options.encoder, device="cpu")
    kept = options.out.with_suffix(".json")
    known = json.loads(kept.read_text()) if kept.exists() and not options.fresh else {}
    controls = options.seeds if options.controls is None else options.controls
    for world, n_objects in WORLDS.items():
        for seed in range(1, options.seeds + 1):  # seed 0 is that of the defaults
            draw = None
            for name in BANKS:
                facts = known.setdefault(f"{world}, {name}", {}).setdefault(str(seed), {})
                missing = [what for what in ROWS if what not in facts]
                if seed <= controls and "beside random" not in facts:
                    missing.append("beside random")
                if missing and draw is None:
                    draw = Draw(encoder, seed, n_objects, options.train, options.test)
                for what in missing:
                    bank = draw.banks[name]
                    facts[what] = (
                        beside_random(draw, bank, encoder)
                        if what == "beside random"
                        else [
                            None if np.isnan(v) else round(v, 5)
                            for v in measure(draw, bank, ROWS[what])
                        ]
                    )
                if missing:
                    atomic_write(kept, json.dumps(known, indent=1) + "\n")
    seeds = [str(seed) for seed in range(1, options.seeds + 1)]
    figures = {
        (world, name, what): [
            [np.nan if v is None else v for v in known[f"{world}, {name}"][seed][what]]
            for seed in seeds
        ]
        for world in WORLDS
        for name in BANKS
        for what in ROWS
    }
    beside = {
        key: [facts[seed]["beside random"] for seed in seeds if "beside random" in facts[seed]]
        for key, facts in known.items()
    }
    versions = ", ".join(f"{k} {v}" for k, v in provenance()["versions"].items())
    page = [
        "# Bottlenecks on scenes\n",
        "Made by `python docs/results/bottlenecks_scenes.py`: "
        f"{options.seeds} seeds, {options.train} training and {options.test} test images each; "
        "figures in per cent, mean ± standard deviation over seeds, NEC apart. *Zeros*: share of "
        "activations that are exactly zero. *Name AUC*: how well output j tells whether the main "
        "object has attribute j, mean over attributes. *Recall*: share of the 30 planted pairs "
        "of class and concept that have a positive weight (a dense head gives every pair one). "
        "The released losses are trained ten times as long as released, at three times the rate, "
        "and their head is trained, which the released code forgets. The defaults of `SparseCBM` "
        "(sparsity, anchor, scale, positive weights) were chosen while looking at another seed. "
        + ("" if options.fresh else "Rows that an earlier run had measured are kept.")
        + "\n",
        "What was asked of `SparseCBM` at the planted NEC, beside the raw scores and the dense "
        "probe: name AUC at most 1 point lower, recall at least 0.9, accuracy at most 3 points "
        "lower.\n",
        verdicts(figures) + "\n",
        "Two species share no shape and no texture with the others: in the labels of the "
        'examples "checked" and "heart" are one and the same column, and so are "cross" and '
        '"plain", so that one of each pair is enough and a recall of 93.3 is the most that a '
        "sparse head needs.\n",
        "## Beside random concepts\n",
        f"By `evaluate`, for the concepts of `SparseCBM(nec={NEC})`: as many random concepts of "
        f"every kind, {N_RANDOM} draws a seed, under the same head with as many "
        "effective concepts, fitted on the same rows. The difference is to the kind that is best "
        "on average in its seed; in brackets the least and the largest end of the 95 % intervals, "
        "over rows and draws; p is the rank among those draws, one for each seed that was "
        "measured. The lead is one over all kinds: what the classes are made of are these "
        "concepts, and random ones do not replace them.\n",
        random_table({key: facts for key, facts in beside.items() if facts}) + "\n",
        as_tables(figures),
        f"Encoder {encoder.name} ({encoder.fingerprint[:12]}); {versions}.\n",
    ]
    atomic_write(options.out, "\n".join(page))
    return options.out


if __name__ == "__main__":
    print(main())
