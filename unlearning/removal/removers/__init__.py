"""Removers behind one protocol: ``remove(images, masks, seed)``."""

from __future__ import annotations

from unlearning.removal.removers.base import CallableRemover, Remover, RemoverSetup
from unlearning.removal.removers.biharmonic import Biharmonic
from unlearning.removal.removers.controls import NoisyOracle, Oracle, Swap
from unlearning.removal.removers.opencv import NavierStokes, Telea
from unlearning.removal.removers.patchmatch import PatchMatch
from unlearning.removal.removers.pipeline import PipelineRemover
from unlearning.removal.removers.registry import available_removers, make_remover
from unlearning.removal.removers.simple import GaussianBlur, MeanFill, Nothing
from unlearning.removal.removers.torchscript import TorchScriptRemover

__all__ = [
    "Biharmonic",
    "CallableRemover",
    "GaussianBlur",
    "MeanFill",
    "NavierStokes",
    "NoisyOracle",
    "Nothing",
    "Oracle",
    "PatchMatch",
    "PipelineRemover",
    "Remover",
    "RemoverSetup",
    "Swap",
    "Telea",
    "TorchScriptRemover",
    "available_removers",
    "make_remover",
]
