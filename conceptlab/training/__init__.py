"""The training engine: whole steps, budgets, rewinding, looks, checkpoints.

Public names are imported on first use. The engine knows no job: whoever trains
classifiers, generators or dictionaries gives it weights, batches and a loss.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
