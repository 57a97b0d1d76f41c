"""Images to work on: the rendered world with known truth, and folders of pictures."""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
