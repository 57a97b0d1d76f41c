"""A fitted head as a folder."""

from __future__ import annotations

__all__ = ["load", "save"]

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottlenecks.heads.objective import number_of_effective_concepts
from bottlenecks.heads.path import SoftmaxPath
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding

if TYPE_CHECKING:
    from bottlenecks.heads.estimator import SparseLinearHead

_KIND = "SparseLinearHead"
_NUMBERS = (
    "lam_",
    "lam_max_",
    "kkt_",
    "objective_",
    "converged_",
    "n_dropped_",
    "n_added_",
    "n_iter_",
)
_ARRAYS = (
    "coef_",
    "intercept_",
    "shrunken_coef_",
    "shrunken_intercept_",
    "activation_range_",
    "activation_levels_",
)
_PATH = ("lams", "nec", "objective", "kkt", "n_iter")


def save(head: SparseLinearHead, path: str | os.PathLike[str]) -> Path:
    """Write parameters, weights and the certificate."""
    parameters = head.get_params()
    parameters["device"] = str(parameters["device"])
    names = getattr(head, "feature_names_in_", None)
    data: dict[str, Any] = {
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "fitted": {name: _plain(getattr(head, name)) for name in _NUMBERS},
        "classes": head.classes_.tolist(),
        "feature_names": None if names is None else list(names),
    }
    tensors = {name: getattr(head, name) for name in _ARRAYS}
    tensors |= {f"path_{name}": np.asarray(asdict(head.path_)[name]) for name in _PATH}
    sizes = [len(columns) for columns in head.active_concepts_]
    tensors["active_offsets"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tensors["active"] = np.concatenate(head.active_concepts_).astype(np.int64)
    return write_bundle(path, Bundle(_KIND, data, tensors))


def load(kind: type[SparseLinearHead], path: str | os.PathLike[str]) -> SparseLinearHead:
    """Read a head."""
    bundle = read_bundle(path, _KIND)
    data, tensors = bundle.data, bundle.tensors
    with rebuilding(path, _KIND):
        head = kind(**data["parameters"])
        for name in _NUMBERS:
            setattr(head, name, data["fitted"][name])
        for name in _ARRAYS:
            setattr(head, name, tensors[name])
        head.path_ = SoftmaxPath(**{name: tensors[f"path_{name}"] for name in _PATH})
        head.active_concepts_ = np.split(tensors["active"], tensors["active_offsets"][1:-1])
        head.classes_ = np.array(data["classes"])
        head.nec_ = number_of_effective_concepts(head.coef_)
        head.n_features_in_ = int(head.coef_.shape[1])
        if data["feature_names"] is not None:
            head.feature_names_in_ = np.array(data["feature_names"], dtype=object)
        return head


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
