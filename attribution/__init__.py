"""Which concepts drive a model's output, where they are, and whether that is true.

The functions are in modules of the same names: :mod:`attribution.explain`,
:mod:`attribution.faithfulness`, :mod:`attribution.stability`.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
