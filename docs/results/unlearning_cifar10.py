"""Forgetting a class of CIFAR-10 photos: a network trained here, and published weights.

``CONCEPTLAB_DATA=folder python docs/results/unlearning_cifar10.py`` writes
``unlearning-cifar10.md`` beside this file. The folder holds ``cifar10_jpeg.zip`` (``train`` and
``test``, each with a folder of JPEGs for every class) and ``models/resnet20_cifar10.th``, the
weights that ``docs/howto/resnet20_cifar.py`` adapts (or ``CONCEPTLAB_RESNET20`` names them).
"""

import os
import sys
import time
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from unlearning_networks import SmallResNet, flips
from unlearning_table import (
    Column,
    Recipe,
    Study,
    Task,
    as_table,
    compare,
    run,
)

from unlearning.data import as_samples

HERE = Path(__file__).resolve().parent
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FORGOTTEN = ("deer", "automobile")
TRAIN = 400  # photos of each class


def build():
    """Make the network: 78 000 weights."""
    return SmallResNet(3, (16, 32, 64), 2, 10, first=2)


RECIPE = Recipe(build, epochs=7, augment=flips)


def folder():
    """Give the folder of the data."""
    if "CONCEPTLAB_DATA" not in os.environ:
        sys.exit("Set CONCEPTLAB_DATA to the folder with cifar10_jpeg.zip; see the docstring.")
    return Path(os.environ["CONCEPTLAB_DATA"])


@cache
def photos(part):
    """Read one part of the photos as (n, 3, 32, 32) in [0, 1], and the class of each."""
    images, y = [], []
    with zipfile.ZipFile(folder() / "cifar10_jpeg.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(f"{part}/") and name.endswith(".jpg"):
                pixels = Image.open(BytesIO(archive.read(name))).convert("RGB")
                images.append(np.asarray(pixels).transpose(2, 0, 1))
                y.append(CLASSES.index(name.split("/")[1]))
    return torch.from_numpy(np.stack(images)).float() / 255, np.array(y)


def drawn(seed, n, centred=True):
    """Draw n training photos of each class; the test photos are always the same."""
    images, y = photos("train")
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:n] for c in range(10)])
    test, labels = photos("test")
    pairs = (images[rows], y[rows]), (test, labels)
    return [as_samples(((x - 0.5) / 0.25 if centred else x, labels)) for x, labels in pairs]


def tasks(seeds, forgotten=FORGOTTEN):
    """Draw the tasks of some seeds."""
    for seed in seeds:
        sets = drawn(seed, TRAIN)
        for name in forgotten:
            yield Task(seed, CLASSES.index(name), *sets, RECIPE, CLASSES)


SETTINGS = {
    "concept poisoning": {"method": "ConceptPoisoning", "augmented": True},
    "its published setting": {"method": "ConceptPoisoning", "preset": "paper", "epochs": 3},
    "logit mask": {"method": "LogitMask"},
    "fine-tune": {"method": "FineTune", "epochs": 2, "lr": 0.05, "augmented": True},
    "l1-sparse": {
        "method": "L1Sparse",
        "epochs": 2,
        "lr": 0.05,
        "alpha": 1e-4,
        "augmented": True,
    },
    "gradient ascent": {
        "method": "GradientAscent",
        "epochs": 10,
        "lr": 3e-4,
        "until": 0.02,
        "norm": "update",
    },
    "NegGrad+": {
        "method": "NegGradPlus",
        "epochs": 1,
        "lr": 1e-3,
        "norm": "update",
        "augmented": True,
    },
    "random label": {"method": "RandomLabel", "epochs": 1, "lr": 5e-3, "augmented": True},
    "SalUn": {
        "method": "SalUn",
        "epochs": 1,
        "lr": 5e-3,
        "batch_size": 64,
        "augmented": True,
    },
    "boundary shrink": {"method": "BoundaryShrink", "epochs": 5, "lr": 5e-5, "norm": "frozen"},
    "boundary expand": {"method": "BoundaryExpand", "epochs": 5, "lr": 5e-5, "norm": "frozen"},
    "bad teacher": {"method": "BadTeacher", "epochs": 1, "lr": 1e-3, "batch_size": 64},
    "SCRUB": {
        "method": "SCRUB",
        "epochs": 2,
        "max_epochs": 1,
        "lr": 5e-4,
        "batch_size": 64,
        "augmented": True,
    },
    "SSD": {"method": "SSD", "alpha": 10.0, "lam": 1.0},
    "UNSIR": {
        "method": "UNSIR",
        "n_noise": 64,
        "repeats": 2,
        "n_per_class": 100,
        "batch_size": 64,
        "lr": 5e-3,
        "repair_lr": 3e-3,
        "augmented": True,
    },
    "Fisher": {"method": "FisherForgetting", "alpha": 1e-8, "labels": "sampled"},
    "soft relabel": {"method": "SoftRelabel", "epochs": 1, "lr": 5e-3, "augmented": True},
}

