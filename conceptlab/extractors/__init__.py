"""Find concepts in activations: factorisations, clusterings and controls behind one contract."""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
