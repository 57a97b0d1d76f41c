"""OpenCV's two diffusion inpainters."""

from __future__ import annotations

__all__ = ["NavierStokes", "Telea"]

from typing import Any

import numpy as np
import torch

from conceptlab.errors import DependencyError, InputError
from unlearning.removal.removers.base import Remover


def require(module: str, package: str) -> Any:
    """Import an optional module, or say how to get it.

    Parameters
    ----------
    module : str
        Name to import.
    package : str
        Name to install.

    Raises
    ------
    DependencyError
        If it is missing or broken.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"This needs the package {package!r}, which is not installed. Install it with: "
            "pip install 'conceptlab[removal]'",
            code="CL-DEPENDENCY-MISSING",
        ) from error
    except Exception as error:
        raise DependencyError(
            f"{package} is installed but cannot be imported: {error}. Install it anew.",
            code="CL-DEPENDENCY-BROKEN",
        ) from error


class _OpenCV(Remover):
    flag = ""
    deterministic = True

    def __init__(self, radius: float = 5.0) -> None:
        if not radius > 0:
            raise InputError(f"radius must be above 0, got {radius}.", code="CL-INPUT-RANGE")
        self.radius = radius
        self._cv2 = require("cv2", "opencv-python-headless")
        self.version = f"cv2 {self._cv2.__version__} {radius}"

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> np.ndarray:
        """Fill the holes from their rims."""
        flag = getattr(self._cv2, self.flag)
        out = np.empty(images.shape, dtype=np.float32)
        for i, (image, mask) in enumerate(zip(as_bytes(images), masks.numpy(), strict=True)):
            filled = self._cv2.inpaint(image, mask[0].astype(np.uint8), self.radius, flag)
            out[i] = np.moveaxis(filled, 2, 0) / np.float32(255)
        return out


class Telea(_OpenCV):
    """Fast marching from the rim inwards (``cv2.INPAINT_TELEA``).

    Parameters
    ----------
    radius : float
        Pixels about each point that it is filled from.

    Notes
    -----
    Telea 2004.

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> masks[..., 2:5, 2:5] = True
    >>> Telea(radius=2).remove(images, masks, 0).shape
    (1, 3, 8, 8)
    """

    name = "telea"
    flag = "INPAINT_TELEA"


class NavierStokes(_OpenCV):
    """Continue lines of equal brightness into the hole (``cv2.INPAINT_NS``).

    Parameters
    ----------
    radius : float
        Pixels about each point that it is filled from.

    Notes
    -----
    Bertalmio, Bertozzi and Sapiro 2001.

    Examples
    --------
    >>> images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> masks[..., 2:5, 2:5] = True
    >>> NavierStokes(radius=2).remove(images, masks, 0).shape
    (1, 3, 8, 8)
    """

    name = "navier_stokes"
    flag = "INPAINT_NS"


def as_bytes(images: torch.Tensor) -> np.ndarray:
    """Turn (n, 3, H, W) in [0, 1] to (n, H, W, 3) uint8."""
    return np.ascontiguousarray((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
