"""The coefficient of a concept in an input, as a function that can be differentiated."""

from __future__ import annotations

__all__ = ["CodeOf"]

from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError, unknown_name
from conceptlab.models import SplitModel

POOLS = ("activations", "coefficients")


class CodeOf:
    """x → u(x), the coefficients of some concepts in each input.

    Parameters
    ----------
    split : SplitModel
        Gives the activations A(x) at every position.
    extractor : ConceptExtractor
        Fitted on such activations.
    concepts : sequence of int, optional
        Which concepts; all by default.
    pool : {"activations", "coefficients"}
        ``u(x) = code(mean over positions of A(x))``, as crops are coded, or
        ``u(x) = mean over positions of code(A(x))``.

    Attributes
    ----------
    concepts : numpy.ndarray of int
        The chosen concepts.
    differentiable : bool
        Whether the extractor's coding has a gradient.
    homogeneous : bool
        Whether the code of t times an activation, for t > 0, is known to be t times its code.
    """

    def __init__(
        self, split: SplitModel, extractor: Any, concepts: Any = None, pool: str = "activations"
    ) -> None:
        if pool not in POOLS:
            raise unknown_name("pool", pool, POOLS)
        if not isinstance(split, SplitModel):
            raise InputError(
                f"split must be a SplitModel, got {type(split).__name__}. "
                "Wrap the model: SplitModel(model, at='layer4').",
                code="CL-INPUT-TYPE",
            )
        if not hasattr(extractor, "components_"):
            raise InputError(
                f"extractor must be a fitted concept extractor, got {type(extractor).__name__} "
                "without components_. Call fit first.",
                code="CL-INPUT-TYPE",
            )
        self.split, self.extractor, self.pool = split, extractor, pool
        n_concepts, self._width = np.shape(extractor.components_)
        self.concepts = _chosen(concepts, n_concepts)
        self.differentiable = hasattr(extractor, "as_module")
        self.homogeneous = self.differentiable and getattr(
            extractor.as_module(), "homogeneous", False
        )
        self._modules: dict[tuple[torch.device, torch.dtype], torch.nn.Module] = {}

    def __call__(self, x: Any) -> torch.Tensor:
        """Compute u(x), shape (n, n_chosen)."""
        return self.of(self.split.to_positions(self.split.g(x)))

    def of(self, positions: torch.Tensor) -> torch.Tensor:
        """Compute u from activations (n, *positions, c)."""
        axes = tuple(range(1, positions.ndim - 1))
        if axes and self.pool == "activations":
            positions = positions.mean(axes)
            axes = ()
        codes = self.at_positions(positions)
        return codes.mean(axes) if axes else codes

    def at_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """Code every position: (..., c) → (..., n_chosen)."""
        if positions.shape[-1] != self._width:
            raise InputError(
                f"Layer {self.split.layer!r} has {positions.shape[-1]} channels, but the extractor "
                f"was fitted on {self._width}. Use the layer of the fit.",
                code="CL-INPUT-FEATURES",
            )
        if self.differentiable:
            codes = self._module(positions)(positions)
        else:
            flat = positions.detach().reshape(-1, positions.shape[-1])
            found = torch.as_tensor(as_numpy(self.extractor.transform(as_numpy(flat))))
            codes = found.to(positions).reshape(*positions.shape[:-1], -1)
        return codes[..., torch.as_tensor(self.concepts, device=codes.device)]

    def _module(self, like: torch.Tensor) -> torch.nn.Module:
        key = (like.device, like.dtype)
        if key not in self._modules:
            self._modules[key] = self.extractor.as_module().to(*key)
        return self._modules[key]


def _chosen(concepts: ArrayLike, n_concepts: int) -> np.ndarray:
    if concepts is None:
        return np.arange(n_concepts)
    found = np.atleast_1d(np.asarray(concepts))
    if found.dtype == bool or found.dtype.kind not in "iu" or found.ndim != 1 or not len(found):
        raise InputError(
            f"concepts must be numbers of concepts, such as [0, 3], got {concepts!r}.",
            code="CL-INPUT-TYPE",
        )
    if found.min() < -n_concepts or found.max() >= n_concepts:
        raise InputError(
            f"concepts must lie between 0 and {n_concepts - 1}, got {concepts!r}.",
            code="CL-INPUT-RANGE",
        )
    return found % n_concepts
