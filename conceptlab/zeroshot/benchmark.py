"""Real encoders on real images: ``python -m conceptlab.zeroshot.benchmark DATA --concepts FILE``.

DATA is a folder with a subfolder a class, or ``torchvision:NAME`` (downloaded);
FILE is a concept file as published by CGBC, DCLIP or CuPL. All rules are measured
on one encoding of the images, beside the class name alone and random words.
"""

from __future__ import annotations

__all__ = ["compare", "main"]

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError
from conceptlab.vocabulary import (
    ClassConcepts,
    filter_margins,
    from_random_words,
    read_concepts,
)
from conceptlab.zeroshot.calibration import calibration_error
from conceptlab.zeroshot.estimator import BayesianZeroShot
from conceptlab.zeroshot.rules import RULES


def compare(
    X: ArrayLike,
    y: np.ndarray,
    names: list[str],
    concepts: ClassConcepts,
    encoder: Any,
    *,
    prompt: str | None = None,
    templates: str = "openai-imagenet",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure every rule beside class names and random words.

    Parameters
    ----------
    X : array of shape (n, d)
        Encoded images.
    y : ndarray of shape (n,), int64
        Index into `names`.
    names : list of str
        Labels of the data, which may repeat.
    concepts : ClassConcepts
        Of all names.
    encoder : Encoder
    prompt : str, optional
        Sentence of class and concept.
    templates : str
        Set of sentences for the class names.
    seed : int
        Of the random words.

    Returns
    -------
    list of dict
        method, accuracy, log_loss, calibration_error at the model's own scale.
    """
    rows_of = concepts.index(names)
    y = rows_of[y]
    labels = list(concepts.classes)
    embedded = concepts.embed(encoder, prompt)
    words = from_random_words(concepts, random_state=seed).embed(encoder, "cgbc")
    banks: list[tuple[str, Any, str]] = [
        ("class name", _named(labels, encoder, "photo"), "mean"),
        (f"class name, {templates}", _named(labels, encoder, templates), "mean"),
        ("random words, mean", words, "mean"),
        ("random words, trim", words, "trim"),
        *((f"concepts, {rule}", embedded, rule) for rule in RULES),
        ("concepts, trim, margin filter", filter_margins(embedded, encoder), "trim"),
    ]
    return [{"method": name, **_measured(X, y, bank, rule, encoder)} for name, bank, rule in banks]


def _named(labels: list[str], encoder: Any, templates: str) -> Any:
    texts = [label.replace("_", " ") for label in labels]
    return encoder.encode_text(texts, templates=templates)[:, None, :]


def _measured(X: ArrayLike, y: np.ndarray, bank: Any, rule: str, encoder: Any) -> dict[str, float]:
    # Bank order, not the alphabet: y counts the classes as the concepts do.
    scale = getattr(encoder, "logit_scale", None) or 100.0
    model = BayesianZeroShot(bank, rule=rule, scale=scale).fit()
    own = np.array(list(dict.fromkeys(model.concept_labels_.tolist())))  # column of each class
    places = np.argsort(own)
    log_proba = np.asarray(model.predict_log_proba(X), dtype=np.float64)
    columns = np.empty(len(places), dtype=np.int64)
    columns[places] = np.arange(len(places))
    truth = own[y]
    return {
        "accuracy": float((log_proba.argmax(axis=1) == truth).mean()),
        "log_loss": float(-log_proba[np.arange(len(y)), truth].mean()),
        "calibration_error": calibration_error(truth, np.exp(log_proba)),
    }


def main(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or torchvision:NAME.")],
    concepts: Annotated[Path, typer.Option(help="Concept file, JSON {class: [texts]}.")],
    encoder: Annotated[str, typer.Option(help="Encoder.")] = "open_clip:ViT-B-16/openai",
    prompt: Annotated[str | None, typer.Option(help="cgbc, dclip, cupl, or a sentence.")] = None,
    templates: Annotated[str, typer.Option(help="For class names.")] = "openai-imagenet",
    max_images: Annotated[int | None, typer.Option(help="Every so manyth image only.")] = None,
    root: Annotated[Path, typer.Option(help="Where torchvision keeps its data.")] = Path("data"),
    cache: Annotated[Path | None, typer.Option(help="Folder of encoded images.")] = None,
    untrained: Annotated[bool, typer.Option(help="Random weights, to try the run out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the random words.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Compare pooling rules on a data set with a real encoder."""
    from conceptlab.encoders import load_encoder
    from conceptlab.io.files import atomic_write

    if untrained:
        reader = load_encoder(encoder.split("/")[0], device=device, pretrained=None)
    else:
        reader = load_encoder(encoder, device=device)
    images, y, names = _data(data, root, max_images)
    found = read_concepts(concepts, classes=names)
    options = {} if cache is None else {"cache": cache}
    X = reader.encode_image(images, **options)
    rows = compare(X, y, names, found, reader, prompt=prompt, templates=templates, seed=seed)
    typer.echo("| method | accuracy | log-loss | calibration error |\n|---|---|---|---|")
    for row in rows:
        typer.echo(
            f"| {row['method']} | {row['accuracy']:.2%} | {row['log_loss']:.3f} | "
            f"{row['calibration_error']:.3f} |"
        )
    facts = {
        "data": data,
        "n": len(y),
        "concepts": str(concepts),
        "encoder": reader.name,
        "fingerprint": reader.fingerprint,
        "rows": rows,
    }
    if out is not None:
        atomic_write(out, json.dumps(facts, indent=2))


def _data(data: str, root: Path, limit: int | None) -> tuple[Any, np.ndarray, list[str]]:
    if not data.startswith("torchvision:"):
        from conceptlab.datasets import load_image_folder

        folder = load_image_folder(data)
        if folder.y is None:
            raise InputError(f"{data} has no subfolders, so no labels.", code="CL-INPUT-LABELS")
        places = _spread(len(folder), limit)
        folder = folder[places]
        return folder.files, np.asarray(folder.y), list(folder.class_names)
    from conceptlab.encoders.dependencies import import_package

    name = data.removeprefix("torchvision:")
    module = import_package("torchvision.datasets", "torchvision")
    if not hasattr(module, name):
        raise InputError(
            f"torchvision.datasets has no {name!r}; try DTD, Food101, OxfordIIITPet, EuroSAT.",
            code="CL-INPUT-OPTION",
        )
    options = {} if name in {"EuroSAT", "Caltech101", "SUN397"} else {"split": "test"}
    found = getattr(module, name)(root=root, download=True, **options)
    places = _spread(len(found), limit)
    pairs = [found[int(i)] for i in places]
    names = list(getattr(found, "classes", None) or found.categories)
    return [image for image, _ in pairs], np.array([label for _, label in pairs]), names


def _spread(n: int, limit: int | None) -> np.ndarray:
    places = np.linspace(0, n - 1, min(limit or n, n))
    return np.unique(places.round().astype(int))


if __name__ == "__main__":
    typer.run(main)