PUBLISHED = {
    "concept poisoning": {"method": "ConceptPoisoning", "lr": 2e-4},
    "at its default rate": {"method": "ConceptPoisoning"},
    "logit mask": {"method": "LogitMask"},
    "random label": {"method": "RandomLabel", "epochs": 2, "lr": 0.005},
    "SalUn": {"method": "SalUn", "epochs": 2, "lr": 0.005, "batch_size": 64},
    "SSD": {"method": "SSD", "alpha": 10.0, "lam": 1.0},
    "soft relabel": {"method": "SoftRelabel", "epochs": 2, "lr": 0.005},
}
FREE = (
    Column("fa_train", "FA train, %", 100, 1),
    Column("fa_test", "FA test, %", 100, 1),
    Column("ra", "RA, %", 100, 1),
    Column("ta", "TA, %", 100, 1),
    Column("js_mask", "JS to mask", 1, 3),
    Column("features_kept", "features kept"),
    Column("probe_recall", "probe recall"),
    Column("relearn_steps", "relearn steps", 1, 0),
    Column("fa_int4", "FA int4"),
    Column("cpu", "CPU s", 1, 1),
)


def published(_seeds):
    """Unlearn from the published weights, where nobody can retrain in a minute."""
    os.environ.setdefault("CONCEPTLAB_RESNET20", str(folder() / "models" / "resnet20_cifar10.th"))
    sys.path.insert(0, str(HERE.parent / "howto"))
    from resnet20_cifar import build as build_published

    loaded = build_published()
    network = nn.Sequential(loaded.preprocess, loaded.model).eval().requires_grad_(True)
    start = time.process_time()
    runs = []
    train, test = drawn(0, 100, centred=False)
    test = test.select(torch.arange(0, len(test), 2))
    for name in FORGOTTEN:
        task = Task(0, CLASSES.index(name), train, test, RECIPE, CLASSES)
        task.original, task.reference_free = network, True
        options = {"max_steps": 30, "relearn_samples": 200, "attack_lr": 0.01, "recovery": False}
        runs.append(compare(task, PUBLISHED, None, options))
    seconds = time.process_time() - start
    lines = [
        "## From published weights\n",
        f"ResNet-20, 270 000 weights, trained on all 50 000 photos; 100 photos of each class to "
        f"unlearn with, 1 000 to test; classes {' and '.join(FORGOTTEN)}; {seconds:.0f} CPU s. "
        "There is no retrained model, so figures stand beside the original and its logit mask "
        "alone. *JS to mask*: divergence of the answers to those of the masked original; near 0, "
        "nothing but a mask has happened. *Features kept*: how far the class's features are the "
        "original's.\n",
        as_table(runs, FREE, bold="concept poisoning"),
    ]
    return {"page": "\n".join(lines), "runs": runs, "settings": PUBLISHED}


NOTES = """\
Relearning was given 25 steps at most, so that an AIN near 1 can mean "no sooner than retrain,
within 25 steps". Times were taken on a shared machine, retraining and methods not at the same
minute: ratios are good to about a third. *Its published setting* is `ConceptPoisoning.paper()` with
fewer epochs (below).
"""

READING = """\
The goals were set for digits and scenes; here they stand for comparison.

- **The mask is as near to retrain as anything**: JS 0.067, beside 0.066 between two retrained
  networks and 0.068 for concept poisoning. A weak network (52 % on retained classes) answers so
  unsurely that masking one logit is most of what retraining does. Random label is at 0.101: the
  distance of 0.1 that was asked for does not exist here.
- **What tells is inside**: the probe reads the class 0.12 or 0.13 better than from retrain under
  the mask, Fisher and the published setting, 0.11 better after concept poisoning, 0.08 after
  fine-tuning, which pays 3.6 points of retained accuracy for it.
- **Concept poisoning is slow here**, 0.76 of a retraining: its cost hardly depends on how long the
  original was trained, and this one was trained for seven epochs.
- **From published weights its default rate does harm**, 8.7 points of retained accuracy, last
  table. At a tenth of the rate, as its documentation advises for networks that were trained for
  long, it forgets as fully and gains 1.4 points, as much as the mask does. The rate was looked for
  on another class, horses, among three.
- Random label, SalUn and soft relabel lose 0.9 to 1.6 points; boundary methods, bad teacher and
  NegGrad+ leave 9 to 23 % of the class with these settings, and SSD breaks the network.
"""

STUDY = Study(
    script=__file__,
    title="Forgetting a class of CIFAR-10",
    data="JPEG photos of 32×32 pixels, 4 000 to train (drawn by seed), 2 000 to test; a residual "
    "network of 78 000 weights, 7 epochs with flips.",
    tasks=tasks,
    settings=SETTINGS,
    notes=NOTES,
    reading=READING,
    chosen="Carried over from the tables on digits and scenes, with fewer epochs; not searched on "
    "these photos, for peers as for concept poisoning.",
    options={"max_steps": 25, "relearn_samples": 100, "attack_lr": 0.01, "recovery": False},
    more=published,
)

if __name__ == "__main__":
    run(STUDY)
