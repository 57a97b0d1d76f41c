"""What can be wrong with a cut, in words."""

from __future__ import annotations

__all__ = [
    "BATCH",
    "NOISE",
    "SplitWarning",
    "batch_error",
    "folded_error",
    "mismatch_error",
    "one_size",
    "runs_error",
]

from torch import nn
from torch.jit import ScriptModule

from conceptlab.errors import SplitError


class SplitWarning(UserWarning):
    """Something about a model or its cut makes what is computed with it doubtful."""


BATCH = (
    "its answer for a sample depends on the others in its batch (statistics of the batch, a "
    "softmax along the wrong axis, or the like), so that no figure belongs to one sample"
)

NOISE = (
    "two passes of the same input differ, so it draws random numbers in evaluation mode; switch "
    "that off, or no figure can be trusted"
)


def batch_error(model: str, worst: float) -> SplitError:
    """Build the error for answers that hang on the batch."""
    return SplitError(
        f"{model} answers otherwise for a sample alone than within its batch, by "
        f"{worst:.3g} of the largest output: {BATCH}. Mend the model, for batch norms by "
        "track_running_stats=True and for a softmax by its axis, or give one sample at a time.",
        code="CL-SPLIT-BATCH",
    )


def folded_error(layer: str, shape: tuple[int, ...]) -> SplitError:
    """Build the error for activations without an axis of the samples."""
    return SplitError(
        f"Layer {layer!r} gives activations of shape {shape} for one sample, and no axis of "
        "them is as long as there are samples: positions (windows, frames) are folded into it, or "
        "they do not depend on the input. Cut at the block around it.",
        code="CL-SPLIT-LAYOUT",
    )


def runs_error(model: nn.Module, layer: str, runs: int) -> SplitError:
    """Build the error for a layer that runs several times, or never."""
    path = layer.split(".")
    names = [".".join(path[: end + 1]) for end in range(len(path))]
    scripted = [name for name in names if isinstance(model.get_submodule(name), ScriptModule)]
    if scripted:
        return SplitError(
            f"Layer {layer!r} is part of a TorchScript program, {scripted[0]!r}, which runs as a "
            "whole: nothing is seen or changed inside it. Cut before or after it, or put the "
            "Python module from before torch.jit.script there.",
            code="CL-SPLIT-RUNS",
        )
    if runs:
        outer = layer.rpartition(".")[0]
        return SplitError(
            f"Layer {layer!r} runs {runs} times in one pass, so its activations are not one "
            f"tensor. Cut at a layer that runs once: {f'perhaps {outer!r}, ' if outer else ''}the "
            "block around it. SplitModel.suggest(model, example) lists the layers that run once.",
            code="CL-SPLIT-RUNS",
        )
    return SplitError(
        f"Layer {layer!r} does not run in a pass of {type(model).__name__}. It may be used in "
        "training only, be called by its forward method or through its weights, or be fused by "
        "torch (torch.backends.mha.set_fastpath_enabled(False) switches that off). "
        "SplitModel.suggest(model, example) lists the layers that run.",
        code="CL-SPLIT-RUNS",
    )


def one_size(model: str, layout: str, error: Exception) -> str:
    """Say that the layout could not be looked at by an input of another size."""
    return (
        f"{model} takes inputs of one size only ({error}), so whether its activations have the "
        f"layout {layout!r} was not checked by another size. Name it if it is another: layout=."
    )


def mismatch_error(
    layer: str, worst: float, tolerance: float, *, noisy: bool, several: bool
) -> SplitError:
    """Build the error for h(g(x)) that differs from f(x), with the likely cause."""
    if noisy:
        why = (
            "Two passes of the same input differ as well, so the model draws random numbers in "
            "evaluation mode; switch that off."
        )
    elif several:
        why = (
            "The layer returns several tensors, of which the first counts as activations, but the "
            "model uses the others too. Cut at a layer inside it, which returns one."
        )
    else:
        outer = layer.rpartition(".")[0]
        why = (
            "Likely causes: values go round the layer (a skip connection, an attention mask, "
            "features joined later); cut after the block where they join"
            f"{f', perhaps {outer!r}' if outer else ''}, or pass the inputs too: "
            "h(a, inputs=x), and CRAFT.fit(images, inputs=...) for what goes beside images. Or "
            "samples of a batch influence each other."
        )
    return SplitError(
        f"h(g(x)) differs from f(x) at layer {layer!r}: by {worst:.3g} of the largest output, "
        f"allowed is {tolerance:.3g}. {why}",
        code="CL-SPLIT-MISMATCH",
    )
