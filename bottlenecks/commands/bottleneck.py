"""``conceptlab bottleneck``: images in, a classifier that decides through few concepts out."""

from __future__ import annotations

__all__ = ["bottleneck"]

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from conceptlab.errors import InputError

_TOLD = 8  # concepts of a class in the table; the JSON has all


def bottleneck(
    images: Annotated[
        Path | None,
        typer.Argument(help="A folder or zip, a subfolder a class; rendered scenes if left out."),
    ] = None,
    concepts: Annotated[
        Path | None,
        typer.Option(help="A JSON file: a list of texts, or lists by class; made when left out."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="embedded, open_clip:ARCHITECTURE/WEIGHTS, hf:NAME or a folder.")
    ] = "embedded",
    mode: Annotated[
        str, typer.Option(help="anchored, contrastive or l1: how thresholds are learned.")
    ] = "anchored",
    nec: Annotated[float, typer.Option(help="Concepts that a class uses, on average.")] = 3.0,
    sparsity: Annotated[float, typer.Option(help="Share of zeros among activations.")] = 0.4,
    max_images: Annotated[int, typer.Option(help="Use at most so many images.")] = 1500,
    test: Annotated[float, typer.Option(help="Share of the images that is held out.")] = 0.3,
    shown: Annotated[int, typer.Option(help="Images with their reasons in the report.")] = 6,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of scenes, split and fit.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Folder for the fitted model.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/bottleneck.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Classify images through few named concepts, beside a dense probe and random concepts."""
    from bottlenecks.commands.page import bottleneck_page
    from bottlenecks.sparse import SparseCBM
    from conceptlab.encoders.registry import EMBEDDED_NOTE, load_encoder
    from conceptlab.io.files import atomic_write
    from conceptlab.io.places import check_writable, report_file

    console = Console(stderr=as_json)
    start = time.perf_counter()
    out = report_file(out, "bottleneck.html")
    if save is not None:
        check_writable(save, "--save")
    found = _pictures(images, max_images, seed)
    rows, held = _split(found.labels, test, seed)
    reader = load_encoder(encoder, device=device)
    console.print(
        f"{len(found.labels)} images ({len(held)} held out), {len(set(found.labels))} classes, "
        f"encoder {reader.name}"
    )
    bank = _bank(concepts, found, reader)
    X = reader.encode_image(found.pictures)
    options: dict[str, Any] = {"mode": mode, "nec": nec, "sparsity": sparsity, "device": device}
    model = SparseCBM(bank, random_state=seed, **options)
    model.fit(X[rows], found.labels[rows], space=reader.fingerprint)
    facts: dict[str, Any] = {
        "encoder": reader.name,
        "notes": [EMBEDDED_NOTE] if images is not None and encoder == "embedded" else [],
        "n_train": len(rows),
        "n_test": len(held),
        "concepts": len(bank),
        "active": model.active_concepts_,
        "nec": model.nec_,
        "sparsity": model.sparsity_,
        **_accuracies(model, bank, reader, X, found.labels, rows, held, options, seed),
        "weights": {
            str(label): {row.concept: round(row.weight, 4) for row in part.itertuples()}
            for label, part in model.to_frame().groupby("class")
        },
    }
    curves: dict[str, Any] = {}
    if found.truth is not None:
        held_truth = found.truth[held]
        curves = {
            policy: model.intervention_curve(
                X[held], held_truth, found.labels[held], policy=policy, budget=8
            )
            for policy in ("random", "uncertainty", "gain")
        }
        facts["interventions"] = {
            policy: [round(float(a), 4) for a in curve.accuracy] for policy, curve in curves.items()
        }
    chosen = held[_spread(len(held), shown)]
    why = model.explain(X[chosen])
    pictures = [found.picture(int(i)) for i in chosen]
    titles = [
        f"{found.paths[i]}: {predicted}" + ("" if predicted == label else f", label {label}")
        for i, predicted, label in zip(chosen, why.predicted, found.labels[chosen], strict=True)
    ]
    html = bottleneck_page(model, why, pictures, titles, facts, curves)
    report = atomic_write(out, html).resolve()
    if save is not None:
        model.save(save)
    seconds = time.perf_counter() - start
    if as_json:
        facts.update(report=str(report), seconds=round(seconds, 1))
        typer.echo(json.dumps(facts, indent=2))
        return
    _show(console, facts)
    console.print(f"Report: {report}  ({seconds:.0f} s)", soft_wrap=True, highlight=False)


@dataclass(frozen=True, eq=False)
class _Found:
    """Images with labels, and the truth on concepts where it is known."""

    pictures: Any
    labels: np.ndarray
    paths: list[str]
    truth: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def picture(self, i: int) -> Any:
        from conceptlab.datasets.images import as_image_batch, image_source

        return as_image_batch(image_source(self.pictures).read(i, i + 1))[0]


def _pictures(images: Path | None, limit: int, seed: int) -> _Found:
    if images is None:
        from conceptlab.datasets import load_scenes

        scenes = load_scenes("train", limit, seed=seed)
        names = np.array(scenes.class_names)
        paths = [f"scene {i}" for i in range(len(scenes))]
        truth = scenes.main_attributes
        return _Found(scenes.images, names[scenes.y], paths, truth, tuple(scenes.attribute_names))
    if not os.path.exists(images):
        raise InputError(
            f"{images} does not exist; give a folder or zip with a subfolder for each class.",
            code="CL-INPUT-FILE",
        )
    from conceptlab.datasets import load_image_folder

    data = load_image_folder(images)
    if data.y is None:
        raise InputError(
            f"{images} has no subfolders, so no labels. Make one subfolder for each class.",
            code="CL-INPUT-LABELS",
        )
    data = data[_spread(len(data), limit)]
    short = [
        str(Path(p).relative_to(images)) if Path(p).is_relative_to(images) else p
        for p in data.paths
    ]
    return _Found(data.files, np.array(data.class_names)[data.y], short)


def _spread(n: int, limit: int) -> np.ndarray:
    """Choose evenly through the images, so that every class is there."""
    return np.unique(np.linspace(0, n - 1, min(limit, n)).round().astype(int))


def _split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise InputError(
            f"--test must be a share between 0 and 1, got {share}.", code="CL-INPUT-RANGE"
        )
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < 4:
        raise InputError(
            f"At least two classes with 4 images each are needed, got "
            f"{dict(zip(classes.tolist(), counts.tolist(), strict=True))!r:.200}.",
            code="CL-INPUT-FEW",
        )
    places = np.arange(len(labels))
    held = max(share, len(classes) / len(labels))
    rows, rest = train_test_split(places, test_size=held, stratify=labels, random_state=seed)
    return np.sort(rows), np.sort(rest)


def _bank(path: Path | None, found: _Found, reader: Any) -> Any:
    from conceptlab.bank import ConceptBank
    from conceptlab.vocabulary import from_vocabulary

    if path is not None:
        return ConceptBank.from_json(path, reader)
    if found.names:
        return ConceptBank.from_texts(reader, found.names)
    made = from_vocabulary(sorted(set(found.labels)), reader)
    texts = [text for label in made.classes for text in made[label]]
    return ConceptBank.from_texts(reader, list(dict.fromkeys(texts)))


def _accuracies(
    model: Any,
    bank: Any,
    reader: Any,
    X: Any,
    labels: np.ndarray,
    rows: np.ndarray,
    held: np.ndarray,
    options: dict[str, Any],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Measure on images held out, beside a dense probe and random concepts at the same NEC."""
    from bottlenecks.controls import CONTROLS, random_bank
    from bottlenecks.sparse import SparseCBM

    def accuracy(model: Any) -> float:
        return float(model.score(X[held], labels[held]))

    dense = SparseCBM(
        bank, sparsity=0.0, head="dense", max_epochs=1, random_state=seed, device=model.device
    )
    controls: dict[str, float] = {}
    for kind in CONTROLS if hasattr(reader, "encode_text") else CONTROLS[:2]:
        random = random_bank(X[rows], len(bank), kind, encoder=reader, random_state=seed)
        fitted = SparseCBM(random, random_state=seed, **options).fit(X[rows], labels[rows])
        controls[kind] = accuracy(fitted)
    found = {
        "bottleneck": accuracy(model),
        "all concepts, dense": accuracy(dense.fit(X[rows], labels[rows])),
        "random concepts": max(controls.values()),
    }
    return {"accuracy": found, "controls": controls}


def _show(console: Console, facts: dict[str, Any]) -> None:
    table = Table(title="What speaks for each class", title_justify="left")
    table.add_column("class")
    table.add_column("concepts and weights")
    for label, weights in list(facts["weights"].items())[:20]:
        told = ", ".join(f"{name} {weight:+.1f}" for name, weight in [*weights.items()][:_TOLD])
        more = len(weights) - _TOLD
        table.add_row(label, f"{told}, and {more} more" if more > 0 else told)
    console.print(table)
    sparse = f"{facts['nec']:.3g} of {facts['concepts']} concepts a class"
    console.print(f"{sparse}; {facts['sparsity']:.0%} of all activations are zero.")
    for name, accuracy in facts["accuracy"].items():
        console.print(f"Accuracy, {name}: {accuracy:.1%}")
    kinds = ", ".join(f"{kind} {share:.1%}" for kind, share in facts["controls"].items())
    console.print(f"Random concepts are the best of: {kinds}.")
    for note in facts["notes"]:
        console.print(note)
