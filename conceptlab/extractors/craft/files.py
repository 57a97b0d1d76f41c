"""A fitted CRAFT as a folder: concepts, tree, importance, settings; never the model."""

from __future__ import annotations

__all__ = ["load_craft", "save_craft"]

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from conceptlab.errors import SpaceMismatchError
from conceptlab.explanation.tree import ConceptTree
from conceptlab.extractors.craft.checks import not_split
from conceptlab.importance.design import Design
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding
from conceptlab.models import SplitModel

if TYPE_CHECKING:
    from conceptlab.extractors.craft.estimator import CRAFT

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
)


def save_craft(craft: CRAFT, path: str | os.PathLike[str]) -> Path:
    """Write the fitted parts of `craft`.

    The extractor and the importance go to folders of their own inside, each
    with its own manifest; all come into place together.
    """
    data: dict[str, Any] = {
        "settings": {name: _plain(getattr(craft, name)) for name in _PLAIN},
        "split_when": None if callable(craft.split_when) else _plain(craft.split_when),
        "extractor_given": craft.extractor is not None,
        "images": craft.images_fingerprint_,
        "space": craft.split.fingerprint,
        "layer": craft.split.layer,
        "names": craft.concept_names_,
        "tree": craft.tree_.to_dict(),
        "seed": craft.seed_,
        "extractor": type(craft.extractor_).__name__,
        "has_importance": hasattr(craft, "importance_"),
    }
    tensors = {"patches": craft.patches_, "patch_coefficients": craft.patch_coefficients_}
    if craft.importance is not None:
        settings = {**craft.importance.get_params(), "random_state": None}
        if isinstance(settings["sampler"], Design):
            design = settings.pop("sampler")
            tensors |= {"design_A": design.A, "design_B": design.B}
            data["design"] = [design.sampler, _plain(design.seed)]
        data["importance"] = {name: _plain(value) for name, value in settings.items()}
    parts = {"extractor": craft.extractor_.save}
    if data["has_importance"]:
        parts["importance"] = craft.importance_.save
    return write_bundle(path, Bundle("CRAFT", data, tensors), parts=parts)


def load_craft(kind: type[CRAFT], path: str | os.PathLike[str], split: SplitModel) -> CRAFT:
    """Read what :func:`save_craft` wrote, for the same model at the same layer."""
    import conceptlab.extractors as extractors
    from conceptlab.importance import Importance, SobolImportance

    if not isinstance(split, SplitModel):
        raise not_split(split)
    folder = Path(path)
    bundle = read_bundle(folder, "CRAFT")
    data = bundle.data
    with rebuilding(folder, "CRAFT"):
        if data["space"] != split.fingerprint:
            raise SpaceMismatchError(
                f"{folder} was fitted at layer {data['layer']!r} of a model with fingerprint "
                f"{data['space'][:16]}..., but split is layer {split.layer!r} with fingerprint "
                f"{split.fingerprint[:16]}... Cut the same model at the same layer."
            )
        craft = kind(split, **data["settings"], random_state=data["seed"])
        craft.extractor_ = getattr(extractors, data["extractor"]).load(folder / "extractor")
        if data.get("extractor_given"):
            craft.extractor = clone(craft.extractor_)
        if data.get("split_when") is not None:
            craft.split_when = data["split_when"]
        if "importance" in data:
            craft.importance = SobolImportance(**data["importance"])
            if "design" in data:
                sampler, seed = data["design"]
                A, B = bundle.tensors["design_A"], bundle.tensors["design_B"]
                craft.importance.sampler = Design(A, B, sampler, seed)
        craft.images_fingerprint_ = data.get("images", "")
        craft.components_ = np.asarray(craft.extractor_.components_)
        craft.n_features_in_ = int(craft.components_.shape[1])
        craft.patches_ = bundle.tensors["patches"]
        craft.patch_coefficients_ = bundle.tensors["patch_coefficients"]
        craft.concept_names_ = list(data["names"])
        craft.tree_ = ConceptTree.from_dict(data["tree"])
        craft.seed_ = data["seed"]
        if data["has_importance"]:
            craft.importance_ = Importance.load(folder / "importance")
            craft.importances_ = np.asarray(craft.importance_.mean)
        return craft


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers and sequences into what JSON holds."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
