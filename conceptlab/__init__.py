"""Find the concepts that a vision model uses, explain, classify, forget, audit.

Public names are imported on first use, so that ``import conceptlab`` is quick.
"""

from __future__ import annotations

import importlib.metadata

from conceptlab._lazy import attach

try:
    __version__ = importlib.metadata.version("conceptlab")
except importlib.metadata.PackageNotFoundError:  # a source tree on the path
    __version__ = "0+unknown"

__all__, __getattr__, __dir__ = attach(__name__, __file__)
