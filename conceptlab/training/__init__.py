"""The training engine: whole steps, budgets, rewinding, looks, checkpoints.

Public names are imported on first use. The engine knows no job: whoever trains
classifiers, generators or dictionaries gives it weights, batches and a loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from conceptlab.training.average import Average as Average
    from conceptlab.training.descent import descend as descend
    from conceptlab.training.interrupt import DeferredInterrupt as DeferredInterrupt
    from conceptlab.training.loop import Engine as Engine
    from conceptlab.training.parts import GlobalRandomness as GlobalRandomness
    from conceptlab.training.parts import Tensors as Tensors
    from conceptlab.training.terms import Stop as Stop

_HOMES = {
    "Average": "conceptlab.training.average",
    "DeferredInterrupt": "conceptlab.training.interrupt",
    "Engine": "conceptlab.training.loop",
    "GlobalRandomness": "conceptlab.training.parts",
    "Stop": "conceptlab.training.terms",
    "Tensors": "conceptlab.training.parts",
    "descend": "conceptlab.training.descent",
}
__all__ = [*_HOMES]

__getattr__, __dir__ = attach(__name__, _HOMES)
