"""``conceptlab removal``: which object remover is better, and by how much."""

from __future__ import annotations

__all__ = ["removal"]

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from conceptlab.errors import InputError


def removal(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder with images/ and masks/CLASS/; with --coco the folder of images; "
            "rendered scenes when left out."
        ),
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(help="Instance annotations in COCO's format (JSON).")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes with commas between; all when left out.")
    ] = None,
    removers: Annotated[
        str | None,
        typer.Option(
            help="With commas between: telea, telea+3 (grow masks by 3 pixels), telea-2, "
            "navier_stokes, biharmonic, patchmatch, blur, torchscript:FILE, ..."
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="What distances look through: an encoder (embedded, "
            "open_clip:ARCHITECTURE/WEIGHTS, hf:NAME, ...), a classifier (timm:NAME, "
            "torchvision:NAME, also with @WEIGHTS), or FILE.py:FUNCTION that returns a module."
        ),
    ] = "embedded",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="An image-text encoder for presence and concept FID; --features if it is one."
        ),
    ] = None,
    match: Annotated[
        bool, typer.Option(help="Choose comparison images by what lies outside the masks.")
    ] = False,
    images: Annotated[int, typer.Option(help="Use at most so many images with each class.")] = 300,
    n_min: Annotated[int, typer.Option(help="Pass over classes with fewer images.")] = 50,
    size: Annotated[int, typer.Option(help="Side that images are brought to.")] = 256,
    dilation: Annotated[int, typer.Option(help="Pixels that all masks grow by first.")] = 0,
    bootstrap: Annotated[int, typer.Option(help="Bootstrap samples; 0 for none.")] = 200,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Also U-IDS in-sample and cross-fitted, and P-IDS; slower."
        ),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder where finished removals are kept.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/removal.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Judge object removers by images that never held the object."""
    from conceptlab.encoders.registry import EMBEDDED_NOTE
    from conceptlab.io.places import report_file
    from unlearning.removal.features import load_features
    from unlearning.removal.masks import MaskPolicy
    from unlearning.removal.protocol import RemovalBenchmark
    from unlearning.removal.removers.registry import available_removers, make_remover

    console = Console(stderr=as_json)
    start = time.perf_counter()
    out = report_file(out, "removal.html")
    names = _listed(classes)
    data = _data(folder, coco, names, images, size, seed)
    if removers is None:
        setups, missing = available_removers()
        for name, reason in missing.items():
            console.print(f"Left out: {name}. {reason}", highlight=False)
    else:
        setups = [make_remover(spec) for spec in _listed(removers) or []]
    if folder is not None and "embedded" in (features, encoder):
        console.print(EMBEDDED_NOTE, style="yellow", highlight=False)
    source = load_features(features)
    maps = source.maps if getattr(source, "has_maps", False) else None
    benchmark = RemovalBenchmark(
        source,
        names,
        encoder=encoder,
        feature_map="encoder" if hasattr(source, "encode_maps") else maps,
        policy=MaskPolicy(dilation=dilation),
        match=match,
        n_min=min(n_min, images),
        n_max=images,
        n_bootstrap=bootstrap,
        published=published,
        cache=cache,
        random_state=seed,
    )
    report = benchmark.run(data, setups)
    path = report.to_html(out).resolve()
    if as_json:
        facts = report.to_dict()
        facts.update(report=str(path), seconds=round(time.perf_counter() - start, 1))
        typer.echo(json.dumps(facts, indent=2))
        return
    _show(console, report)
    seconds = time.perf_counter() - start
    console.print(f"Report: {path}  ({seconds:.0f} s)", soft_wrap=True, highlight=False)


def _listed(text: str | None) -> list[str] | None:
    if text is None:
        return None
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise InputError("Expected names with commas between.", code="CL-INPUT-EMPTY")
    return found


def _data(
    folder: Path | None,
    coco: Path | None,
    names: list[str] | None,
    images: int,
    size: int,
    seed: int,
) -> Any:
    from unlearning.removal.datasets import CocoRemovals, MaskFolder, SceneRemovals

    if coco is not None:
        if folder is None:
            raise InputError("--coco needs the folder of images as argument.", code="CL-INPUT-FILE")
        return CocoRemovals(coco, folder, size=size, classes=names)
    if folder is not None:
        return MaskFolder(folder, size=size)
    options: dict[str, Any] = {} if names is None else {"classes": names}
    return SceneRemovals(n=images, random_state=seed, **options)


def _show(console: Console, report: Any) -> None:
    table = Table(title="Removers, best FID* first; equal ranks are ties", title_justify="left")
    scores = [
        s
        for s in ("fid", "fid_debiased", "kid", "u_ids", "presence", "psnr_mask")
        if s in report.scores()
    ]
    from unlearning.removal.scores import SCORES

    table.add_column("rank", justify="right")
    table.add_column("remover", overflow="fold")  # a name that is cut says nothing
    for score in scores:
        table.add_column(SCORES[score].title, justify="right")
    columns = {s: dict(zip(report.removers, report.values(s), strict=True)) for s in scores}
    for _, row in report.ranking("fid").iterrows():
        cells = [f"{columns[s][row.remover]:.3g}" for s in scores]
        table.add_row(str(row["rank"]), row.remover, *cells)
    console.print(table)
    for note in report.notes():
        console.print(note, highlight=False, markup=False)
