"""Judge object removers without the original image as the answer.

Removed images are compared with real images that never held the class: FID*, KID*,
CMMD*, U-IDS*, concept presence and concept FID, with floors, ceilings and intervals.
Features in, score out: :func:`frechet_distance`, :func:`kid`, :func:`cmmd`,
:func:`u_ids`; whole evaluations: :class:`RemovalBenchmark`.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
