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
from conceptlab.io.files import atomic_write


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
    out: Annotated[Path, typer.Option(help="The HTML report.")] = Path(
        "conceptlab-report/unlearn-gan.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Make a generator forget what a text names."""
    from conceptlab.encoders import load_encoder
    from unlearning.gan.assessment import assess
    from unlearning.gan.text_to_unlearn import TextToUnlearn

    console = Console(stderr=as_json)
    targets = [part.strip() for part in target.split(",") if part.strip()]
    made, judge, retain = _generator(generator, latent, output_range)
    guide = load_encoder(encoder)
    options: dict[str, Any] = {"retain": retain, "random_state": seed, "max_seconds": max_seconds}
    if steps is not None:
        options["steps"] = steps
    method = TextToUnlearn.paper if paper else TextToUnlearn
    unlearner = method(guide, targets, anchor=anchor, **options)
    result = unlearner.unlearn(made, checkpoint=checkpoint)
    report = assess(
        made, result, targets, guide, judge, retain=retain, anchor=anchor, n=latents,
        random_state=seed + 1,
    )  # fmt: skip
    report.facts["seconds"] = round(result.seconds, 1)
    report.facts["stopped"] = result.stopped
    report.facts.update({k: result.details[k] for k in ("anchors", "separations", "layers")})
    path = report.to_html(out).resolve()
    if save is not None:
        from safetensors.torch import save as save_tensors

        tensors = {k: v.contiguous() for k, v in result.module.state_dict().items()}
        atomic_write(save, save_tensors(tensors))
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "report": str(path)}, indent=2, default=str))
        return
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


def _generator(name: str, latent: int | None, output_range: str | None) -> tuple[Any, Any, Any]:
    """Load a generator, with the judge and the retained attributes where they are known."""
    from unlearning.gan.generators import Generator

    if name == "embedded":
        from conceptlab.assets import load_embedded_gan, load_embedded_judge
        from conceptlab.assets.gan_world import GAN_FAMILIES

        return Generator(load_embedded_gan()), load_embedded_judge(), GAN_FAMILIES
    if name.startswith("torchscript:"):
        from conceptlab.models.load import load_torchscript

        module: Any = load_torchscript(name.removeprefix("torchscript:"))[0]
    else:
        place, _, function = name.partition(":")
        if not function:
            raise InputError(
                f"generator must be 'embedded', 'torchscript:FILE' or 'PACKAGE.MODULE:FUNCTION', "
                f"got {name!r}.",
                code="CL-INPUT-OPTION",
            )
        try:
            module = getattr(importlib.import_module(place), function)()
        except (ImportError, AttributeError) as error:
            raise InputError(f"Cannot call {name}: {error}.", code="CL-INPUT-OPTION") from error
    return Generator(module, latent=latent, output_range=_pair(output_range)), None, None


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
