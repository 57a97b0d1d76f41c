"""A remover from a TorchScript file, such as the published LaMa."""

from __future__ import annotations

__all__ = ["TorchScriptRemover"]

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from conceptlab.arrays import resolve_device
from conceptlab.errors import CheckpointError
from unlearning.removal.removers.base import Remover


class TorchScriptRemover(Remover):
    """Run ``model(images, masks)`` from a TorchScript file.

    Parameters
    ----------
    path : path-like
        The file. TorchScript holds a program: take it from a source that you trust.
    name : str, optional
        For tables; the file's own name by default.
    pad_multiple : int
        Sides are padded to multiples of it; LaMa needs 8.
    device : str or torch.device
        Where to run.

    Notes
    -----
    The model takes images (n, 3, H, W) in [0, 1] and masks (n, 1, H, W) of 0 and 1 in
    float32, and gives images in [0, 1] (Suvorov et al. 2022, exported).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        pad_multiple: int = 8,
        device: str | torch.device = "auto",
    ) -> None:
        file = Path(path)
        if not file.is_file():
            raise CheckpointError(f"{file} does not exist.", code="CL-CHECKPOINT-MISSING")
        self.device = resolve_device(device)
        try:
            self._model: Any = torch.jit.load(str(file), map_location=self.device).eval()
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{file} is no TorchScript file: {str(error)[:200]}. Export the model with "
                "torch.jit.save, or write a function (images, masks, seed) around it.",
                code="CL-CHECKPOINT-KIND",
            ) from error
        self.name = name or file.stem
        self.pad_multiple = pad_multiple
        self.version = hashlib.sha256(file.read_bytes()).hexdigest()[:16]

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
        """Fill the holes."""
        filled: torch.Tensor = self._model(
            images.to(self.device), masks.to(self.device, torch.float32)
        )
        return filled.float().cpu().clamp(-0.002, 1.002)
