"""``conceptlab zeroshot``: images and concepts in, classes with their evidence out."""

from __future__ import annotations

__all__ = ["zeroshot"]

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from conceptlab.errors import InputError
from conceptlab.io.reading import read_plain_file


def zeroshot(
    images: Annotated[
        Path | None,
        typer.Argument(help="A folder, zip or file of images; rendered scenes when left out."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names with commas between, or a file with one a line.")
    ] = None,
    concepts: Annotated[
        Path | None, typer.Option(help="A JSON file of texts by class; made when left out.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="embedded, open_clip:ARCHITECTURE/WEIGHTS, hf:NAME or a folder.")
    ] = "embedded",
    rule: Annotated[
        str, typer.Option(help="trim, sym, gated, lse, mean, max, median, ...")
    ] = "trim",
    prompt: Annotated[
        str | None,
        typer.Option(help="cgbc, dclip, cupl, ..., or a sentence with {class} and {concept}."),
    ] = None,
    top: Annotated[int, typer.Option(help="Concepts to show for each class.")] = 5,
    max_images: Annotated[int, typer.Option(help="Use at most so many images.")] = 64,
    shown: Annotated[int, typer.Option(help="Images with their evidence in the report.")] = 12,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of scenes and their concepts.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/zeroshot.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Classify images by the concepts of every class, and say why."""
    from conceptlab.commands.zeroshot_page import zeroshot_page
    from conceptlab.encoders.registry import EMBEDDED_NOTE, load_encoder
    from conceptlab.io.files import atomic_write
    from conceptlab.io.places import report_file
    from conceptlab.zeroshot import BayesianZeroShot

    console = Console(stderr=as_json)
    start = time.perf_counter()
    out = report_file(out, "zeroshot.html")
    names = names_of(classes)
    pictures, labels, paths, known = _pictures(images, max_images, seed)
    reader = load_encoder(encoder, device=device)
    found = _concepts(concepts, names, images is None, known, reader, seed)
    model = BayesianZeroShot(found, reader, rule=rule, prompt=prompt, device=device).fit()
    console.print(f"{len(paths)} images, {len(model.classes_)} classes, encoder {reader.name}")
    vectors = reader.encode_image(pictures)
    proba = model.predict_proba(vectors)
    explanation = model.explain(vectors)
    truth = None if labels is None else [known[k] for k in labels]
    accuracy, counted = _accuracy(explanation.predicted, truth, list(model.class_names_))
    notes = [] if accuracy is None else [_told(accuracy, counted, len(paths))]
    if images is not None and encoder == "embedded":
        notes.append(EMBEDDED_NOTE)
    page = zeroshot_page(
        explanation,
        proba.max(axis=1),
        paths,
        pictures,
        truth=truth,
        notes=notes,
        shown=shown,
        top=top,
    )
    report = atomic_write(out, page).resolve()
    facts = explanation.to_dict(top=top)
    for i, entry in enumerate(facts["images"]):
        entry["path"], entry["probability"] = paths[i], float(proba[i].max())
        if truth is not None:
            entry["label"] = truth[i]
    facts.update(accuracy=accuracy, images_with_label=counted, notes=notes)
    if as_json:
        facts.update(report=str(report), seconds=round(time.perf_counter() - start, 1))
        typer.echo(json.dumps(facts, indent=2))
        return
    _show(console, facts)
    for note in notes:
        console.print(note)
    seconds = time.perf_counter() - start
    console.print(f"Report: {report}  ({seconds:.0f} s)", soft_wrap=True, highlight=False)


def names_of(classes: str | None) -> list[str] | None:
    if classes is None:
        return None
    path = Path(classes)
    lines = classes.split(",")
    if os.path.isfile(path):
        try:
            lines = read_plain_file(path).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is not readable as text in UTF-8: {error}.", code="CL-INPUT-FILE"
            ) from error
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"--classes must hold at least two different names, got {names!r:.80}. Write "
            "'cat,dog', or a file with one name a line.",
            code="CL-INPUT-LABELS",
        )
    return names


def _pictures(
    images: Path | None, limit: int, seed: int
) -> tuple[Any, np.ndarray | None, list[str], list[str]]:
    """Give images, labels, what to call the images, and the names of the labels."""
    if images is None:
        from conceptlab.datasets import load_scenes

        scenes = load_scenes("test", limit, seed=seed, n_objects=1)
        paths = [f"scene {i}" for i in range(len(scenes))]
        return scenes.images, scenes.y, paths, list(scenes.class_names)
    if not os.path.exists(images):
        raise InputError(
            f"{images} does not exist; give a folder, zip or file.", code="CL-INPUT-FILE"
        )
    if os.path.isfile(images) and images.suffix.lower() != ".zip":
        return [images], None, [images.name], []
    from conceptlab.datasets import load_image_folder

    data = load_image_folder(images)
    places = np.unique(np.linspace(0, len(data) - 1, min(limit, len(data))).round().astype(int))
    data = data[places]
    return data.files, data.y, [_short(path, images) for path in data.paths], list(data.class_names)


def _short(path: str, folder: Path) -> str:
    """Name an image by its place in the folder."""
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else str(path)


def _concepts(
    path: Path | None,
    names: list[str] | None,
    scenes: bool,
    known: list[str],
    reader: Any,
    seed: int,
) -> Any:
    from conceptlab.vocabulary import from_vocabulary, read_concepts

    if path is not None:
        return read_concepts(path, classes=names)
    if scenes:
        from conceptlab.zeroshot.scenes import scene_concepts

        made = scene_concepts(random_state=seed)
        return made if names is None else made.select_classes(names)
    labels = names or list(known)
    if len(labels) < 2:
        raise InputError(
            "Neither --concepts nor --classes says what the classes are, and the folder has no "
            "subfolders that do. Give one of them.",
            code="CL-INPUT-LABELS",
        )
    return from_vocabulary(labels, reader)


def _accuracy(
    predicted: list[str], truth: list[str] | None, names: list[str]
) -> tuple[float | None, int]:
    """Compare where folders are named as classes, up to case and underscores; count those."""
    folded = {_fold(name) for name in names}
    pairs = [
        (p, t) for p, t in zip(predicted, truth or predicted, strict=True) if _fold(t) in folded
    ]
    if truth is None or not pairs:
        return None, 0
    return float(np.mean([_fold(p) == _fold(t) for p, t in pairs])), len(pairs)


def _told(accuracy: float, counted: int, n: int) -> str:
    rest = "" if counted == n else f" ({counted} of {n} images; the others' labels are no classes)"
    return f"Accuracy: {accuracy:.1%}{rest}."


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _show(console: Console, facts: dict[str, Any]) -> None:
    table = Table(title="Predictions", title_justify="left")
    for column in ("image", "class", "probability", "runner-up", "strongest evidence"):
        table.add_column(column, justify="right" if column == "probability" else "left")
    for entry in facts["images"][:20]:
        winner = entry["winner"]
        best = max(winner["concepts"], key=lambda c: c["evidence"])
        table.add_row(
            entry["path"],
            winner["class"],
            f"{entry['probability']:.2f}",
            entry["runner-up"]["class"],
            f"{best['concept']} ({best['evidence']:+.2f})",
        )
    console.print(table)
    if len(facts["images"]) > 20:
        console.print(f"and {len(facts['images']) - 20} more, in the report and with --json")
