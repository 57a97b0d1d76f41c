"""Zero-shot on scenes: every pooling rule, on clean and on broken concepts.

``python docs/results/zeroshot_scenes.py`` writes ``zeroshot-scenes.md`` beside this file.

For each seed some species are drawn, each a colour, a texture and a shape. Two
questions: names that the encoder cannot know ("species 3": all is in the
concepts), and names that say all ("red striped circle": concepts can only add).
Temperatures are fitted on images of the validation split; five of them a class
are the prototypes of the margin filter where names say nothing.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss

from conceptlab.datasets import load_scenes
from conceptlab.datasets.world import COLOURS, SHAPES, TEXTURES, Species
from conceptlab.encoders import load_encoder
from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance
from conceptlab.vocabulary import (
    ClassConcepts,
    filter_margins,
    from_random_words,
    select_diverse,
)
from conceptlab.zeroshot import RULES, BayesianZeroShot, calibration_error
from conceptlab.zeroshot.scenes import scene_concepts

KINDS = ("absent", "other", "rival")
PLANTED = [(None, 0.0), *((kind, rate) for kind in KINDS for rate in (0.2, 0.45))]
FEW = 5
LEAD = 5.0  # points that soft-trim has to be ahead of the mean where low outliers are planted
CANDIDATES, KEPT = 40, (3, 6, 12)  # sentences a class, and how many of them are chosen
THRESHOLD = -0.05  # what several classes share has a margin of about 0, and is not false
LABELS = {
    "trim": "CGBC (`trim`)",
    "mean": "DCLIP-style (`mean`)",
    "mean_embedding": "CuPL-style (`mean_embedding`)",
}


def draw_species(rng, n, known):
    """Draw different signatures; names are the signatures, or say nothing."""
    places = rng.choice(len(COLOURS) * len(SHAPES) * len(TEXTURES), size=n, replace=False)
    species = []
    for i, place in enumerate(places):
        colour, rest = divmod(int(place), len(SHAPES) * len(TEXTURES))
        shape, texture = divmod(rest, len(TEXTURES))
        words = COLOURS[colour], SHAPES[shape], TEXTURES[texture]
        name = f"{words[0]} {words[2]} {words[1]}" if known else f"species {i}"
        species.append(Species(name, *words))
    return species


def measure(concepts, rule, data):
    """Give accuracy, log-loss and calibration error after the temperature is fitted."""
    V, val_y, X, y = data
    model = BayesianZeroShot(concepts, rule=rule, scale=100.0, device="cpu").fit(V, val_y)
    proba = model.predict_proba(X).astype(np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    return (
        float((proba.argmax(axis=1) == y).mean()),
        float(log_loss(y, proba.clip(1e-12), labels=model.classes_)),
        calibration_error(y, proba),
    )


def class_names(species, encoder, templates):
    """Make one vector a class from its name, averaged over templates."""
    texts = [s.name for s in species]
    return encoder.encode_text(texts, templates=templates)[:, None, :]


def rows_of(seed, known, encoder, n_images, n_species, n_concepts):
    """Measure all methods for one seed: {(outliers, rate, method): figures}."""
    rng = np.random.default_rng(seed)
    species = draw_species(rng, n_species, known)
    val, test = (
        load_scenes(split, n_images, seed=seed, species=species, n_objects=1)
        for split in ("val", "test")
    )
    data = encoder.encode_image(val.images), val.y, encoder.encode_image(test.images), test.y
    found = {}
    for name, templates in (("class name", "photo"), ("class name, templates", "photos")):
        found[None, 0.0, name] = measure(class_names(species, encoder, templates), "mean", data)
    words = from_random_words([s.name for s in species], n_concepts, random_state=seed)
    words = words.embed(encoder, truncate=True)
    found[None, 0.0, "random words (`mean`)"] = measure(words, "mean", data)
    few = np.stack([data[0][val.y == k][:FEW].mean(axis=0) for k in range(n_species)])
    filters = {"its own concepts": "mean", f"{FEW} images": few}
    if known:
        filters = {"class names": "plain"}
    for outliers, rate in PLANTED:
        concepts = scene_concepts(
            species, n_concepts, outliers=outliers, rate=rate, random_state=seed
        )
        # Where names are known they stand in the sentence, as in the published prompts.
        prompt = "a photo of a {class}, {concept}." if known else "concept"
        concepts = ClassConcepts(concepts.texts).embed(encoder, prompt, truncate=True)
        for rule in RULES:
            found[outliers, rate, LABELS.get(rule, f"`{rule}`")] = measure(concepts, rule, data)
        for name, prototypes in filters.items():
            kept = filter_margins(
                concepts, encoder, threshold=THRESHOLD, min_concepts=FEW, prototypes=prototypes
            )
            for rule in ("trim", "mean"):
                label = f"{LABELS[rule]}, filtered by {name}"
                found[outliers, rate, label] = measure(kept, rule, data)
    return found


def as_tables(figures, known):
    """Lay the figures of all seeds out: a table each, methods by settings."""
    methods = list(dict.fromkeys(method for _, _, method in figures[0]))
    heads = ["clean" if kind is None else f"{rate:.0%} {kind}" for kind, rate in PLANTED]
    parts = [f"## {'Names that say all' if known else 'Names that say nothing'}\n"]
    forms = {"Accuracy, %": "{:.1f} ± {:.1f}", "Log-loss": "{:.3f}", "Calibration error": "{:.3f}"}
    for place, (title, form) in enumerate(forms.items()):
        parts.append(f"### {title}\n")
        parts.append("| method | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
        for method in methods:
            cells = []
            for kind, rate in PLANTED:
                key = kind, rate, method
                values = [f[key][place] for f in figures if key in f]
                values = np.array(values) * (100 if place == 0 else 1)
                sd = values.std(ddof=1) if len(values) > 1 else 0.0
                cells.append(form.format(values.mean(), sd) if len(values) else "")
            parts.append(f"| {method} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def chosen(seed, encoder, n_images, n_species):
    """Measure few sentences of many, chosen in three ways: {(how, n, rule): accuracy}."""
    species = draw_species(np.random.default_rng(seed), n_species, known=False)
    val, test = (
        load_scenes(split, n_images, seed=seed, species=species, n_objects=1)
        for split in ("val", "test")
    )
    data = encoder.encode_image(val.images), val.y, encoder.encode_image(test.images), test.y
    texts = scene_concepts(species, CANDIDATES, random_state=seed).texts
    every = ClassConcepts(texts).embed(encoder, "concept", truncate=True)
    found = {}
    for n in KEPT:
        rng = np.random.default_rng(seed)
        some = {k: [v[i] for i in rng.permutation(len(v))[:n]] for k, v in texts.items()}
        ways = {
            "random": ClassConcepts(some).embed(encoder, "concept", truncate=True),
            "diverse": select_diverse(every, n, encoder),
            "diverse, exchanges": select_diverse(every, n, encoder, exchange=True),
        }
        for how, concepts in ways.items():
            for rule in ("trim", "mean"):
                found[how, n, rule] = 100 * measure(concepts, rule, data)[0]
    for rule in ("trim", "mean"):
        found["all", CANDIDATES, rule] = 100 * measure(every, rule, data)[0]
    return found


def as_choice_table(figures):
    """Lay out what few sentences of many are worth."""
    parts = [
        "## Few sentences of many\n",
        f"Names say nothing; {CANDIDATES} true sentences a class, of which some are chosen: at "
        "random, or by `select_diverse` (determinantal, as published), with exchanges or without. "
        "Accuracy, %.\n",
        "| chosen | of each class | CGBC (`trim`), chosen | DCLIP-style (`mean`), chosen |",
        "|---|---|---|---|",
    ]
    for how, n in dict.fromkeys(key[:2] for key in figures[0]):
        cells = []
        for rule in ("trim", "mean"):
            values = np.array([f[how, n, rule] for f in figures])
            sd = values.std(ddof=1) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.1f} ± {sd:.1f}")
        parts.append(f"| {how} | {n} | {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def verdicts(figures):
    """Say whether what was asked for is kept, where names say nothing."""

    def accuracy(method, kind=None, rate=0.0):
        return 100 * np.mean([f[kind, rate, method][0] for f in figures])

    trim, mean = LABELS["trim"], LABELS["mean"]
    lines = []
    for rate in (0.2, 0.45):
        gain = accuracy(trim, "absent", rate) - accuracy(mean, "absent", rate)
        kept = "kept" if gain >= LEAD else "MISSED"
        lines.append(f"- {rate:.0%} absent: soft-trim less the mean {gain:+.1f} points ({kept}).")
    for kind in ("other", "rival"):
        clean = accuracy(f"{mean}, filtered by {FEW} images")
        worst, mended = (
            accuracy(method, kind, 0.45) for method in (trim, f"{trim}, filtered by {FEW} images")
        )
        best = accuracy(f"{mean}, filtered by {FEW} images", kind, 0.45)
        lines.append(
            f"- 45% {kind}: soft-trim {worst:.1f}, filtered {mended:.1f}; the mean filtered "
            f"{best:.1f}, on clean sentences {clean:.1f}."
        )
    return "\n".join(lines)


def main(arguments=None):
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--species", type=int, default=64)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "zeroshot-scenes.md")
    options = parser.parse_args(arguments)
    encoder = load_encoder(options.encoder, device="cpu")
    parts = [
        "# Zero-shot on scenes\n",
        "Made by `python docs/results/zeroshot_scenes.py`; "
        "[what it means](../zero-shot.md#when-it-fails-and-what-to-do). For each of "
        f"{options.seeds} seeds {options.species} species are drawn, with {options.concepts} "
        f"sentences each and {options.images} test images of one object. Temperatures are fitted "
        "on as many validation images.\n",
        "Sentences are replaced by false ones with the given probability. *Absent* ones name what "
        "the class has not; *other* ones describe another class, each any; *rival* ones one and "
        f"the same other class. *Filtered* concepts have a margin of at least {THRESHOLD}, or are "
        f"among the best {FEW} of their class; prototypes are the other concepts of the class, "
        f"{FEW} labelled validation images of it, or its name. The control is random words only: "
        "it was made before directions with the covariance of the features were one, so a lead "
        "over it says nothing of random directions.\n",
    ]
    for known in (False, True):
        figures = [
            rows_of(seed, known, encoder, options.images, options.species, options.concepts)
            for seed in range(options.seeds)
        ]
        if not known:
            parts.append(
                f"Asked of soft-trim: {LEAD:.0f} points more than the plain mean where low "
                "outliers (absent attributes) are planted, and a filter that repairs concepts of "
                "other classes.\n"
            )
            parts.append(verdicts(figures) + "\n")
        parts.append(as_tables(figures, known))
    choices = [
        chosen(seed, encoder, options.images, options.species) for seed in range(options.seeds)
    ]
    parts.append(as_choice_table(choices))
    versions = ", ".join(f"{k} {v}" for k, v in provenance()["versions"].items())
    parts.append(f"Encoder {encoder.name} ({encoder.fingerprint[:12]}); {versions}.\n")
    atomic_write(options.out, "\n".join(parts))
    return options.out


if __name__ == "__main__":
    print(main())
