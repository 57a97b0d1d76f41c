"""One process or many: the same numbers, by ``torch.distributed`` under ``torchrun``.

A program that is launched by ``torchrun``, SLURM or Ray Train calls :func:`init` and gives the
:class:`World` that it gets to what it computes; a program that is not gets a world of one and
runs as ever.
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
