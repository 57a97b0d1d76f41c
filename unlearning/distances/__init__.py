"""Distances between two sets of features: FID, KID, CMMD, U-IDS.

Arrays in, score out; :class:`Features` holds a matrix that is compared more than once.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
