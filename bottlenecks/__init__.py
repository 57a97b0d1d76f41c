"""Classification through concepts: sparse, named bottlenecks.

Public names are imported on first use.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
