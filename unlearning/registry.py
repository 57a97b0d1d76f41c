"""The methods that make a classifier forget: their names, once for all who list them."""

from __future__ import annotations

__all__ = ["HOMES", "METHODS"]

_TABLE = (
    ("concept-poisoning", "ConceptPoisoning", "concept_poisoning"),
    ("bad-teacher", "BadTeacher", "bad_teacher"),
    ("boundary-expand", "BoundaryExpand", "boundary"),
    ("boundary-shrink", "BoundaryShrink", "boundary"),
    ("delete", "DELETE", "delete"),
    ("fine-tune", "FineTune", "finetune"),
    ("fisher", "FisherForgetting", "fisher"),
    ("gradient-ascent", "GradientAscent", "ascent"),
    ("l1-sparse", "L1Sparse", "sparse"),
    ("logit-mask", "LogitMask", "logit_mask"),
    ("neggrad-plus", "NegGradPlus", "ascent"),
    ("random-label", "RandomLabel", "random_label"),
    ("retrain", "Retrain", "retrain"),
    ("salun", "SalUn", "salun"),
    ("scrub", "SCRUB", "scrub"),
    ("soft-relabel", "SoftRelabel", "soft_relabel"),
    ("ssd", "SSD", "ssd"),
    ("unsir", "UNSIR", "unsir"),
)
METHODS = {name: cls for name, cls, _ in _TABLE}
"""From a method's name on the command line to its class, a name in ``unlearning``."""
HOMES = {cls: f"unlearning.classes.methods.{file}" for _, cls, file in _TABLE}
"""From the class to the module that defines it."""
