"""``conceptlab explain``: from images to a report on what the model sees."""

from __future__ import annotations

__all__ = ["explain"]

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from conceptlab.errors import InputError, unknown_name


def explain(
    images: Annotated[
        Path | None,
        typer.Argument(help="A folder, zip or file of images; rendered scenes when left out."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="embedded, torchvision:NAME or timm:NAME (with @WEIGHTS or @random), hf:FOLDER, "
            "or FILE.py:FUNCTION."
        ),
    ] = "embedded",
    layer: Annotated[str | None, typer.Option(help="Where to cut; found when left out.")] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Where the scores are in what the model returns: a key or a number."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="A class by name or number, or 'predicted'.")
    ] = "predicted",
    concepts: Annotated[str, typer.Option(help="How many concepts, or 'auto'.")] = "10",
    patch_size: Annotated[int | None, typer.Option(help="Side of the crops in pixels.")] = None,
    patches: Annotated[
        str, typer.Option(help="What is factorised: none (every position), grid or random crops.")
    ] = "none",
    remainder: Annotated[
        str, typer.Option(help="What the concepts do not code: drop, hold or player.")
    ] = "drop",
    extractor: Annotated[
        str, typer.Option(help="auto (by the signs of the layer), nmf or semi-nmf.")
    ] = "auto",
    depth: Annotated[int, typer.Option(help="Levels of recursion.")] = 1,
    maps: Annotated[
        str, typer.Option(help="implicit, upsample, occlusion, rise or none.")
    ] = "implicit",
    max_images: Annotated[int, typer.Option(help="Use at most so many images.")] = 256,
    size: Annotated[int | None, typer.Option(help="Side to which images are scaled.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/explain.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find a model's concepts, rank them, show where they are, and check them."""
    from attribution.explain import explain as explain_model
    from attribution.explain import recommended_layer
    from conceptlab.extractors import NMFConcepts, SemiNMF
    from conceptlab.io.places import report_file
    from conceptlab.maps.concept import check_method
    from conceptlab.models import SplitModel
    from conceptlab.models.load import load_model

    console = Console(stderr=as_json)
    start = time.perf_counter()
    known = {"nmf": NMFConcepts, "semi-nmf": SemiNMF}
    if extractor not in (*known, "auto"):
        raise unknown_name("extractor", extractor, [*known, "auto"])
    if maps != "none":
        check_method(maps)
    if max_images < 1:
        raise InputError(
            f"--max-images must be at least 1, got {max_images}.", code="CL-INPUT-RANGE"
        )
    out = report_file(out, "explain.html")
    loaded = load_model(model)
    batch, source, folders = _load(images, size or loaded.size, max_images, seed)
    console.print(
        f"{len(batch)} images from {source}, {batch.shape[-1]} px; model {model}", markup=False
    )
    if images is not None and model == "embedded":
        console.print(
            "The embedded classifier knows rendered scenes only; give yours with --model.",
            style="yellow",
        )
    scores = loaded.output
    if output is not None:
        scores = int(output) if output.isdigit() else output
    chosen = layer or loaded.layer
    if chosen is None:
        chosen = recommended_layer(loaded.model, batch[:2], loaded.preprocess, scores)
    split = SplitModel(
        loaded.model,
        chosen,
        preprocess=loaded.preprocess,
        output=scores,
        class_names=loaded.class_names,
        device=device,
    )
    if extractor == "auto":
        extractor = "semi-nmf" if _signed(split, batch) else "nmf"
        if extractor == "semi-nmf":
            console.print(f"{chosen} has activations below zero: semi-nmf.", markup=False)
    explanation = explain_model(
        split,
        batch,
        target=_target(target, loaded.class_names),
        n_concepts=_count(concepts),
        patch_size=patch_size,
        patches=patches,
        remainder=remainder,
        extractor=known[extractor](),
        depth=depth,
        maps=None if maps == "none" else maps,
        random_state=seed,
    )
    name = type(loaded.model).__name__ if model == "embedded" else model
    report = explanation.save(out, title=f"What {name} sees").resolve()
    seconds = time.perf_counter() - start
    accuracy = _accuracy(folders, explanation)
    if as_json:
        facts = {**explanation.to_dict(), "report": str(report), "seconds": round(seconds, 1)}
        facts |= {"accuracy": accuracy} if accuracy else {}
        typer.echo(json.dumps(facts, indent=2, default=str))
        return
    if accuracy:
        console.print(
            "Accuracy against the names of folders: {accuracy:.0%} ({low:.0%} to {high:.0%}) of "
            "{n_images} images (always the commonest: {commonest:.0%}).".format(**accuracy),
            highlight=False,
            markup=False,
        )
    _show(console, explanation, chosen)
    line = f"Report: {report}  ({seconds:.0f} s)"
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _load(
    images: Path | None, size: int | None, limit: int, seed: int
) -> tuple[Any, str, list[str]]:
    """Give images, in words where they are from, and the name of the folder each lies in."""
    if images is None:
        from conceptlab.datasets import load_scenes

        return load_scenes("test", limit, seed=seed).images, "the rendered world", []
    if not os.path.exists(images):
        raise InputError(
            f"{images} does not exist; give a folder, zip or file.", code="CL-INPUT-FILE"
        )
    from conceptlab.datasets import load_image_folder
    from conceptlab.datasets.images import as_image_batch, image_source

    several = os.path.isdir(images) or images.suffix.lower() == ".zip"
    data = load_image_folder(images, classes=False) if several else None
    source = image_source(images if data is None else data)
    # Evenly through the folder, so that every class is there.
    places = np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(int))
    parts = [as_image_batch(source.read(int(i), int(i) + 1), size=size) for i in places]
    import torch

    found = sorted({tuple(part.shape[-2:]) for part in parts})
    if len(found) > 1:
        raise InputError(
            f"The images have {len(found)} sizes, such as {found[0]} and {found[1]} (height, "
            "width), and the model does not say its own. Give it: --size 224.",
            code="CL-INPUT-SHAPE",
        )
    folders = (
        [] if data is None else [Path(data.paths[i].rpartition("!")[2]).parent.name for i in places]
    )
    return torch.cat(parts), str(images), folders


def _signed(split: Any, batch: Any) -> bool:
    """Whether the layer has activations below zero in some of the images."""
    import torch

    with torch.no_grad():
        return bool((split.g(batch[:: max(len(batch) // 16, 1)][:16]) < 0).any())


def _accuracy(folders: list[str], explanation: Any) -> dict[str, float] | None:
    """Compare answers with folders that have the name of a class; None where there are none."""
    from conceptlab.importance.intervals import wilson

    names = [_plain(name) for name in explanation.class_names or ()]
    answers = explanation.logits.argmax(axis=1)
    told = [(_plain(f), a) for f, a in zip(folders, answers, strict=False) if _plain(f) in names]
    if not told or explanation.logits.shape[1] < 2:
        return None
    right, n = sum(names[a] == name for name, a in told), len(told)
    low, high = wilson(right / n, n)
    commonest = Counter(name for name, _ in told).most_common(1)[0][1]
    return {
        "accuracy": right / n,
        "low": low,
        "high": high,
        "commonest": commonest / n,
        "n_images": n,
    }


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")


def _target(target: str, names: list[str] | None) -> int | str:
    if target == "predicted":
        return target
    if names is not None and target in names:
        return names.index(target)
    if target.lstrip("-").isdigit():
        return int(target)
    raise unknown_name("class", target, names or ["predicted", "0", "1"], code="CL-INPUT-TARGET")


def _count(concepts: str) -> Any:
    if concepts == "auto":
        return "auto"
    if not concepts.isdigit() or int(concepts) < 1:
        raise InputError(
            f"--concepts must be a positive number or 'auto', got {concepts!r}.",
            code="CL-INPUT-RANGE",
        )
    return int(concepts)


def _show(console: Console, explanation: Any, layer: str) -> None:
    for line in (explanation.warning(), explanation.decision.figures()):
        if line:
            console.print(line, highlight=False, markup=False)
    table = Table(title=f"Concepts of {layer}", title_justify="left")
    table.add_column("concept")
    for column in ("importance", "interval", "signed", "prevalence", "stability"):
        table.add_column(column, justify="right")
    for row in explanation.to_frame().head(10).to_dict(orient="records"):
        table.add_row(
            row["concept"],
            f"{row['importance']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['signed']:+.3f}",
            f"{row['prevalence']:.0%}",
            f"{row['stability']:.2f}" if "stability" in row else "",
        )
    console.print(table)
    split = [root for root in explanation.tree.roots if root.children] if explanation.tree else []
    for root in split:
        parts = ", ".join(child.name for child in root.children)
        console.print(f"{root.name} mixes two things (p = {root.test.p_value:.1g}): {parts}")
    if explanation.tree and explanation.tree.unsplit():
        console.print(explanation.tree.unsplit(), highlight=False, markup=False)
