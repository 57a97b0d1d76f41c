"""Run a function of concept coefficients on many masked copies, in bounded memory."""

from __future__ import annotations

__all__ = ["Evaluator", "check_coefficients", "resolve_target"]

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor, check_finite
from conceptlab.batching import AutoInt, BatchMemory, check_batch_size, iter_batches
from conceptlab.errors import InputError
from conceptlab.importance.scratch import Scratch

# Numbers that one batch of masked coefficients (or of what they decode to) may hold: on a
# CPU enough for a call's own cost not to count, on a GPU enough to fill it.
_CPU_NUMBERS, _GPU_NUMBERS = 2**21, 2**27


def check_coefficients(U: ArrayLike) -> torch.Tensor:
    """Validate coefficients of shape (n, *positions, k); give them as a tensor.

    Raises
    ------
    InputError
        Fewer than two axes, no image, no concept, not numeric, or not finite.
    """
    try:
        tensor = as_tensor(U).detach()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"U must be an array of numbers of shape (n, k) or (n, *positions, k): {error}.",
            code="CL-INPUT-TYPE",
        ) from error
    if tensor.ndim < 2:
        raise InputError(
            f"U must have shape (n, k) or (n, *positions, k), got {tuple(tensor.shape)}. For one "
            "image use U[None].",
            code="CL-INPUT-RANK",
        )
    if not tensor.numel():
        raise InputError(
            f"U of shape {tuple(tensor.shape)} holds no coefficient.", code="CL-INPUT-EMPTY"
        )
    check_finite(tensor, "U")
    return tensor


