"""Make a model forget a class or an object, and audit that it is gone.

Public names are imported on first use.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
