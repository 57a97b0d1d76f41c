"""Forgetting a class on scenes: classes share concepts, and two have one of their own.

``python docs/results/unlearning_scenes.py`` writes ``unlearning-scenes.md`` beside this file.
Images are rendered, 32×32 pixels, one large object each. Six species: circles and stars in red and
in blue, a red heart, a blue cross. Heart and cross are exclusive; colours and the other shapes are
shared.
"""

from unlearning_networks import SmallResNet
from unlearning_table import Recipe, Study, Task, run

from conceptlab.datasets import Species, load_scenes
from unlearning.data import as_samples

SPECIES = [
    Species("red circle", "red", "circle", "plain"),
    Species("red star", "red", "star", "plain"),
    Species("blue circle", "blue", "circle", "plain"),
    Species("blue star", "blue", "star", "plain"),
    Species("red heart", "red", "heart", "plain"),
    Species("blue cross", "blue", "cross", "plain"),
]
FORGOTTEN = ("red heart", "blue cross")
LARGE = 1


def build():
    """Make the network: 78 000 weights."""
    return SmallResNet(3, (16, 32, 64), 2, len(SPECIES))


RECIPE = Recipe(build, epochs=14)


def drawn(split, n, seed):
    """Render scenes and keep those whose object is large."""
    scenes = load_scenes(split, 2 * n, seed, species=SPECIES, n_objects=1, size=32)
    return scenes[scenes.objects["size"][:, 0] == LARGE][:n]


def tasks(seeds, forgotten=FORGOTTEN):
    """Draw the tasks of some seeds."""
    for seed in seeds:
        train, test = drawn("train", 1400, seed), drawn("test", 1000, seed)
        sets = [as_samples(((part.images - 0.5) / 0.25, part.y)) for part in (train, test)]
        names = list(test.class_names)
        shown = (test.attributes, list(test.attribute_names))
        for name in forgotten:
            yield Task(seed, names.index(name), *sets, RECIPE, names, concepts=shown)


SETTINGS = {
    "concept poisoning": {"method": "ConceptPoisoning"},
    "its published setting": {"method": "ConceptPoisoning", "preset": "paper", "epochs": 10},
    "logit mask": {"method": "LogitMask"},
    "fine-tune": {"method": "FineTune", "epochs": 2, "lr": 0.05},
    "l1-sparse": {"method": "L1Sparse", "epochs": 2, "lr": 0.05, "alpha": 1e-4},
    "gradient ascent": {
        "method": "GradientAscent",
        "epochs": 20,
        "lr": 1e-4,
        "until": 0.02,
        "norm": "frozen",
    },
    "NegGrad+": {"method": "NegGradPlus", "epochs": 2, "lr": 2e-3, "norm": "frozen"},
    "random label": {"method": "RandomLabel", "epochs": 2, "lr": 2e-3},
    "SalUn": {"method": "SalUn", "epochs": 2, "lr": 3e-3, "batch_size": 64},
    "boundary shrink": {"method": "BoundaryShrink", "epochs": 10, "lr": 1e-4, "norm": "frozen"},
    "boundary expand": {"method": "BoundaryExpand", "epochs": 10, "lr": 5e-5, "norm": "frozen"},
    "bad teacher": {
        "method": "BadTeacher",
        "epochs": 3,
        "lr": 1e-3,
        "retain_share": 0.5,
        "batch_size": 64,
    },
    "SCRUB": {"method": "SCRUB", "epochs": 3, "lr": 5e-4, "batch_size": 64},
    "SSD": {"method": "SSD", "alpha": 40.0, "lam": 1.0},
    "UNSIR": {
        "method": "UNSIR",
        "n_noise": 64,
        "repeats": 2,
        "batch_size": 64,
        "lr": 5e-3,
        "repair_lr": 3e-3,
    },
    "Fisher": {"method": "FisherForgetting", "alpha": 1e-7, "labels": "sampled"},
    "DELETE": {"method": "DELETE"},
    "TRW": {"method": "TRW"},
    "LoTUS": {"method": "LoTUS"},
    "DAMP": {"method": "DAMP"},
    "soft relabel": {"method": "SoftRelabel", "epochs": 2, "lr": 0.01, "norm": "update"},
}

NOTES = """\
Relearning was given 25 steps at most, so that an AIN near 1 can mean "no sooner than retrain,
within 25 steps". Times were taken on a shared machine, retraining and methods not at the same
minute: ratios are good to about a third. *Its published setting* is `ConceptPoisoning.paper()` with
fewer epochs (below).
"""

READING = """\
- **Concept poisoning says nearly what a retrained network would**: JS 0.057, where two retrained
  networks differ by 0.017 and random label is at 0.276. It keeps the retained classes, and sends
  the class where retrain sends it (donor probability 0.86 beside 0.93). NegGrad+, gradient ascent
  and UNSIR are a little nearer (0.044, 0.049, 0.054), at a price of 7 to 19 points of retained
  accuracy; of methods that keep it within two points none is nearer than 0.10.
- **The goal on the exclusive concept is met without merit.** A network that never saw a heart or a
  cross encodes it nearly as well (AUC 0.963) as the original (0.995): the original itself would
  meet the goal. Concept poisoning leaves 0.996, so on this figure it forgot nothing.
- **The concepts still count for the class**: their attribution to its logit is 2.7, beside 5.9 in
  the original, 1.0 under the mask and 0 in retrain. The audit calls half of the draws suppressed.
- The published setting, with its ten epochs, leaves some of the class in three draws of six.
- Goals that are met by little are met by luck too: with other rounding (torch 2.15, another
  machine) the same script had 0.025 above the floor and 0.204 below random label, and concept
  poisoning the smallest JS of all methods.
- The world of this page is the one on which concept poisoning was developed: on the default species
  and grey backgrounds its one development draw was poor (JS 0.54, two points of retained accuracy),
  and an earlier recipe of this world, with small objects too, missed the goal on retained accuracy.
- Average gap tells nothing here: MIA-eff of retrain itself is 0 or 1 by draw.
- Most peers damage this small network or leave some of the class: settings that suit one draw do
  not suit the next.
"""

STUDY = Study(
    script=__file__,
    title="Forgetting a class of scenes",
    data="Rendered scenes of one large object, 32×32 pixels, on five backgrounds, 1 400 to train, "
    "1 000 to test; a residual network of 78 000 weights, 14 epochs. Six species: circles and "
    "stars in red and in blue, a red heart, a blue cross. Heart and cross, forgotten by turns, "
    "are the exclusive concepts; the colours and the other shapes are shared.",
    tasks=tasks,
    settings=SETTINGS,
    notes=NOTES,
    reading=READING,
    options={"max_steps": 25, "relearn_samples": 80, "attack_lr": 0.01, "recovery": False},
    limits=("concept",),
)

if __name__ == "__main__":
    run(STUDY)
