"""A model's head as a function of concept coefficients."""

from __future__ import annotations

__all__ = ["HeadOnCoefficients"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from conceptlab.arrays import ArrayLike, as_tensor
from conceptlab.errors import InputError
from conceptlab.importance.scratch import Scratch

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel


class HeadOnCoefficients:
    """U -> h(U W + offset), with a fast path for many masks of one image.

    Masked copies of one image differ by k numbers only, so each image's concepts
    are decoded once, to a basis (k, activations); all its masks are then one
    product ``masks @ basis``, without a masked copy of the coefficients.

    Parameters
    ----------
    split : SplitModel
        Gives the head ``h`` and the layout. It must have seen an input.
    W : array-like of shape (k, p)
        Concept bank, ``components_`` of an extractor.
    offset : array-like of shape (p,), optional
        What the extractor's decoder adds, such as PCA's mean.
    transform : callable, optional
        Applied to the outputs, such as ``lambda z: z.softmax(-1)``.

    Attributes
    ----------
    row_numbers : int
        Numbers in one decoded row, as far as seen.

    Notes
    -----
    Coefficients (m, k) for a layer with positions stand for the same
    coefficients at every position, which is all that a head with global average
    pooling sees of them.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from conceptlab.models import SplitModel
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    ...                       nn.Flatten(), nn.Linear(4, 2))
    >>> split = SplitModel(model, at="1")
    >>> activations = split.g(torch.rand(5, 3, 8, 8))
    >>> head = HeadOnCoefficients(split, torch.rand(3, 4))
    >>> tuple(head(torch.rand(7, 6, 6, 3)).shape)
    (7, 2)
    """

    expands = True
    uses_scratch = True

    def __init__(
        self,
        split: SplitModel,
        W: Any,
        *,
        offset: Any = None,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.split = split
        self.transform = transform
        self.W = as_tensor(W, device=split.device).detach()
        if self.W.ndim != 2:
            raise InputError(
                f"W must have shape (k, p), got {tuple(self.W.shape)}.", code="CL-INPUT-RANK"
            )
        self.offset = None if offset is None else as_tensor(offset, device=split.device).detach()
        if self.offset is not None and self.offset.shape != self.W.shape[1:]:
            raise InputError(
                f"offset must have shape ({self.W.shape[1]},), got {tuple(self.offset.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        self.row_numbers = int(self.W.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the head runs."""
        return self.split.device

    @classmethod
    def from_extractor(
        cls,
        split: SplitModel,
        extractor: Any,
        *,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> HeadOnCoefficients:
        """Take W and the offset from a fitted extractor whose decoder is affine.

        Parameters
        ----------
        split : SplitModel
            Cut at the layer that the extractor was fitted on.
        extractor : ConceptExtractor
            Fitted.
        transform : callable, optional
            Applied to the outputs.

        Returns
        -------
        HeadOnCoefficients
        """
        W = as_tensor(extractor.components_)
        zeros = torch.zeros(1, len(W), dtype=W.dtype)
        offset = as_tensor(extractor.inverse_transform(zeros.numpy())).reshape(-1)
        return cls(split, W, offset=offset if bool(offset.any()) else None, transform=transform)

    def __call__(self, U: Any, *, rest: Any = None, inputs: Any = None) -> torch.Tensor:
        """Map coefficients (m, *positions, k) to outputs (m, n_outputs); differentiable.

        Parameters
        ----------
        U : array-like of shape (m, *positions, k)
            Coefficients.
        rest : array-like of shape (m, *positions, p), optional
            Added in the place of the offset; see :mod:`conceptlab.importance.remainder`.
        inputs : optional
            What the coefficients come from, where more than the activations counts; see
            :meth:`SplitModel.h <conceptlab.models.SplitModel.h>`.
        """
        U = self._at_positions(self._tensor(U))
        self._fits(U)
        parts = [U] if rest is None else [U, self._at_positions(self._tensor(rest))]
        positions = range(1, U.ndim - 1)
        if positions and all(_expanded(part, positions) for part in parts):
            # An expanded view: decode one position, expand the activations.
            first = (slice(None), *(0,) * len(positions))
            decoded = self._sum(*(part[first] for part in parts))
            decoded = decoded.reshape(len(U), *(1,) * len(positions), -1)
            decoded = decoded.expand(*U.shape[:-1], -1)
        else:
            decoded = self._sum(*parts)
        self.row_numbers = max(self.row_numbers, int(decoded[0].numel()))
        return self._head(self.split.from_positions(decoded), inputs)

    def decode_masks(self, U_i: Any, masks: ArrayLike) -> torch.Tensor:
        """Decode one image under many masks.

        Parameters
        ----------
        U_i : array-like of shape (*positions, k)
            Coefficients of the image.
        masks : array-like of shape (m, k)
            One factor for each concept, at all positions.

        Returns
        -------
        torch.Tensor
            m activations in the layer's own layout.
        """
        return self._decoder(U_i)(masks)

    def for_image(
        self, U_i: Any, *, rest: Any = None, scratch: Scratch | None = None, inputs: Any = None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Prepare one image: a function from masks (m, k) to outputs (m, n_outputs).

        Parameters
        ----------
        U_i : array-like of shape (*positions, k)
            Coefficients of the image.
        rest : array-like of shape (*positions, p), optional
            What is not coded; masks then have a last column for it, (m, k + 1).
        scratch : Scratch, optional
            Where activations are decoded to. Outputs must then be copied before the next
            call, because a head may hand its activations on.
        inputs : optional
            The input of the image, as for a call.

        Returns
        -------
        callable
        """
        U_i = as_tensor(U_i, device=self.device, dtype=self.W.dtype)
        parts = [U_i] if rest is None else [U_i, self._tensor(rest)]
        positions = U_i.shape[:-1]
        if positions and all(_expanded(part, range(len(positions))) for part in parts):
            ones = [part[(0,) * len(positions)] for part in parts]

            def spread(rows: torch.Tensor) -> torch.Tensor:
                rows = rows.reshape(len(rows), *(1,) * len(positions), -1)
                return rows.expand(-1, *positions, -1)

            def pooled(masks: torch.Tensor) -> torch.Tensor:
                masks = self._tensor(masks)
                if rest is None:
                    return self(spread(masks * ones[0]), inputs=inputs)
                left = spread(masks[:, -1:] * ones[1])
                return self(spread(masks[:, :-1] * ones[0]), rest=left, inputs=inputs)

            return pooled
        decode = self._decoder(U_i, scratch, None if rest is None else parts[1])
        return lambda masks: self._head(decode(masks), inputs)

    def mask_outputs(self, U_i: Any, masks: ArrayLike) -> torch.Tensor:
        """Give the outputs (m, n_outputs) of image `U_i` (*positions, k) under `masks` (m, k)."""
        return self.for_image(U_i)(self._tensor(masks))

    def _decoder(
        self, U_i: Any, scratch: Scratch | None = None, rest: torch.Tensor | None = None
    ) -> Callable[[Any], torch.Tensor]:
        U_i = self._at_positions(self._tensor(U_i)[None])[0]
        self._fits(U_i)
        k = len(self.W)
        basis = U_i.movedim(-1, 0)[..., None] * self.W.reshape(k, *(1,) * (U_i.ndim - 1), -1)
        shape = basis.shape[1:]
        basis = basis.reshape(k, -1)
        if rest is not None:
            basis = torch.cat([basis, self._at_positions(rest[None])[0].reshape(1, -1)])
        self.row_numbers = max(self.row_numbers, int(basis.shape[1]))

        def decode(masks: ArrayLike) -> torch.Tensor:
            masks = self._tensor(masks)
            room = None if scratch is None else scratch.take((len(masks), basis.shape[1]), basis)
            decoded = torch.matmul(masks, basis, out=room).reshape(-1, *shape)
            if self.offset is not None and rest is None:
                decoded += self.offset
            return self.split.from_positions(decoded)

        return decode

    def _tensor(self, array: ArrayLike) -> torch.Tensor:
        return as_tensor(array, device=self.device, dtype=self.W.dtype)

    def decode(self, U: ArrayLike) -> torch.Tensor:
        """Decode coefficients (..., k) to activations (..., p), channels last."""
        U = self._tensor(U)
        self._fits(U)
        decoded = U @ self.W
        return decoded if self.offset is None else decoded + self.offset

    def rest(self, U: ArrayLike, activations: ArrayLike) -> torch.Tensor:
        """Give what coefficients (..., k) leave of activations (..., p): A - U W, no offset."""
        U, A = self._tensor(U), self._tensor(activations)
        self._fits(U)
        if A.shape != (*U.shape[:-1], self.W.shape[1]):
            raise InputError(
                f"activations must have shape {(*U.shape[:-1], self.W.shape[1])} to fit U and W, "
                f"got {tuple(A.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        return A - U @ self.W

    def _sum(self, U: torch.Tensor, rest: torch.Tensor | None = None) -> torch.Tensor:
        return self.decode(U) if rest is None else U @ self.W + rest

    def _head(self, activations: torch.Tensor, inputs: Any = None) -> torch.Tensor:
        outputs = self.split.h(activations, inputs=inputs)
        return outputs if self.transform is None else self.transform(outputs)

    def _at_positions(self, U: torch.Tensor) -> torch.Tensor:
        """Give (m, k) the positions of the layer, as an expanded view."""
        layout = self.split.layout
        if U.ndim != 2 or layout == "nc":
            return U
        grid = self.split.grid
        if grid is None:
            raise InputError(
                f"Coefficients of shape {tuple(U.shape)} have no positions, and layer "
                f"{self.split.layer!r} (layout {layout!r}) has no fixed grid to put them on. Give "
                "coefficients (m, *positions, k).",
                code="CL-INPUT-RANK",
            )
        positions = grid if len(layout) == 4 else (self.split.n_prefix + grid[0] * grid[1],)
        return U.reshape(len(U), *(1,) * len(positions), -1).expand(-1, *positions, -1)

    def _fits(self, U: torch.Tensor) -> None:
        if U.shape[-1] != len(self.W):
            raise InputError(
                f"Coefficients have {U.shape[-1]} concepts, W has {len(self.W)}.",
                code="CL-INPUT-FEATURES",
            )


def _expanded(U: torch.Tensor, axes: range) -> bool:
    """Tell whether `U` repeats one value along each of `axes` without holding it twice."""
    return all(U.stride(axis) == 0 or U.shape[axis] == 1 for axis in axes)
