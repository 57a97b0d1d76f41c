"""What can be wrong with a cut, in words."""

from __future__ import annotations

__all__ = ["mismatch_error", "runs_error"]

from torch import nn

from conceptlab.errors import SplitError


def runs_error(model: nn.Module, layer: str, runs: int) -> SplitError:
    """Build the error for a layer that runs several times, or never."""
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
            "h(a, inputs=x). Or samples of a batch influence each other."
        )
    return SplitError(
        f"h(g(x)) differs from f(x) at layer {layer!r}: by {worst:.3g} of the largest output, "
        f"allowed is {tolerance:.3g}. {why}",
        code="CL-SPLIT-MISMATCH",
    )
