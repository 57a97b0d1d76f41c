"""``conceptlab explain``: from images to a report on what the model sees."""

from __future__ import annotations

__all__ = ["explain"]

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

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
    names: Annotated[
        str | None,
        typer.Option(help="Words that concepts may be named by: 'red,striped', or a file."),
    ] = None,
    name_with: Annotated[
        str,
        typer.Option(
            help="Image-text encoder that names concepts: open_clip:ARCHITECTURE/WEIGHTS, "
            "hf:NAME, embedded, none, or auto (embedded for rendered scenes only)."
        ),
    ] = "auto",
    depth: Annotated[int, typer.Option(help="Levels of recursion.")] = 1,
    maps: Annotated[
        str, typer.Option(help="implicit, upsample, occlusion, rise or none.")
    ] = "implicit",
    only_class: Annotated[
        str | None, typer.Option(help="Take the images of this class folder only.")
    ] = None,
    max_images: Annotated[int, typer.Option(help="Use at most so many images.")] = 256,
    size: Annotated[int | None, typer.Option(help="Side to which images are scaled.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/explain.html"
    ),
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="What is written beside the report, with commas: svg (every figure), csv "
            "(concepts in each image), data (to load again in Python).",
        ),
    ] = "html",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find a model's concepts, rank them, show where they are, and check them."""
    from attribution.commands.explain_answer import accuracy, more_formats, show, write_formats
    from attribution.commands.explain_input import command_line, in_channels, load_images
    from attribution.explain import explain as explain_model
    from attribution.explain import recommended_layer
    from attribution.naming import words_of
    from conceptlab.extractors import NMFConcepts, SemiNMF
    from conceptlab.io.files import atomic_write
    from conceptlab.io.places import report_file
    from conceptlab.maps.concept import check_method
    from conceptlab.models import SplitModel
    from conceptlab.models.images import channels_of
    from conceptlab.models.load import load_model

    console = Console(stderr=as_json)
    start = time.perf_counter()
    known = {"nmf": NMFConcepts, "semi-nmf": SemiNMF}
    if extractor not in (*known, "auto"):
        raise unknown_name("extractor", extractor, [*known, "auto"])
    if maps != "none":
        check_method(maps)
    if names is not None:
        words_of(names)
    if max_images < 1:
        raise InputError(
            f"--max-images must be at least 1, got {max_images}.", code="CL-INPUT-RANGE"
        )
    kinds = more_formats(formats)
    out = report_file(out, "explain.html")
    loaded = load_model(model)
    given = load_images(images, size or loaded.size, max_images, seed, only_class)
    if loaded.preprocess is None:
        given = in_channels(given, channels_of(loaded.model))
    console.print(f"{given.told()}; model {model}", markup=False)
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
        chosen = recommended_layer(loaded.model, given.batch[:2], loaded.preprocess, scores)
    split = SplitModel(
        loaded.model,
        chosen,
        preprocess=loaded.preprocess,
        output=scores,
        class_names=loaded.class_names,
        device=device,
    )
    if extractor == "auto":
        extractor = "semi-nmf" if _signed(split, given.batch) else "nmf"
        if extractor == "semi-nmf":
            console.print(f"{chosen} has activations below zero: semi-nmf.", markup=False)
    explanation = explain_model(
        split,
        given.batch,
        target=_target(target, loaded.class_names),
        n_concepts=_count(concepts),
        patch_size=patch_size,
        patches=patches,
        remainder=remainder,
        extractor=known[extractor](),
        depth=depth,
        names=names,
        name_with=None if name_with == "none" else name_with,
        image_names=given.files,
        labels=given.folders or None,
        maps=None if maps == "none" else maps,
        random_state=seed,
    )
    explanation.settings |= {"images": given.told(), "command": command_line()}
    name = type(loaded.model).__name__ if model == "embedded" else model
    name = os.path.basename(name) if ".py:" in name else name
    report = atomic_write(out, explanation.to_html(f"What {name} sees")).resolve()
    written = write_formats(explanation, report, kinds)
    seconds = time.perf_counter() - start
    found = accuracy(given.folders, explanation)
    if as_json:
        facts = {
            **explanation.to_dict(),
            "report": str(report),
            "files": written,
            "seconds": round(seconds, 1),
        }
        facts |= {"accuracy": found} if found else {}
        typer.echo(json.dumps(facts, indent=2, default=str))
        return
    show(console, explanation, found)
    line = f"Report: {report}  ({seconds:.0f} s)"
    for text in (line, *(f"Written: {path}" for path in written)):
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    console.print(
        "Next: open the report; --only-class or --target for one class; --format svg,csv,data.",
        highlight=False,
    )


def _signed(split: Any, batch: Any) -> bool:
    """Whether the layer has activations below zero in some of the images."""
    import torch

    with torch.no_grad():
        return bool((split.g(batch[:: max(len(batch) // 16, 1)][:16]) < 0).any())


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
