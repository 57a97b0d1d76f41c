"""Unlearning in the embedded generator: what goes, what stays, what comes back.

``python docs/results/gan_scenes.py`` writes ``gan-scenes.md`` and ``gan-scenes.json`` beside
this file. Every figure is by the independent judge unless it says otherwise. Rows that are in
the JSON already are not measured again without ``--fresh``.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from conceptlab.assets import load_embedded_gan, load_embedded_judge
from conceptlab.assets.gan_world import GAN_FAMILIES
from conceptlab.encoders import load_encoder
from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance
from unlearning.gan import (
    DirectionalAdaptation,
    LatentGuard,
    NegativeFineTune,
    RejectionFilter,
    TextToUnlearn,
    assess,
    latent_search,
    prompt_attack,
    relearn,
)

TARGETS = (("red",), ("circle",), ("checked",), ("hat",), ("red", "circle"))
COLUMNS = {
    "judge: removed": "removed",
    "judge: kept, mean": "others kept",
    "judge: kept, all at once": "all kept at once",
    "judge: unchanged, never had it": "unchanged, never had it",
    "judge: leak": "leak",
    "fid / ideal": "FID / ideal",
    "degree, guide": "degree (guide)",
    "guide: removed": "removed (guide)",
    "seconds": "CPU s",
}
GOALS = {
    "judge: removed": (0.90, 1),
    "judge: kept, mean": (0.95, 1),
    "judge: unchanged, never had it": (0.99, 1),
    "judge: leak": (0.01, -1),
    "fid / ideal": (1.5, -1),
    "seconds": (60, -1),
}
SHARES = {k for k in COLUMNS if k.startswith(("judge", "guide"))}


ABLATIONS = """## Ablations and baselines

All on red.

{table}

Without preservation or without the gate, latents that never had red move too; the paper has no
gate. Without surrogates and fold, images are only pushed along the direction: red goes, other
attributes go with it, and images look less like the generator's own. Without the second view the
errors of the guide are learned too; in red they are few. The paper's losses have steps and weights
of ours, since it could not be read for them.

The columns *degree (guide)* and *removed (guide)* show what would be believed were the guide its
own judge. Rejection gives the image of another latent, so that nothing but chance keeps other
attributes. The guard and the filter leave the weights alone: whoever has them can take guard or
filter off.

