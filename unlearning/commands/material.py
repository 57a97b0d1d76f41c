"""What the commands ``unlearn`` and ``audit`` share: classifier, images, the class to forget."""

from __future__ import annotations

__all__ = [
    "Material",
    "Selected",
    "load_material",
    "load_references",
    "show_report",
    "with_weights",
]

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from conceptlab.errors import CheckpointError, InputError, unknown_name
from conceptlab.io.reading import read_plain_file, strict_json
from unlearning.data import Samples, split_classes

WEIGHTS, CERTIFICATE = "model.safetensors", "certificate.json"
_SHOWN = (
    "fa_train",
    "fa_test",
    "ra",
    "ta",
    "js",
    "mia_confidence",
    "probe_recall",
    "relearn_steps",
    "concept_auc",
    "donor",
)


class Selected(nn.Module):
    """A classifier of which one output counts.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    output : str, int or callable
        See ``conceptlab.models.SplitModel``.
    """

    def __init__(self, model: nn.Module, output: Any) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give the logits."""
        from conceptlab.models.outputs import select_logits

        return select_logits(self.model(images), self.output)


@dataclass(frozen=True, eq=False)
class Material:
    """A classifier and labelled images, with the class to forget.

    Attributes
    ----------
    model : torch.nn.Module
    forget, retain, test : Samples
    class_names : list of str
    forgotten : int
    concepts : dict
        What the test images show and which concepts are the class's, as ``audit`` takes it;
        empty where it is not known.
    source : str
        Where the images come from, in words.
    """

    model: nn.Module
    forget: Samples
    retain: Samples
    test: Samples
    class_names: list[str]
    forgotten: int
    concepts: dict[str, Any]
    source: str


def load_material(
    images: Path | None,
    model: str,
    target: str,
    *,
    test_images: Path | None = None,
    n_images: int = 600,
    n_test: int = 400,
    size: int | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Material:
    """Load what a command was told.

    Parameters
    ----------
    images : pathlib.Path or None
        A folder or zip with a subfolder for each class; rendered scenes when None.
    model : str
        See :func:`conceptlab.models.load.load_model`.
    target : str
        The class to forget, by name or number.
    test_images : pathlib.Path, optional
        The same kind of folder with images that the model never saw; a third of `images` is
        kept for that when left out.
    n_images, n_test : int
        At most so many images.
    size : int, optional
        Side to which images are scaled; the model's by default.
    device : str
        Where to compute.
    seed : int
        Of scenes and splits.

    Returns
    -------
    Material
    """
    from conceptlab.arrays import resolve_device
    from conceptlab.models.load import load_model

    if min(n_images, n_test) < 40:
        raise InputError(
            f"--n-images and --n-test must be at least 40, got {n_images} and {n_test}.",
            code="CL-INPUT-RANGE",
        )
    loaded = load_model(model)
    side = size or loaded.size or 224
    truth: Any = None
    if images is None:
        from conceptlab.datasets import load_scenes

        train = load_scenes("train", n_images, seed=seed, size=side)
        held = load_scenes("test", n_test, seed=seed, size=side)
        sets = [(torch.as_tensor(s.images), torch.as_tensor(s.y)) for s in (train, held)]
        names, source = list(train.class_names), "the rendered world"
        truth = held
    else:
        sets, names = _folder_sets(
            images, test_images, loaded.class_names, n_images, n_test, side, seed
        )
        source = str(images)
    if loaded.preprocess is not None:
        sets = [(torch.as_tensor(loaded.preprocess(x)), y) for x, y in sets]
    classifier = loaded.model
    if loaded.output is not None:
        classifier = Selected(classifier, loaded.output)
    classifier = classifier.to(resolve_device(device)).eval()
    forgotten = _class_of(target, names)
    concepts = {} if truth is None else _planted(truth, forgotten)
    forget, retain = split_classes(sets[0], forgotten, name="images")
    held_samples = Samples(sets[1][0], sets[1][1].to(torch.int64), "test")
    return Material(classifier, forget, retain, held_samples, names, forgotten, concepts, source)


def _planted(scenes: Any, forgotten: int) -> dict[str, Any]:
    """Give the concepts of rendered scenes, and those of a species."""
    table, names = scenes.class_attributes, list(scenes.attribute_names)
    own = np.flatnonzero(table[forgotten])
    alone = [k for k in own if table[:, k].sum() == 1]
    return {
        "concepts": (scenes.main_attributes, names),
        "class_concepts": [names[k] for k in own],
        "exclusive": [names[k] for k in alone],
    }


def _folder_sets(
    images: Path,
    test_images: Path | None,
    known: Sequence[str] | None,
    n_images: int,
    n_test: int,
    size: int,
    seed: int,
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[str]]:
    from conceptlab.datasets import load_image_folder

    parts = []
    for place in (images, test_images):
        if place is None:
            continue
        if not os.path.exists(place):
            raise InputError(
                f"{place} does not exist; give a folder or zip with a subfolder for each class.",
                code="CL-INPUT-FILE",
            )
        found = load_image_folder(place, size=size)
        if found.y is None:
            raise InputError(
                f"{place} has no subfolders, so no labels; put the images of each class into a "
                "folder of its name.",
                code="CL-INPUT-LABELS",
            )
        parts.append(found)
    names = list(known) if known is not None else list(parts[0].class_names)
    strange = sorted({n for part in parts for n in part.class_names} - set(names))
    if strange:
        raise InputError(
            f"Folder {strange[0]!r} is no class of the model. Name each subfolder as the model "
            f"names its class: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}.",
            code="CL-INPUT-LABELS",
        )
    rng = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    labels = [
        np.array([names.index(part.class_names[c]) for c in np.asarray(part.y)]) for part in parts
    ]
    if test_images is None:
        first = _spread(labels[0], n_images + n_test, rng)
        held = _spread(labels[0][first], round(len(first) / 3), rng)
        rows = [np.delete(first, held), first[held]]
        parts, labels = parts * 2, labels * 2
    else:
        rows = [_spread(y, n, rng) for y, n in zip(labels, (n_images, n_test), strict=True)]
    sets = [
        (torch.as_tensor(part[np.sort(r)].images), torch.as_tensor(y[np.sort(r)]))
        for part, y, r in zip(parts, labels, rows, strict=True)
    ]
    return sets, names


def _spread(y: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows, every class by its share."""
    if len(y) <= limit:
        return np.arange(len(y))
    picked = [
        rng.permutation(np.flatnonzero(y == c))[: max(1, round(limit * float(np.mean(y == c))))]
        for c in np.unique(y)
    ]
    return np.concatenate(picked)


