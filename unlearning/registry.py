"""The methods that make a classifier forget: their names, once for all who list them."""

from __future__ import annotations

__all__ = ["METHODS"]

METHODS = {
    "concept-poisoning": "ConceptPoisoning",
    "bad-teacher": "BadTeacher",
    "boundary-expand": "BoundaryExpand",
    "boundary-shrink": "BoundaryShrink",
    "damp": "DAMP",
    "delete": "DELETE",
    "fine-tune": "FineTune",
    "fisher": "FisherForgetting",
    "gradient-ascent": "GradientAscent",
    "l1-sparse": "L1Sparse",
    "logit-mask": "LogitMask",
    "lotus": "LoTUS",
    "neggrad-plus": "NegGradPlus",
    "random-label": "RandomLabel",
    "retrain": "Retrain",
    "salun": "SalUn",
    "scrub": "SCRUB",
    "soft-relabel": "SoftRelabel",
    "ssd": "SSD",
    "trw": "TRW",
    "unsir": "UNSIR",
}
"""From a method's name on the command line to its class, a name in ``unlearning``."""
