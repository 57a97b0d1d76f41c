"""All plots: each returns its Axes, a grid its Figure; none calls ``show``."""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
