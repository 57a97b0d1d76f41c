"""Models cut in two, their activations, and the crops to run through them."""

from __future__ import annotations

__all__ = ["SplitModel"]

from conceptlab.models.split import SplitModel