def _class_of(target: str, names: Sequence[str]) -> int:
    if target in names:
        return list(names).index(target)
    if target.isdigit() and int(target) < len(names):
        return int(target)
    raise unknown_name("class", target, list(names), code="CL-INPUT-TARGET")


def with_weights(model: nn.Module, path: Path) -> tuple[nn.Module, dict[str, Any] | None]:
    """Copy a model with other weights.

    Parameters
    ----------
    model : torch.nn.Module
        The architecture.
    path : pathlib.Path
        Weights, or a folder that ``conceptlab unlearn`` wrote.

    Returns
    -------
    model : torch.nn.Module
    certificate : dict or None
        What stands beside the weights.

    Raises
    ------
    CheckpointError
        The file is missing, or its weights do not fit.
    """
    from conceptlab.models.load import load_state_dict

    folder = path if os.path.isdir(path) else path.parent
    file = path / WEIGHTS if os.path.isdir(path) else path
    tensors = load_state_dict(file)
    twin = copy.deepcopy(model)
    inner = twin.model if isinstance(twin, Selected) else twin
    try:
        inner.load_state_dict(tensors)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"The weights in {file} do not fit {type(inner).__name__}: {' '.join(lines)[:300]} "
            "All models of an audit have one architecture; name it with --model.",
            code="CL-CHECKPOINT-KIND",
        ) from error
    note = folder / CERTIFICATE
    certificate = None
    if os.path.isdir(path) and os.path.isfile(note):
        try:
            certificate = strict_json(read_plain_file(note))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{note} is no certificate: {error}.", code="CL-CHECKPOINT-DAMAGED"
            ) from error
    return twin.eval(), certificate


def load_references(
    found: Material, model: str, paths: Sequence[Path] | None
) -> tuple[list[nn.Module], str]:
    """Load models that never saw the class.

    Parameters
    ----------
    found : Material
    model : str
        The name of the original, as :func:`load_material` took it.
    paths : sequence of pathlib.Path or None
        Weights, or folders that ``conceptlab unlearn`` wrote. Without any, the embedded
        classifier has a reference for the classes in :data:`conceptlab.assets.WITHOUT`.

    Returns
    -------
    references : list of torch.nn.Module
    words : str
        What they are.

    Raises
    ------
    CheckpointError
        A file is missing, or its weights do not fit.
    """
    from conceptlab.assets import WITHOUT, load_embedded_classifier

    if paths:
        given = [with_weights(found.model, path)[0] for path in paths]
        return given, "beside the retrained models given"
    name = found.class_names[found.forgotten]
    if model != "embedded" or name not in WITHOUT:
        return [], "without a retrained model"
    device = next(found.model.parameters()).device
    twin = load_embedded_classifier(without=name).to(device)
    return [twin], f"beside an embedded model that never saw {name}"


def show_report(console: Console, report: Any) -> None:
    """Print the verdict, its evidence and the main figures."""
    from unlearning.audit.figures import COLUMNS, FIGURES

    word = report.verdict.word
    colour = {"removed": "green", "undecided": "yellow"}.get(word, "red")
    console.print(f"[bold {colour}]{word}[/]", highlight=False)
    console.print(report.verdict.summary, highlight=False, markup=False)
    table = Table(show_edge=False)
    table.add_column("")
    for name in report.columns:
        table.add_column(COLUMNS[name], justify="right")
    for key in _SHOWN:
        if key in report.figures():
            cells = [report.value(key, name) for name in report.columns]
            table.add_row(FIGURES[key].title, *("–" if np.isnan(v) else f"{v:.3g}" for v in cells))
    console.print(table)
    for one in report.verdict.evidence:
        if one.side != "removed":
            console.print(f"- {one.text}", highlight=False, markup=False)