class Evaluator:
    """fn on batches: counts the rows, checks the answers, halves batches that do not fit.

    Parameters
    ----------
    fn : callable
        Maps coefficients (m, *positions, k) to outputs (m, n_outputs) or (m,).
        Where it has a method ``for_image(U_i)``, masked copies of one image go
        through the function of masks that it returns; with ``uses_scratch`` it also
        gets ``scratch=``, a :class:`~conceptlab.importance.scratch.Scratch`. Where a rest of
        the activations is kept, `fn` and ``for_image`` take it as ``rest=``.
    batch_size : int or "auto"
        Rows in a call of `fn`.
    inputs : sequence of n, optional
        What the images come from, in slices, where more than their coefficients counts: `fn`
        and ``for_image`` then take those of their rows as ``inputs=``.
    """

    def __init__(
        self, fn: Callable[..., Any], batch_size: AutoInt = "auto", inputs: Any = None
    ) -> None:
        if not callable(fn):
            raise InputError(
                "fn must be a function from coefficients (m, ..., k) to outputs (m, n_outputs), "
                f"got {type(fn).__name__}.",
                code="CL-INPUT-TYPE",
            )
        self.fn, self.inputs = fn, inputs
        self.batch_size = check_batch_size(batch_size)
        self.n_evaluations = 0
        self.precision = float(torch.finfo(torch.float32).eps)
        self._limit = 2**62
        self._scratch = Scratch()

    def __call__(self, U: torch.Tensor, rest: torch.Tensor | None = None) -> torch.Tensor:
        """Give fn(U) of shape (m, n_outputs), float64 on the CPU; of all images with `inputs`."""
        if rest is None and self.inputs is None:
            return self._batched(self.fn, U, U[0].numel())
        rows = torch.arange(len(U), device=U.device)

        def call(i: torch.Tensor) -> Any:
            part = slice(int(i[0]), int(i[-1]) + 1)
            options = {} if rest is None else {"rest": rest[part]}
            return self.fn(U[part], **options, **self._beside(part))

        return self._batched(call, rows, (U if rest is None else rest)[0].numel())

    def masked(
        self,
        U_i: torch.Tensor,
        masks: torch.Tensor,
        target: int | None = None,
        rest: torch.Tensor | None = None,
        image: int = 0,
    ) -> torch.Tensor:
        """Evaluate one image's coefficients under masks (m, k).

        With a `rest` (*positions, p), masks of k columns hold it and a column more masks it.
        `image` is its number among the inputs, where there are any.

        Returns
        -------
        torch.Tensor of shape (m, n_outputs), or (m,) with a `target`
        """
        wanted = None if target is None else torch.full((len(masks),), target)
        width = max(U_i.numel(), int(getattr(self.fn, "row_numbers", 0)))
        prepare = getattr(self.fn, "for_image", None)
        if prepare is not None:
            options = self._beside(slice(image, image + 1))
            if getattr(self.fn, "uses_scratch", False):
                options["scratch"] = self._scratch
            if rest is not None:
                options["rest"] = rest
                masks = _held(masks, U_i.shape[-1])
            return self._batched(prepare(U_i, **options), masks, width, wanted)
        shape = (-1, *(1,) * (U_i.ndim - 1), masks.shape[1])
        beside = self._beside(slice(image, image + 1))
        return self._batched(
            lambda part: self.fn(U_i * part.reshape(shape), **beside), masks, width, wanted
        )

    def grid(
        self,
        U: torch.Tensor,
        masks: torch.Tensor,
        columns: torch.Tensor,
        target: torch.Tensor,
        rest: torch.Tensor | None = None,
        first: int = 0,
    ) -> torch.Tensor:
        """Evaluate every image under every mask.

        Parameters
        ----------
        U : torch.Tensor of shape (q, *positions, k)
            Coefficients of some images.
        masks : torch.Tensor of shape (m, k)
            Masks; concept j of image i gets column ``columns[i, j]``.
        columns : torch.Tensor of shape (q, k), int64
            Which column a concept gets.
        target : torch.Tensor of shape (q,), int64
            The output that counts for each image.
        rest : torch.Tensor of shape (q, *positions, p), optional
            What the concepts do not code; held, or masked by a last column.
        first : int
            Number of the first of these images among the inputs, where there are any.

        Returns
        -------
        torch.Tensor of shape (q, m), float64
        """
        positions = U.shape[1:-1]
        axes = range(1, 1 + len(positions))
        alike = all(
            part.stride(axis) == 0 or part.shape[axis] == 1
            for part in (U, rest)
            if part is not None
            for axis in axes
        )
        if not alike or self.inputs is not None:
            return torch.stack(
                [
                    self.masked(
                        U[i],
                        masks[:, columns[i]],
                        int(target[i]),
                        rest=None if rest is None else rest[i],
                        image=first + i,
                    )
                    for i in range(len(U))
                ]
            )
        if rest is not None:
            return self._pooled_grid(U, masks, columns, target, rest)
        # One value an image and concept: masks of several images go into one call.
        q, m = len(U), len(masks)
        single = U
        for _ in positions:
            single = single[:, 0]
        rows = (masks[:, columns] * single).transpose(0, 1).reshape(q * m, -1)
        rows = rows.reshape(q * m, *(1,) * len(positions), -1).expand(-1, *positions, -1)
        # What an expanded view decodes to is expanded too, so it takes little memory.
        width = max(rows.shape[-1], int(getattr(self.fn, "row_numbers", 0)) // 8)
        return self._batched(self.fn, rows, width, target.repeat_interleave(m)).reshape(q, m)

    def _beside(self, part: slice) -> dict[str, Any]:
        return {} if self.inputs is None else {"inputs": self.inputs[part]}

    def _pooled_grid(
        self,
        U: torch.Tensor,
        masks: torch.Tensor,
        columns: torch.Tensor,
        target: torch.Tensor,
        rest: torch.Tensor,
    ) -> torch.Tensor:
        """Do the same for values that are alike at all positions, with a rest."""
        positions, q, m, k = U.shape[1:-1], len(U), len(masks), U.shape[-1]
        first: tuple[Any, ...] = (slice(None), *(0,) * len(positions))
        codes, left = U[first], rest[first]

        def spread(rows: torch.Tensor) -> torch.Tensor:
            rows = rows.reshape(len(rows), *(1,) * len(positions), -1)
            return rows.expand(-1, *positions, -1)

        def call(pairs: torch.Tensor) -> Any:
            image, row = pairs // m, pairs % m
            some = _held(masks[row[:, None], columns[image]], k)
            return self.fn(
                spread(some[:, :k] * codes[image]), rest=spread(some[:, k:] * left[image])
            )

        pairs = torch.arange(q * m, device=U.device)
        width = max(left.shape[-1], int(getattr(self.fn, "row_numbers", 0)) // 8)
        return self._batched(call, pairs, width, target.repeat_interleave(m)).reshape(q, m)

    def _batched(
        self,
        call: Callable[[torch.Tensor], Any],
        rows: torch.Tensor,
        width: int,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Call for batches of rows; keep all outputs, or the wanted one of each row."""
        memory = BatchMemory()
        budget = _CPU_NUMBERS if rows.device.type == "cpu" else _GPU_NUMBERS
        most = min(max(16, budget // max(1, width)), self._limit)
        # Batches of one size rather than full ones and a rest.
        memory.fitted = started = math.ceil(len(rows) / math.ceil(len(rows) / most))

        def step(start: int, stop: int) -> torch.Tensor:
            columns = None if wanted is None else wanted[start:stop]
            return self._check(call(rows[start:stop]), stop - start, columns)

        with torch.no_grad():
            batches = iter_batches(
                step,
                len(rows),
                batch_size=self.batch_size,
                device=rows.device,
                memory=memory,
                progress=False,
            )
            parts = [values for _, _, values in batches]
        if memory.fitted < started:
            self._limit = memory.fitted
        self.n_evaluations += len(rows)
        return torch.cat(parts)

    def _check(self, answer: Any, m: int, wanted: torch.Tensor | None) -> torch.Tensor:
        if not isinstance(answer, torch.Tensor | np.ndarray):
            raise InputError(
                "fn must return a tensor or array of shape (m, n_outputs), got "
                f"{type(answer).__name__}.",
                code="CL-INPUT-TYPE",
            )
        values = answer.detach() if isinstance(answer, torch.Tensor) else as_tensor(answer)
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or len(values) != m or not values.shape[1]:
            raise InputError(
                f"fn must return shape (m, n_outputs) = ({m}, n_outputs), got "
                f"{tuple(answer.shape)}. Average positions and batch nothing else inside fn.",
                code="CL-INPUT-SHAPE",
            )
        if values.is_floating_point():
            self.precision = float(torch.finfo(values.dtype).eps)
        if wanted is not None:  # before anything else is done to outputs that nobody asked for
            values = values.gather(1, wanted[:, None].to(values.device))[:, 0]
        values = values.to("cpu", torch.float64, copy=True)  # `answer` may lie in the scratch
        check_finite(values, "fn(U)")
        return values


def _held(masks: torch.Tensor, k: int) -> torch.Tensor:
    """Give masks (m, k) a last column of ones, which holds the rest; (m, k + 1) stay."""
    if masks.shape[1] > k:
        return masks
    return torch.cat([masks, masks.new_ones(len(masks), 1)], dim=1)


def resolve_target(target: Any, outputs: torch.Tensor | int, n: int) -> torch.Tensor:
    """Turn `target` into one output's index for each image.

    Parameters
    ----------
    target : None, int, sequence of int, or "predicted"
        None stands for the only output there is.
    outputs : torch.Tensor of shape (n, n_outputs), or int
        Outputs at the full coefficients (for ``"predicted"``), or their number.
    n : int
        Number of images.

    Returns
    -------
    torch.Tensor of shape (n,), int64

    Raises
    ------
    InputError
        ``CL-INPUT-TARGET``; names the number of outputs.
    """
    n_outputs = outputs if isinstance(outputs, int) else int(outputs.shape[1])
    choice = (
        f"fn has {n_outputs} outputs: give target as an integer from 0 to {n_outputs - 1}, as one "
        f"such integer for each of the {n} images, or as 'predicted'."
    )

    def error(what: str) -> InputError:
        return InputError(f"{what} {choice}", code="CL-INPUT-TARGET")

    if target is None:
        if n_outputs == 1:
            return torch.zeros(n, dtype=torch.int64)
        raise error("No target was given.")
    if isinstance(target, str):
        if target != "predicted":
            raise error(f"Unknown target {target!r}.")
        if isinstance(outputs, int):
            raise error("'predicted' needs the outputs.")
        return outputs.argmax(1)
    indices = as_numpy(target)
    if indices.dtype.kind not in "iu":
        raise error(f"target must be integer, got {target!r:.80} of type {type(target).__name__}.")
    if indices.shape not in ((), (n,)):
        raise error(f"target has shape {indices.shape}, but there are {n} images.")
    indices = np.broadcast_to(indices, (n,)).astype(np.int64)
    outside = (indices < 0) | (indices >= n_outputs)
    if outside.any():
        raise error(f"target {int(indices[outside][0])} is out of range.")
    return torch.from_numpy(indices.copy())
