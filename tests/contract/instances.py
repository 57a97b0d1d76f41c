"""Small instances of every estimator, so that the contract is checked in seconds."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from discovery import estimators
from exceptions import ABSTRACT
from sklearn.base import clone, is_classifier
from torch import nn

FEATURE_PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "NMFConcepts": [{"n_concepts": 2, "random_state": 0}],
    "SemiNMF": [{"n_concepts": 2, "random_state": 0}],
    "ConvexNMF": [{"n_concepts": 2, "max_iter": 20, "tol": 1e-3, "random_state": 0}],
    "SparseAutoencoder": [
        {"n_concepts": 3, "n_steps": 5, "random_state": 0},
        {"n_concepts": 3, "activation": "batchtopk", "n_steps": 5, "random_state": 0},
    ],
    "PCAConcepts": [{"n_concepts": 2, "random_state": 0}],
    "ICAConcepts": [{"n_concepts": 2, "random_state": 0}],
    "KMeansConcepts": [{"n_concepts": 2, "random_state": 0}],
    "RandomConcepts": [{"n_concepts": 2, "random_state": 0}],
    "BankScorer": [{}],
    "BayesianZeroShot": [{}, {"rule": "lse"}],
    "ConceptMatrixSearch": [
        {},
        {"normalize": "row"},
        {"rule": "cubed", "normalize": "column"},
        {"rule": "max", "normalize": "none"},
    ],
    "ConceptBottleneck": [
        {"random_state": 0},
        {"mode": "sequential", "lam": 0.01, "random_state": 0},
        {"mode": "joint", "random_state": 0},
    ],
    "CertifiedHead": [{"random_state": 0}, {"loss": "squared", "random_state": 0}],
    "LabelFreeCBM": [{"random_state": 0}],
    "PostHocCBM": [{}, {"residual": True}],
    "SparseCBM": [
        {"max_epochs": 5, "random_state": 0},
        {"mode": "contrastive", "max_epochs": 5, "random_state": 0},
        {"mode": "l1", "head": "dense", "max_epochs": 5, "random_state": 0},
        {"mode": "reference", "max_epochs": 2, "random_state": 0},
    ],
    "SparseLinearHead": [{"tol": 1e-3}, {"positive": True, "tol": 1e-3}],
}
"""Estimators that take a feature matrix, and the parameters to test them with."""

UNLEARNERS = (
    "BadTeacher",
    "BoundaryExpand",
    "BoundaryShrink",
    "ConceptPoisoning",
    "DAMP",
    "DELETE",
    "FineTune",
    "FisherForgetting",
    "GradientAscent",
    "L1Sparse",
    "LoTUS",
    "LogitMask",
    "NegGradPlus",
    "RandomLabel",
    "Retrain",
    "SCRUB",
    "SSD",
    "SalUn",
    "SoftRelabel",
    "TRW",
    "UNSIR",
)
"""Methods of forgetting; test_unlearners.py checks what they do."""


def feature_estimators() -> list[Any]:
    """Give an instance for every entry that exists."""
    found = estimators()
    return [
        found[name](**parameters)
        for name, choices in FEATURE_PARAMETERS.items()
        if name in found
        for parameters in choices
    ]


def all_estimators() -> list[Any]:
    """Give an instance of every public estimator that can be made."""
    found = estimators()
    others = [make(found[name]) for name, make in OTHER_ESTIMATORS.items() if name in found]
    return [*feature_estimators(), *others]


def without_instance() -> list[str]:
    """Name the public estimators that this file does not know."""
    known = {*FEATURE_PARAMETERS, *OTHER_ESTIMATORS, *ABSTRACT}
    return sorted(set(estimators()) - known)


def extractors() -> list[Any]:
    """Give those that find concepts: with coefficients, a decoder, a module and files."""
    from conceptlab.extractors import ConceptExtractor

    return [found for found in feature_estimators() if isinstance(found, ConceptExtractor)]


def features(n: int = 40, p: int = 6) -> np.ndarray:
    """Non-negative data with some structure, float64."""
    rng = np.random.default_rng(0)
    return rng.random((n, 3)) @ rng.random((3, p)) + 0.05 * rng.random((n, p))


def images(n: int = 6, side: int = 16) -> np.ndarray:
    """Images in [0, 1], float32."""
    return np.random.default_rng(1).random((n, 3, side, side), dtype=np.float32)


@cache
def small_model() -> nn.Module:
    """Make a tiny classifier with a non-negative layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


@cache
def small_split() -> Any:
    """Cut the tiny classifier."""
    from conceptlab import SplitModel

    split = SplitModel(small_model(), at="0")
    split.check(images(2))
    return split


def small_bank() -> Any:
    """Make a bank of two concepts for `features`; a name that HTML must not believe."""
    from conceptlab import ConceptBank

    return ConceptBank(np.eye(6)[:2], ["red", "<b>round</b>"], space=None)


@cache
def small_encoder() -> Any:
    """Make an encoder of mean colours and text lengths."""
    from conceptlab.encoders import CallableEncoder

    return CallableEncoder(
        lambda x: x.mean(dim=(2, 3)),
        lambda texts: torch.tensor([[len(t), t.count("a"), 1.0] for t in texts]),
        dim=3,
        fingerprint="mean colour",
    )


OTHER_ESTIMATORS: dict[str, Callable[[type], Any]] = {
    "BankScorer": lambda cls: cls(small_bank(), similarity="cosine"),
    "CRAFT": lambda cls: cls(small_split(), 2, patch_size=8, random_state=0),
    "DPPSelector": lambda cls: cls(n_select=3),
    "DirectionalAdaptation": lambda cls: cls(small_encoder(), "red"),
    "EncodeImages": lambda cls: cls(small_encoder()),
    "LatentGuard": lambda cls: cls(small_encoder(), "red"),
    "NegativeFineTune": lambda cls: cls(small_encoder(), "red"),
    "RejectionFilter": lambda cls: cls(small_encoder(), "red"),
    "SubmodularSelector": lambda cls: cls(n_select=3),
    "ShardedEnsemble": lambda cls: cls(small_model, n_shards=2),
    "TextToUnlearn": lambda cls: cls(small_encoder(), "red"),
    "SobolImportance": lambda cls: cls(n_design=8, n_bootstrap=0, random_state=0),
    **{name: lambda cls: cls(random_state=0) for name in UNLEARNERS},
}
"""Estimators that take images, are called, or choose rows: how to make a small one."""


def name_of(estimator: Any) -> str:
    """Name an instance in test reports."""
    return type(estimator).__name__


def fitted(estimator: Any, X: np.ndarray | None = None) -> Any:
    """Fit a copy of an estimator on `features`; a classifier on three classes."""
    X = features() if X is None else X
    return clone(estimator).fit(X, np.arange(len(X)) % 3 if is_classifier(estimator) else None)


def answer(model: Any, X: np.ndarray) -> Any:
    """Give what a fitted estimator says of `X`."""
    if is_classifier(model):  # a search without weights has scores and no probabilities
        return getattr(model, "predict_proba", model.decision_function)(X)
    return model.transform(X)
