"""Classify without training: Bayes over the concepts of every class."""

from __future__ import annotations

from conceptlab.zeroshot.calibration import calibration_error, fit_temperature
from conceptlab.zeroshot.estimator import BayesianZeroShot
from conceptlab.zeroshot.explanation import ZeroShotExplanation
from conceptlab.zeroshot.pooling import pool, pool_weights
from conceptlab.zeroshot.rules import RULES, Rule

__all__ = [
    "RULES",
    "BayesianZeroShot",
    "Rule",
    "ZeroShotExplanation",
    "calibration_error",
    "fit_temperature",
    "pool",
    "pool_weights",
]
