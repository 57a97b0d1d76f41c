"""A remover from a TorchScript file, such as the published LaMa."""

from __future__ import annotations

__all__ = ["TorchScriptRemover"]

import os
from pathlib import Path

import torch

from conceptlab.arrays import resolve_device
from conceptlab.models.load import load_torchscript
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

    Examples
    --------
    >>> class Grey(torch.nn.Module):
    ...     def forward(self, images, masks):
    ...         return images * (1 - masks) + 0.5 * masks
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    >>> torch.jit.trace(Grey(), (images, masks)).save("grey.pt")  # or "big-lama.pt"
    >>> TorchScriptRemover("grey.pt", device="cpu").remove(images, masks, 0).shape
    torch.Size([1, 3, 8, 8])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        pad_multiple: int = 8,
        device: str | torch.device = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self._model, digest = load_torchscript(path, self.device)
        self.name = name or Path(path).stem
        self.pad_multiple = pad_multiple
        self.version = digest[:16]

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> torch.Tensor:
        """Fill the holes."""
        filled: torch.Tensor = self._model(
            images.to(self.device), masks.to(self.device, torch.float32)
        )
        return filled.float().cpu().clamp(-0.002, 1.002)
