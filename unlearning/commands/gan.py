"""``conceptlab unlearn-gan``: a generator forgets what a text names, and a report says how well."""

from __future__ import annotations

__all__ = ["unlearn_gan"]

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from conceptlab.errors import InputError


def unlearn_gan(
    target: Annotated[
        str, typer.Option(help="What to forget; several with commas between, at once.")
    ] = "red",
    anchor: Annotated[
        str | None, typer.Option(help="What to tell it from; found when left out.")
    ] = None,
    generator: Annotated[
        str,
        typer.Option(
            help="embedded; torchscript:FILE; or PACKAGE.MODULE:FUNCTION that returns a module."
        ),
    ] = "embedded",
    latent: Annotated[
        int | None, typer.Option(help="Length of a normal latent, where the module has no z_dim.")
    ] = None,
    output_range: Annotated[
        str | None, typer.Option(help="Range of the pixels, such as -1,1.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes of a conditional generator without a c_dim.")
    ] = None,
    truncation: Annotated[
        float, typer.Option(help="Draw styles towards their mean by this factor.")
    ] = 1.0,
    retain: Annotated[
        Path | None,
        typer.Option(help='JSON of what to keep by family, {"colour": ["red", "blue"], ...}.'),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="PACKAGE.MODULE:FUNCTION that returns an independent judge.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="The guide: embedded, open_clip:ARCHITECTURE/WEIGHTS, hf:NAME, ...")
    ] = "embedded",
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's method alone: no gate, no surrogate.")
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop training after so long.")] = None,
    latents: Annotated[int, typer.Option(help="Latents to assess on.")] = 1000,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder from which an interrupted run goes on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    save: Annotated[
        Path | None, typer.Option(help="Write the new weights here (safetensors).")
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/unlearn-gan.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Make a generator forget what a text names; exit status 1 where that is not reached."""
    from conceptlab.encoders import load_encoder
    from conceptlab.io.places import check_writable, report_file
    from unlearning.gan.assessment import assess
    from unlearning.gan.text_to_unlearn import TextToUnlearn

    console = Console(stderr=as_json)
    out = report_file(out, "unlearn-gan.html")
    if save is not None:
        check_writable(save.parent, "--save")
    targets = [part.strip() for part in target.split(",") if part.strip()]
    declared: dict[str, Any] = {
        "latent": latent,
        "output_range": _pair(output_range),
        "n_classes": classes,
        "truncation": truncation,
    }
    made, known_judge, known = _generator(generator, declared)
    opinion = _call(judge, "judge") if judge else known_judge
    families = _families(retain) if retain else known
    guide = load_encoder(encoder)
    options: dict[str, Any] = {"retain": families, "random_state": seed, "max_seconds": max_seconds}
    if steps is not None:
        options["steps"] = steps
    method = TextToUnlearn.paper if paper else TextToUnlearn
    unlearner = method(guide, targets, anchor=anchor, **options)
    result = unlearner.unlearn(made, checkpoint=checkpoint)
    report = assess(
        made,
        result,
        targets,
        guide,
        opinion,
        retain=families,
        anchor=anchor,
        n=latents,
        random_state=seed + 1,
    )
    report.facts["seconds"] = round(result.seconds, 1)
    report.facts["stopped"] = result.stopped
    report.facts.update({k: result.details[k] for k in ("anchors", "separations", "layers")})
    path, falls = report.to_html(out).resolve(), report.facts["missed"]
    if save is not None:
        from safetensors.torch import save as save_tensors

        from conceptlab.io.files import atomic_write

        tensors = {k: v.contiguous() for k, v in result.module.state_dict().items()}
        atomic_write(save, save_tensors(tensors))
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "report": str(path)}, indent=2, default=str))
        raise typer.Exit(1 if falls else 0)
    if falls:
        console.print(f"Missed: {', '.join(falls)}.", style="bold red", highlight=False)
    table = Table(title=f"Forgotten: {' and '.join(targets)}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in report.figures.items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
    for note in report.notes:
        console.print(note, highlight=False)
    console.print(
        f"Report: {path}  ({result.seconds:.0f} CPU s, {result.stopped})",
        soft_wrap=True,
        highlight=False,
    )
    if falls:
        raise typer.Exit(1)


def _generator(name: str, declared: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Load a generator, with the judge and the retained attributes where they are known."""
    from unlearning.gan.generators import Generator

    if name == "embedded":
        from conceptlab.assets import load_embedded_gan, load_embedded_judge
        from conceptlab.assets.gan_world import GAN_FAMILIES

        return Generator(load_embedded_gan(), **declared), load_embedded_judge(), GAN_FAMILIES
    if name.startswith("torchscript:"):
        from conceptlab.models.load import load_torchscript

        module: Any = load_torchscript(name.removeprefix("torchscript:"))[0]
    else:
        if ":" not in name:
            raise InputError(
                f"generator must be 'embedded', 'torchscript:FILE' or 'PACKAGE.MODULE:FUNCTION', "
                f"got {name!r}.",
                code="CL-INPUT-OPTION",
            )
        module = _call(name, "generator")
    return Generator(module, **declared), None, None


def _call(name: str, what: str) -> Any:
    """Call a function of the user's by its name, PACKAGE.MODULE:FUNCTION."""
    place, _, function = name.partition(":")
    if not (place and function):
        raise InputError(
            f"{what} must be PACKAGE.MODULE:FUNCTION, got {name!r}.", code="CL-INPUT-OPTION"
        )
    try:
        return getattr(importlib.import_module(place), function)()
    except (ImportError, AttributeError) as error:
        raise InputError(f"Cannot call {name}: {error}.", code="CL-INPUT-OPTION") from error


def _families(path: Path) -> dict[str, list[str]]:
    """Read what to keep: an object of lists of texts."""
    from conceptlab.io.reading import read_plain_file, strict_json

    try:
        found = strict_json(read_plain_file(path, limit=2**20))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {error}.", code="CL-INPUT-FILE") from error
    good = isinstance(found, dict) and all(
        isinstance(values, list) and values and all(isinstance(v, str) for v in values)
        for values in found.values()
    )
    if not good:
        raise InputError(
            f'{path} must hold families of texts, {{"colour": ["red", "blue"], ...}}.',
            code="CL-INPUT-FILE",
        )
    return found


def _pair(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--output-range must be two numbers with a comma between, got {text!r}.",
            code="CL-INPUT-OPTION",
        ) from error
    return low, high
