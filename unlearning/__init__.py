"""Make a model forget a class or an object, and audit that it is gone.

Public names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearning.classes.base import Unlearner as Unlearner
    from unlearning.classes.certificate import verify_certificate as verify_certificate
    from unlearning.classes.finetune import FineTune as FineTune
    from unlearning.classes.logit_mask import LogitMask as LogitMask
    from unlearning.classes.result import UnlearnResult as UnlearnResult
    from unlearning.classes.sequence import unlearn_sequence as unlearn_sequence
    from unlearning.data import Samples as Samples
    from unlearning.data import as_samples as as_samples
    from unlearning.data import split_classes as split_classes
    from unlearning.heads import Head as Head
    from unlearning.heads import features_and_logits as features_and_logits
    from unlearning.heads import find_head as find_head

_HOMES = {
    "FineTune": "unlearning.classes.finetune",
    "Head": "unlearning.heads",
    "LogitMask": "unlearning.classes.logit_mask",
    "Samples": "unlearning.data",
    "UnlearnResult": "unlearning.classes.result",
    "Unlearner": "unlearning.classes.base",
    "as_samples": "unlearning.data",
    "features_and_logits": "unlearning.heads",
    "find_head": "unlearning.heads",
    "split_classes": "unlearning.data",
    "unlearn_sequence": "unlearning.classes.sequence",
    "verify_certificate": "unlearning.classes.certificate",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearning' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
