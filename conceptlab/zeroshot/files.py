"""A fitted classifier as a folder."""

from __future__ import annotations

__all__ = ["load", "save"]

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding
from conceptlab.zeroshot.stream import Layout

if TYPE_CHECKING:
    from conceptlab.zeroshot.estimator import BayesianZeroShot

_KIND = "BayesianZeroShot"
_PLAIN = ("rule", "prompt", "scale", "temperature")


def save(model: BayesianZeroShot, path: str | os.PathLike[str]) -> Path:
    """Write vectors, priors, names and settings."""
    layout = model._layout
    options = model.rule_options
    data: dict[str, Any] = {
        "parameters": {name: getattr(model, name) for name in _PLAIN},
        "rule_options": None if options is None else _plain(options),
        "classes": np.asarray(model.classes_).tolist(),
        "class_names": list(model.class_names_),
        "concept_names": model.concept_names_,
        "scale": model.scale_,
        "temperature": model.temperature_,
        "space": model.space_,
        "encoder": None if model.encoder_ is None else model.encoder_.name,
    }
    tensors = {
        "vectors": layout.vectors,
        "offsets": layout.offsets,
        "columns": layout.columns,
        "class_log_prior": model.class_log_prior_,
    }
    if layout.prior is not None:
        tensors["concept_prior"] = layout.prior
    return write_bundle(path, Bundle(_KIND, data, tensors))


def load(kind: type[BayesianZeroShot], path: str | os.PathLike[str]) -> BayesianZeroShot:
    """Read a classifier; its concepts can be fitted again as vectors."""
    bundle = read_bundle(path, _KIND)
    data, tensors = bundle.data, bundle.tensors
    with rebuilding(path, _KIND):
        layout = Layout(
            tensors["vectors"], tensors["offsets"], tensors["columns"], tensors.get("concept_prior")
        )
        prior = tensors["class_log_prior"]
        model = kind(
            _concepts(data, layout),
            rule_options=data["rule_options"],
            class_prior=np.exp(prior),
            concept_prior=layout.prior,
            **data["parameters"],
        )
        model._layout = layout
        model.classes_ = np.array(data["classes"])
        model.class_names_ = np.array(data["class_names"], dtype=object)
        model.concept_names_ = data["concept_names"]
        model.concept_labels_ = np.repeat(layout.columns, layout.counts)
        model.vectors_ = layout.vectors
        model.space_ = data["space"]
        model.scale_ = float(data["scale"])
        model.temperature_ = float(data["temperature"])
        model.class_log_prior_ = prior
        model.n_features_in_ = int(layout.vectors.shape[1])
        model.encoder_ = None
        return model


def _concepts(data: dict[str, Any], layout: Layout) -> Any:
    """Give concepts that fit again to the same classes: texts with vectors."""
    from conceptlab.bank import ConceptBank
    from conceptlab.vocabulary import ClassConcepts
    from conceptlab.vocabulary.concepts import unique_names

    order = layout.columns
    texts = {data["class_names"][k]: list(data["concept_names"][k]) for k in order}
    labels = [label for label, values in texts.items() for _ in values]
    flat = [text for values in texts.values() for text in values]
    bank = ConceptBank(layout.vectors, unique_names(labels, flat), space=data["space"])
    return ClassConcepts(texts, bank=bank)


def _plain(options: Any) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dict(options).items()}