"""


def methods(encoder, target, seed):
    """Give every method, ablations among them, by name."""
    options = {"retain": GAN_FAMILIES, "random_state": seed}
    return {
        "without preservation": TextToUnlearn(encoder, target, preserve_weight=0.0, **options),
        "without gate": TextToUnlearn(encoder, target, gate=False, **options),
        "without second view": TextToUnlearn(encoder, target, second_view=False, **options),
        "without surrogates and fold": TextToUnlearn(
            encoder, target, surrogate=False, direction_weight=1.0, guide_every=2, **options
        ),
        "the paper's method alone": TextToUnlearn.paper(encoder, target, **options),
        "directional adaptation": DirectionalAdaptation(encoder, target, **options),
        "negative fine-tuning": NegativeFineTune(encoder, target, **options),
        "latent guard": LatentGuard(encoder, target, **options),
        "rejection": RejectionFilter(encoder, target, **options),
    }


def measure(gan, result, target, encoder, judge, n):
    """Assess one result: its figures with the CPU time."""
    report = assess(gan, result, target, encoder, judge, retain=GAN_FAMILIES, n=n, random_state=999)
    degrees = [v for k, v in report.figures.items() if k.startswith("degree, guide")]
    return {**report.figures, "degree, guide": float(np.mean(degrees)), "seconds": result.seconds}


def attacks(gan, result, judge, encoder):
    """Attack the original and what forgot red alike."""
    found = {}
    for name, victim in (("original", gan), ("unlearned", result)):
        for space in ("z", "w"):
            search = latent_search(victim, "red", judge, space=space, encoder=encoder)
            found[f"search in {space}, {name}"] = search["found"]
            found[f"search in {space}, by judge and guide, {name}"] = search["found by both"]
        found[f"mapper for the prompt, {name}"] = prompt_attack(gan, victim, "red", encoder, judge)[
            "found"
        ]
    for images in (4, 16):
        back = relearn(gan, result, "red", judge, n_images=images, n=200, steps=40)
        found[f"relearning from {images} images, old styles"] = back["back"]
        found[f"relearning from {images} images, latents"] = back["back, from latents"]
    return found


def shown(name, values):
    """Write a mean, with its range where there are several."""
    found = [v for v in values if np.isfinite(v)]
    if not found:
        return "–"
    scale, digits = (100, 1) if name in SHARES else (1, 2)
    mean, low, high = (scale * f(found) for f in (np.mean, np.min, np.max))
    text = f"{mean:.{digits}f}"
    if len(found) > 1:
        text += f" ({low:.{digits}f}–{high:.{digits}f})"
    if name in GOALS and len(found):
        goal, sign = GOALS[name]
        text += "" if sign * (np.mean(found) - goal) >= 0 else " ✗"
    return text


def table(rows):
    """Write rows of figures as Markdown."""
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for label, runs in rows.items():
        cells = [shown(k, [run.get(k, np.nan) for run in runs]) for k in COLUMNS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--latents", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    chosen = parser.parse_args()
    file = chosen.out / "gan-scenes.json"
    facts = {"rows": {}, "attacks": {}}
    if file.exists() and not chosen.fresh:
        facts = json.loads(file.read_text())
    encoder = load_encoder("embedded", device="cpu")
    gan, judge = load_embedded_gan(), load_embedded_judge()

    def keep(label, seed, result, target):
        figures = measure(gan, result, target, encoder, judge, chosen.latents)
        finite = {k: v if np.isfinite(v) else None for k, v in figures.items()}
        facts["rows"].setdefault(label, {})[str(seed)] = finite
        facts["latents"] = chosen.latents
        facts["provenance"] = provenance()
        atomic_write(file, json.dumps(facts, indent=1).encode())

    for seed in range(chosen.seeds):
        for target in TARGETS:
            label = " + ".join(target)
            need = str(seed) not in facts["rows"].get(label, {})
            attack = target == ("red",) and str(seed) not in facts["attacks"]
            if need or attack:
                unlearner = TextToUnlearn(
                    encoder, list(target), retain=GAN_FAMILIES, random_state=seed
                )
                result = unlearner.unlearn(gan, progress=False)
            if need:
                keep(label, seed, result, list(target))
            if attack:
                facts["attacks"][str(seed)] = attacks(gan, result, judge, encoder)
        for name, method in methods(encoder, "red", seed).items():
            if str(seed) not in facts["rows"].get(name, {}):
                keep(name, seed, method.unlearn(gan, progress=False), ["red"])
    atomic_write(file, json.dumps(facts, indent=1).encode())
    atomic_write(chosen.out / "gan-scenes.md", page(facts).encode())


def attack_rows(runs):
    """Write a row for each attack: its success on the original, and after forgetting."""
    rows = {}
    for name in runs[0]:
        attack, _, victim = name.rpartition(", ")
        if victim not in {"original", "unlearned"}:  # relearning has nothing to learn before
            attack, victim = name, "unlearned"
        rows.setdefault(attack, {})[victim] = f"{100 * np.mean([run[name] for run in runs]):.1f}"
    return "\n".join(
        f"| {attack} | {found.get('original', '–')} | {found['unlearned']} |"
        for attack, found in rows.items()
    )


def page(facts):
    """Lay the tables out."""
    rows = {
        label: [{k: np.nan if v is None else v for k, v in run.items()} for run in by_seed.values()]
        for label, by_seed in facts["rows"].items()
    }
    ours = {k: v for k, v in rows.items() if tuple(k.split(" + ")) in TARGETS}
    others = {"all of it (red)": ours["red"], **{k: v for k, v in rows.items() if k not in ours}}
    seeds = max(len(v) for v in ours.values())
    back = attack_rows(list(facts["attacks"].values()))
    missing = [" + ".join(t) for t in TARGETS if " + ".join(t) not in ours]
    missing += [name for name in methods(None, "red", 0) if name not in rows]
    left = f" Not measured yet: {', '.join(missing)}." if missing else ""
    ablations = ABLATIONS.format(table=table(others)) if len(others) > 1 else ""
    return f"""# Unlearning in a generator

`TextToUnlearn` takes an attribute out of the embedded generator (32×32 scenes of one object, 96
combinations), guided by the embedded encoder and nothing but texts. An independent judge, another
network trained on other scenes, says what became of it on {facts["latents"]} latents that no
training saw. Seeds: {seeds}. Shares in percent; ✗ marks a goal that is missed: removed ≥ 90, others
kept ≥ 95, unchanged ≥ 99, leak ≤ 1, FID at most 1.5 times the ideal's, 60 CPU seconds.

{table(ours)}

*Removed*: had the attribute, no longer shows it. *Others kept*: on those, mean over the other
families. *Unchanged*: all five families as before, on latents that never had it. *FID / ideal*:
Fréchet distance in the judge's features to images of the original without the attribute, beside
that of further such images. CPU seconds are of one thread on a machine that was shared, which
makes them longer. With a few hundred images the ideal's Fréchet distance is mostly the noise of
the sample.{left}

{ablations}## Attacks

Share (%) of attempts that end with an image that the judge calls red, on the original and after
red was forgotten; of the searches, also the share that the guide calls red as well.

| attack | original | unlearned |
|---|---|---|
{back}

The search climbs the judge itself, the worst case, through latents (z) or past the mapping through
styles (w). Many images at its end deceive the judge rather than show red: purple, or dark checks,
where it went through latents. The mapper for the prompt is what unlearning is guided by, turned
around. Relearning fine-tunes the synthesis on a few red images of the original; *old styles* feeds
it the styles that made red before, *latents* the new mapping. What is forgotten is gone for whoever
draws latents, and can be had back by whoever has the weights and means to.

All seeds are assessed on the same latents, so that ranges hold no noise of that sample. Rows were
measured before gates looked for rare concepts, which moves thresholds a little.

Made by `python docs/results/gan_scenes.py`.
"""


if __name__ == "__main__":
    main()
