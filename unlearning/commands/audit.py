"""``conceptlab audit``: is a class forgotten, or only kept quiet?"""

from __future__ import annotations

__all__ = ["audit"]

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unlearning.commands.options import (
    IMAGES,
    AsJson,
    Device,
    ForgottenClass,
    Model,
    NImages,
    NTest,
    Retrained,
    Seed,
    Size,
    Steps,
    TestImages,
    check_references,
)


def audit(
    after: Annotated[
        Path,
        typer.Argument(
            help="Weights of the unlearned model, or the folder that 'conceptlab unlearn' wrote."
        ),
    ],
    images: Annotated[Path | None, typer.Option(help=IMAGES)] = None,
    target: ForgottenClass = "ilko",
    model: Model = "embedded",
    before: Annotated[
        Path | None, typer.Option(help="Weights of the original; those of --model if left out.")
    ] = None,
    retrained: Retrained = None,
    test_images: TestImages = None,
    n_images: NImages = 600,
    n_test: NTest = 400,
    size: Size = None,
    relearn: Annotated[
        bool, typer.Option(help="Teach the class again and count the steps; takes a while.")
    ] = True,
    steps: Steps = 60,
    device: Device = "auto",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The HTML report: a file, or a folder for it.")] = Path(
        "conceptlab-report/audit.html"
    ),
    as_json: AsJson = False,
) -> None:
    """Tell a forgotten class from a suppressed one, beside models that never saw it."""
    from conceptlab.io.places import report_file
    from unlearning.audit import audit as audit_model
    from unlearning.commands.material import (
        load_material,
        load_references,
        show_report,
        with_weights,
    )
    from unlearning.result import UnlearnResult

    console = Console(stderr=as_json)
    start = time.perf_counter()
    check_references(retrained)
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
    references, words = load_references(found, model if before is None else "", retrained)
    name = found.class_names[found.forgotten]
    console.print(
        f"Audit {name}: {len(found.forget)} images of it, {len(found.retain)} of other classes, "
        f"{len(found.test)} to test ({found.source}), {words}",
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
