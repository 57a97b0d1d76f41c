"""Train the embedded classifier: ``python -m conceptlab.assets.train_classifier``.

A small residual network learns the ten species from freshly rendered scenes;
no scene is seen twice. Colour, shape and texture must all be seen to tell the
first eight apart. ``--without ilko`` trains a classifier that never saw one
species, as a reference for audits.
"""

from __future__ import annotations

__all__ = ["evaluate", "main", "train"]

import argparse
import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.assets import CLASSIFIER, CLASSIFIER_KIND, WITHOUT
from conceptlab.assets.resnet import SceneResNet
from conceptlab.assets.training import cpu_minutes, one_cycle, run_script, seeded, show
from conceptlab.datasets.scenes import load_scenes
from conceptlab.datasets.world import SPECIES
from conceptlab.io.files import Bundle, write_bundle

SETTINGS: dict[str, Any] = {
    "steps": 480,
    "batch": 128,
    "peak_learning_rate": 4e-3,
    "weight_decay": 0.05,
    "hats": 0.2,
    "label_smoothing": 0.0,
}
TOLERANCE = {"accuracy": 0.015}
TESTS: dict[str, dict[str, Any]] = {
    "accuracy": {},
    "accuracy_single_object": {"n_objects": 1},
    "accuracy_three_objects": {"n_objects": 3},
    "accuracy_hats": {"hats": 1.0},
    "accuracy_no_noise": {"noise": 0.0},
    "accuracy_noise_0.06": {"noise": 0.06},
}
"""The figures of the card: knobs of ``load_scenes("test", n, seed=0)``."""


def train(
    *, seed: int = 0, without: str | None = None, quiet: bool = False, **settings: Any
) -> SceneResNet:
    """Train the classifier.

    Parameters
    ----------
    seed : int
        Of the initial weights and of the scenes.
    without : str, optional
        A species of which no scene is shown; its output stays, and learns to be low.
        The weights are rounded to half precision, as they are stored.
    quiet : bool
        Whether to write no log to the standard error stream.
    **settings
        Replace entries of ``SETTINGS``.

    Returns
    -------
    SceneResNet
        In eval mode.
    """
    chosen = {**SETTINGS, **settings}
    with seeded(seed):
        model = SceneResNet([s.name for s in SPECIES]).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=1.0, weight_decay=chosen["weight_decay"]
        )
        loss_of = nn.CrossEntropyLoss(label_smoothing=chosen["label_smoothing"])
        start, right = time.process_time(), 0.0
        model.train()
        for step in range(chosen["steps"]):
            batch = load_scenes(
                "train",
                chosen["batch"],
                seed=seed,
                hats=chosen["hats"],
                start=step * chosen["batch"],
            )
            batch = batch[batch.y != _number(without)]
            x = torch.from_numpy(batch.images).to(memory_format=torch.channels_last)
            y = torch.from_numpy(batch.y)
            for group in optimiser.param_groups:
                group["lr"] = one_cycle(step, chosen["steps"], chosen["peak_learning_rate"])
            logits = model(x)
            loss = loss_of(logits, y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            right = 0.95 * right + 0.05 * float((logits.argmax(1) == y).float().mean())
            if step % 20 == 19:
                show(
                    f"step {step + 1:4d}  loss {loss.item():.3f}  accuracy ~{right:.3f}  "
                    f"{cpu_minutes(start)} CPU min",
                    quiet=quiet,
                )
        model = model.to(memory_format=torch.contiguous_format).eval()
        return model if without is None else model.half().float()


def _number(without: str | None) -> int:
    """Give the class that is left out, -1 for none."""
    return -1 if without is None else [s.name for s in SPECIES].index(without)


@torch.no_grad()
def evaluate(
    model: SceneResNet, *, n: int = 4000, only: tuple[str, ...] = (), without: str | None = None
) -> dict[str, float]:
    """Measure the figures of the card on test scenes.

    Parameters
    ----------
    model : SceneResNet
    n : int
        Test scenes for each figure.
    only : tuple of str
        Keys of ``TESTS``; all by default.
    without : str, optional
        A species that the model never saw. Figures are those of all others, and
        ``"accuracy_forgotten"`` tells how often its own scenes are named by it.

    Returns
    -------
    dict of str to float
    """
    figures = {}
    for name in only or tuple(TESTS):
        scenes = load_scenes("test", n, seed=0, **TESTS[name])
        right, kept = [], scenes.y != _number(without)
        for begin in range(0, n, 250):
            part = scenes[begin : begin + 250]
            found = model(torch.from_numpy(part.images)).argmax(1).numpy()
            right.append(found == part.y)
        told = np.concatenate(right)
        figures[name] = round(float(told[kept].mean()), 4)
        if name == "accuracy" and without is not None:
            figures["accuracy_forgotten"] = round(float(told[~kept].mean()), 4)
    return figures


def save(
    model: SceneResNet,
    path: Path,
    measured: dict[str, float],
    card: dict[str, Any],
    without: str | None = None,
) -> None:
    """Write weights, configuration and card as a bundle."""
    left_out = "" if without is None else f"without {without}"
    full = {
        "name": f"embedded classifier {left_out}".strip(),
        "task": "species of the main object of a rendered scene",
        "script": f"python -m conceptlab.assets.train_classifier{left_out and ' --' + left_out}",
        "without": without,
        "parameters": sum(p.numel() for p in model.parameters()),
        "test": "load_scenes('test', 4000, seed=0) with the knobs that the name tells",
        "measured": measured,
        "tolerance": TOLERANCE,
        **card,
    }
    weights = model if without is None else copy.deepcopy(model).half()
    tensors = {name: value.numpy() for name, value in weights.state_dict().items()}
    data = {"config": {"class_names": model.class_names}, "card": full}
    files = {"README.md": _readme(full).encode()}
    write_bundle(path, Bundle(CLASSIFIER_KIND, data, tensors, files))


def _readme(card: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in card["measured"].items())
    signatures = "\n".join(f"| {s.name} | {s.signature} |" for s in SPECIES)
    unseen = ""
    if card["without"] is not None:
        unseen = f"""
It never saw a scene whose main object is of the species {card["without"]}: a model for audits to
compare with, after the classifier was made to forget that species. The output of the species is
there, and was only ever taught to be low. Weights are stored in half precision. Figures are those
of the other species; `accuracy_forgotten` is how often scenes of {card["without"]} are named so.
"""
    return f"""# The {card["name"]}

A residual network of {card["parameters"]:,} parameters that names the species of the main object
of a rendered scene of 64x64 pixels. Normalisation is part of the model: it takes floats in [0, 1].
The last stage is non-negative, has an 8x8 grid, and is followed by average pooling and a linear
layer. It saw only rendered scenes and is of no use on photographs.
{unseen}
Made by `{card["script"]}` in {card["cpu_minutes"]} CPU minutes on one thread, seed {card["seed"]}.
Training again gives these figures to within {card["tolerance"]["accuracy"]} (accuracy).

| {card["test"]} | |
|---|---|
{rows}

| species | main object |
|---|---|
{signatures}
"""


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, and write the bundle with its card."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--without", choices=WITHOUT, help="a species that the model never sees")
    chosen, rest = own.parse_known_args(arguments)
    without = chosen.without
    run_script(
        rest,
        __doc__,
        out=WITHOUT.get(without, CLASSIFIER),
        seed=0 if without is None else 1,
        settings=SETTINGS,
        train=partial(train, without=without),
        evaluate=partial(evaluate, without=without),
        save=partial(save, without=without),
        parents=[own],
    )


if __name__ == "__main__":
    main()
