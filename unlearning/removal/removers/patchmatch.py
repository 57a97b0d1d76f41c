"""PatchMatch, from the kept library PyPatchMatch."""

from __future__ import annotations

__all__ = ["PatchMatch"]

import numpy as np
import torch

from conceptlab.errors import DependencyError, InputError
from unlearning.removal.removers.base import Remover
from unlearning.removal.removers.opencv import as_bytes, require


class PatchMatch(Remover):
    """Fill holes with patches from elsewhere in the picture.

    Parameters
    ----------
    patch_size : int
        Side of the patches in pixels, odd.

    Notes
    -----
    Barnes et al. 2009, on the library's own pyramid.

    Examples
    --------
    >>> from unlearning.removal.removers import available_removers
    >>> found, missing = available_removers(["patchmatch"])  # it is not built for every system
    >>> len(found) + len(missing)
    1
    """

    name = "patchmatch"
    deterministic = False

    def __init__(self, patch_size: int = 5) -> None:
        if patch_size < 3 or patch_size % 2 == 0:
            raise InputError(
                f"patch_size must be odd and at least 3, got {patch_size}.", code="CL-INPUT-RANGE"
            )
        self.patch_size = patch_size
        self._library = require("patchmatch", "PyPatchMatch")
        if not getattr(self._library, "patchmatch_available", True):
            raise DependencyError(
                "PyPatchMatch is installed without its compiled part. Install it anew, or leave "
                "'patchmatch' out.",
                code="CL-DEPENDENCY-BROKEN",
            )
        version = getattr(self._library, "__version__", "")
        self.version = f"{version} {patch_size}"

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> np.ndarray:
        """Fill the holes."""
        out = np.empty(images.shape, dtype=np.float32)
        for i, (image, mask) in enumerate(zip(as_bytes(images), masks.numpy(), strict=True)):
            self._library.set_random_seed(seed + i)
            hole = mask[0].astype(np.uint8)[..., None] * 255
            filled = self._library.inpaint(image, hole, patch_size=self.patch_size)
            out[i] = np.moveaxis(np.asarray(filled), 2, 0) / np.float32(255)
        return out
