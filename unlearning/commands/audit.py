"""``conceptlab audit``: is a class forgotten, or only kept quiet?"""

from __future__ import annotations

__all__ = ["audit"]

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from conceptlab.errors import InputError


def audit(
    after: Annotated[
        Path,
        typer.Argument(
            help="Weights of the unlearned model, or the folder that 'conceptlab unlearn' wrote."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Training images: a folder or zip, a subfolder a class; rendered scenes if left "
            "out."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--class", help="The forgotten class, by name or number.")
    ] = "ilko",
    model: Annotated[
        str,
        typer.Option(
            help="The architecture with the original's weights: embedded, "
            "torchvision:NAME@WEIGHTS, or FILE.py:FUNCTION."
        ),
    ] = "embedded",
    before: Annotated[
        Path | None, typer.Option(help="Weights of the original; those of --model if left out.")
    ] = None,
    retrained: Annotated[
        list[Path] | None,
        typer.Option(
            help="Weights of a model that never saw the class; given twice, the difference of "
            "the two is the noise floor."
        ),
    ] = None,
    test_images: Annotated[
        Path | None,
        typer.Option(help="Images that the model never saw; a third of the images if left out."),
    ] = None,
    n_images: Annotated[int, typer.Option("--n-images", help="Use at most so many images.")] = 600,
    n_test: Annotated[int, typer.Option("--n-test", help="And so many to test.")] = 400,
    size: Annotated[int | None, typer.Option(help="Side to which images are scaled.")] = None,
    relearn: Annotated[
        bool, typer.Option(help="Teach the class again and count the steps; takes a while.")
    ] = True,
    steps: Annotated[int, typer.Option(help="At most so many steps of relearning.")] = 60,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/audit.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell a forgotten class from a suppressed one, beside models that never saw it."""
    from conceptlab.io.places import report_file
    from unlearning.audit import audit as audit_model
    from unlearning.commands.material import load_material, show_report, with_weights
    from unlearning.result import UnlearnResult

    console = Console(stderr=as_json)
    start = time.perf_counter()
    if retrained is not None and len(retrained) > 2:
        raise InputError(
            f"--retrained may be given once or twice, got {len(retrained)}.",
            code="CL-INPUT-OPTION",
        )
    out = report_file(out, "audit.html")
    found = load_material(
        images,
        model,
        target,
        test_images=test_images,
        n_images=n_images,
        n_test=n_test,
        size=size,
        device=device,
        seed=seed,
    )
    original = found.model if before is None else with_weights(found.model, before)[0]
    unlearned, certificate = with_weights(found.model, after)
    references = [with_weights(found.model, path)[0] for path in retrained or []]
    name = found.class_names[found.forgotten]
    console.print(
        f"Audit {name}: {len(found.forget)} images of it, {len(found.retain)} of other classes, "
        f"{len(found.test)} to test ({found.source})",
        highlight=False,
        markup=False,
    )
    subject = unlearned if certificate is None else UnlearnResult(unlearned, [], certificate)
    report = audit_model(
        original,
        subject,
        forget=found.forget,
        retain=found.retain,
        test=found.test,
        retrained=references or None,
        class_names=found.class_names,
        relearn=relearn,
        max_steps=steps,
        random_state=seed,
        **found.concepts,
    )
    path = report.to_html(out, title=f"Is {name} forgotten?").resolve()
    seconds = time.perf_counter() - start
    if as_json:
        facts = report.to_dict() | {"report": str(path), "seconds": round(seconds, 1)}
        typer.echo(json.dumps(facts, indent=2))
        return
    show_report(console, report)
    line = f"Report: {path}  ({seconds:.0f} s)"
    console.print(line, soft_wrap=True, highlight=False, markup=False)
