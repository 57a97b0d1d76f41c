"""Whether a cut is what it is taken for: what ``SplitModel.check`` measures beside h(g(x))."""

from __future__ import annotations

__all__ = ["check_alone", "check_layout", "distance"]

from collections.abc import Callable

import torch

from conceptlab.errors import SplitError
from conceptlab.models.faults import batch_error
from conceptlab.models.session import Inputs

_BATCHES_DIFFER = 5e-3  # what other kernels for other batch sizes may do, on a GPU


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest value of `other`."""
    one, other = one.float(), other.float()
    return float((one - other).abs().max()) / (float(other.abs().max()) + 1e-12)


def check_alone(
    answer: Callable[[Inputs], torch.Tensor], model: str, inputs: Inputs, tolerance: float
) -> None:
    """Compare answers within a batch with those for samples alone.

    Raises
    ------
    SplitError
        ``CL-SPLIT-BATCH``.
    """
    if inputs.batch_size < 2:
        inputs = inputs.rows(torch.tensor([0, 0])).map(_mirror_second)
    whole = answer(inputs)
    for number in range(min(inputs.batch_size, 3)):
        alone = answer(inputs.rows(torch.tensor([number])))
        worst = distance(alone, whole[number : number + 1])
        if worst > max(tolerance, _BATCHES_DIFFER):
            raise batch_error(model, worst)


def check_layout(
    axes: str, shape: tuple[int, ...], layer: str, moved: dict[int, int] | None
) -> None:
    """See that the axis read as channels is not one that follows the size of the input.

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYOUT``.
    """
    channel = axes.index("c")
    if len(axes) > 2 and moved and channel in moved:
        raise SplitError(
            f"Axis {channel} of the activations {shape} of layer {layer!r} is read as channels "
            f"(layout {axes!r}), but its length follows the size of the input, so it holds "
            "positions. Name the axes: SplitModel(..., layout='nchw'), 'nhwc', 'ntc' or 'nct'.",
            code="CL-SPLIT-LAYOUT",
        )


def _mirror_second(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point() or len(tensor) != 2:
        return tensor
    return torch.stack([tensor[0], tensor[1].flip(-1)])
