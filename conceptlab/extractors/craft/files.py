"""A fitted CRAFT as a folder: concepts, tree, importance, settings; never the model."""

from __future__ import annotations

__all__ = ["CraftParts", "read_parts", "write_parts"]

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from conceptlab.errors import SpaceMismatchError
from conceptlab.explanation.tree import ConceptTree
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.importance import Decision, Design, Importance, SobolImportance
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding

_PLAIN = (
    "n_concepts",
    "patch_size",
    "patches",
    "n_crops",
    "layers",
    "depth",
    "alpha",
    "n_children",
    "max_patches",
    "storage",
    "batch_size",
    "n_refits",
    "interval",
)


@dataclass(frozen=True, eq=False)
class CraftParts:
    """What a folder holds.

    Attributes
    ----------
    settings : dict
        Parameters of the estimator but its model.
    space, layer : str
        Fingerprint and name of the cut.
    extractor : ConceptExtractor
        Fitted.
    importance : Importance or None
        What was found.
    tree : ConceptTree
        The concepts and what they were split into.
    names : list of str
        One a concept.
    patches : numpy.ndarray of shape (n_rows, 4)
        Image, y, x and side of each row.
    patch_coefficients : numpy.ndarray of shape (n_rows, k)
        U of the rows.
    images : str
        Fingerprint of the fitted images.
    seed : int
        The seed of the fit.
    stability : numpy.ndarray of shape (k,), or None
        Of each concept.
    decision : Decision or None
        Whether the concepts carry the decision.
    """

    settings: dict[str, Any]
    space: str
    layer: str
    extractor: ConceptExtractor
    importance: Importance | None
    tree: ConceptTree
    names: list[str]
    patches: np.ndarray
    patch_coefficients: np.ndarray
    images: str
    seed: int
    stability: np.ndarray | None = None
    decision: Decision | None = None


def write_parts(path: str | os.PathLike[str], parts: CraftParts) -> Path:
    """Write the parts of a fitted CRAFT.

    The extractor and the importance go to folders of their own inside, each
    with its own manifest; all come into place together.
    """
    settings = parts.settings
    split_when, importance = settings["split_when"], settings["importance"]
    data: dict[str, Any] = {
        "settings": {name: _plain(settings[name]) for name in _PLAIN},
        "split_when": None if callable(split_when) else _plain(split_when),
        "extractor_given": settings["extractor"] is not None,
        "images": parts.images,
        "space": parts.space,
        "layer": parts.layer,
        "names": parts.names,
        "tree": parts.tree.to_dict(),
        "seed": parts.seed,
        "extractor": type(parts.extractor).__name__,
        "has_importance": parts.importance is not None,
    }
    tensors = {"patches": parts.patches, "patch_coefficients": parts.patch_coefficients}
    if parts.stability is not None:
        tensors["stability"] = parts.stability
    if parts.decision is not None:
        data["decision"] = parts.decision.to_dict()
    if importance is not None:
        how = {**importance.get_params(), "random_state": None}
        if isinstance(how["sampler"], Design):
            design = how.pop("sampler")
            tensors |= {"design_A": design.A, "design_B": design.B}
            data["design"] = [design.sampler, _plain(design.seed)]
        data["importance"] = {name: _plain(value) for name, value in how.items()}
    inside = {"extractor": parts.extractor.save}
    if parts.importance is not None:
        inside["importance"] = parts.importance.save
    return write_bundle(path, Bundle("CRAFT", data, tensors), parts=inside)


def read_parts(path: str | os.PathLike[str], *, space: str, layer: str) -> CraftParts:
    """Read what :func:`write_parts` wrote, for the same model at the same layer.

    Raises
    ------
    SpaceMismatchError
        If the folder is of another `space`.
    CheckpointError
        If the folder is damaged, newer, or something else.
    """
    import conceptlab.extractors as extractors

    folder = Path(path)
    bundle = read_bundle(folder, "CRAFT")
    data = bundle.data
    with rebuilding(folder, "CRAFT"):
        if data["space"] != space:
            raise SpaceMismatchError(
                f"{folder} was fitted at layer {data['layer']!r} of a model with fingerprint "
                f"{data['space'][:16]}..., but split is layer {layer!r} with fingerprint "
                f"{space[:16]}... Cut the same model at the same layer."
            )
        extractor = getattr(extractors, data["extractor"]).load(folder / "extractor")
        settings = {**data["settings"], "random_state": data["seed"]}
        if data.get("extractor_given"):
            settings["extractor"] = clone(extractor)
        if data.get("split_when") is not None:
            settings["split_when"] = data["split_when"]
        if "importance" in data:
            settings["importance"] = SobolImportance(**data["importance"])
            if "design" in data:
                sampler, seed = data["design"]
                A, B = bundle.tensors["design_A"], bundle.tensors["design_B"]
                settings["importance"].sampler = Design(A, B, sampler, seed)
        return CraftParts(
            settings=settings,
            space=space,
            layer=layer,
            extractor=extractor,
            importance=Importance.load(folder / "importance") if data["has_importance"] else None,
            tree=ConceptTree.from_dict(data["tree"]),
            names=list(data["names"]),
            patches=bundle.tensors["patches"],
            patch_coefficients=bundle.tensors["patch_coefficients"],
            images=data.get("images", ""),
            seed=data["seed"],
            stability=bundle.tensors.get("stability"),
            decision=Decision.from_dict(data["decision"]) if "decision" in data else None,
        )


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers and sequences into what JSON holds."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
