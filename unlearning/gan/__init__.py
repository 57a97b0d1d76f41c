"""Make a generator forget by telling it so, and see what became of it."""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
