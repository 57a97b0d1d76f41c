"""Options that ``unlearn`` and ``audit`` share, each with its help."""

from __future__ import annotations

__all__ = [
    "AsJson",
    "Device",
    "ForgottenClass",
    "IMAGES",
    "Model",
    "NImages",
    "NTest",
    "Retrained",
    "Seed",
    "Size",
    "Steps",
    "TestImages",
    "check_references",
]

from pathlib import Path
from typing import Annotated

import typer

from conceptlab.errors import InputError

IMAGES = "Training images: a folder or zip, a subfolder a class; rendered scenes if left out."
"""Help of the images, an argument of one command and an option of the other."""

ForgottenClass = Annotated[
    str, typer.Option("--class", help="The class to forget, by name or number.")
]
Model = Annotated[
    str,
    typer.Option(
        help="The original: embedded, torchvision:NAME@WEIGHTS, or FILE.py:FUNCTION that returns "
        "a module."
    ),
]
Retrained = Annotated[
    list[Path] | None,
    typer.Option(
        help="Weights of a model that never saw the class; given twice, the difference of the two "
        "is the noise floor. For the embedded model and ilko, one comes with the package."
    ),
]
TestImages = Annotated[
    Path | None,
    typer.Option(help="Images that the model never saw; a third of the images if left out."),
]
NImages = Annotated[int, typer.Option("--n-images", help="Use at most so many images.")]
NTest = Annotated[int, typer.Option("--n-test", help="And so many to test.")]
Size = Annotated[int | None, typer.Option(help="Side to which images are scaled.")]
Steps = Annotated[int, typer.Option(help="At most so many steps of relearning.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Seed = Annotated[int, typer.Option(help="Seed of everything.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def check_references(paths: list[Path] | None) -> None:
    """Refuse more than two retrained models.

    Raises
    ------
    InputError
        ``CL-INPUT-OPTION``.
    """
    if paths is not None and len(paths) > 2:
        raise InputError(
            f"--retrained may be given once or twice, got {len(paths)}.", code="CL-INPUT-OPTION"
        )
