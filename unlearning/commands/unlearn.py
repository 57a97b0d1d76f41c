"""``conceptlab unlearn``: make a classifier forget a class, with certificate and audit."""

from __future__ import annotations

__all__ = ["unlearn"]

import inspect
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from conceptlab.errors import InputError, unknown_name
from conceptlab.io.places import check_writable
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
from unlearning.registry import METHODS


def unlearn(
    images: Annotated[Path | None, typer.Argument(help=IMAGES)] = None,
    target: ForgottenClass = "ilko",
    model: Model = "embedded",
    method: Annotated[
        str, typer.Option(help="concept-poisoning, logit-mask, random-label, salun, scrub, ...")
    ] = "concept-poisoning",
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data, for methods that train.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, for the same.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Stop unlearning after so many seconds.")
    ] = None,
    test_images: TestImages = None,
    n_images: NImages = 600,
    n_test: NTest = 400,
    size: Size = None,
    retrained: Retrained = None,
    relearn: Annotated[
        bool, typer.Option(help="Audit by teaching the class again; takes a while.")
    ] = False,
    steps: Steps = 60,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder from which a run that was interrupted or killed goes on."),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for weights, certificate and report.")] = Path(
        "conceptlab-report/unlearn"
    ),
    as_json: AsJson = False,
) -> None:
    """Make a classifier forget a class; write weights, a certificate and an audit."""
    from unlearning.commands.material import load_material, load_references, show_report

    console = Console(stderr=as_json)
    start = time.perf_counter()
    unlearner = _unlearner(method, seed, {"epochs": epochs, "lr": lr, "max_seconds": max_seconds})
    check_references(retrained)
    check_writable(out)
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
    references, words = load_references(found, model, retrained)
    name = found.class_names[found.forgotten]
    console.print(
        f"Forget {name}: {len(found.forget)} images; keep {len(found.retain)} of other classes "
        f"({found.source}); {type(unlearner).__name__}",
        highlight=False,
        markup=False,
    )
    result = unlearner.unlearn(
        found.model, forget=found.forget, retain=found.retain, checkpoint=checkpoint
    )
    files = _write(out, result)  # before the audit, which may fail or be broken off
    console.print(
        f"{result.certificate['steps']} steps, {result.certificate['cpu_seconds']:.1f} CPU "
        f"seconds, {result.stopped}. Audit, {words} ...",
        highlight=False,
        markup=False,
    )
    from unlearning.audit import audit

    report = audit(
        found.model,
        result,
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
    path = report.to_html(out / "report.html", title=f"Is {name} forgotten?")
    report.to_json(out / "report.json")
    files["report"] = str(path.resolve())
    seconds = time.perf_counter() - start
    if as_json:
        facts = report.to_dict() | {"files": files, "seconds": round(seconds, 1)}
        typer.echo(json.dumps(facts, indent=2))
        return
    show_report(console, report)
    console.print(
        f"Weights, certificate, report: {out.resolve()}  ({seconds:.0f} s)",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _unlearner(method: str, seed: int, options: dict[str, Any]) -> Any:
    import unlearning

    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    cls = getattr(unlearning, METHODS[method])
    known = inspect.signature(cls.__init__).parameters
    given = {key: value for key, value in options.items() if value is not None}
    strange = [key for key in given if key not in known]
    if strange:
        raise InputError(
            f"--{strange[0].replace('_', '-')} is no setting of {method}; its settings are "
            f"{', '.join(k for k in known if k != 'self')}.",
            code="CL-INPUT-OPTION",
        )
    if "random_state" in known:
        given["random_state"] = seed
    return cls(**given)


def _write(out: Path, result: Any) -> dict[str, str]:
    from safetensors.torch import save

    from conceptlab.io.files import atomic_write
    from unlearning.commands.material import CERTIFICATE, WEIGHTS, Selected

    model = result.model
    inner = model.model if isinstance(model, Selected) else model
    tensors = {
        key: value.detach().cpu().clone().contiguous() for key, value in inner.state_dict().items()
    }
    paths = {
        "weights": atomic_write(out / WEIGHTS, save(tensors)),
        "certificate": atomic_write(
            out / CERTIFICATE, json.dumps(result.certificate, indent=2, default=str)
        ),
    }
    return {key: str(path.resolve()) for key, path in paths.items()}
