"""Concept attribution maps by implicit differentiation of the factorisation.

With the concepts W fixed, u(a) = argmin_{u ≥ 0} ½ |a − u W|² is defined by its
KKT conditions; differentiating these gives du/da in closed form on the support
(Fel et al., *CRAFT*, CVPR 2023, section 3.4), and the chain rule carries it to
the layer or through the network to the image. Only vector–Jacobian products are
formed, one for each concept.

At the layer the map is Grad-CAM for u_k: the gradient of u_k times the
activations, summed over channels, positive part. With pooled activations this is
CAM_k(x, y) = relu(J_k · A(x, y)) / (H W). At the input it is gradient × input
(difference to a baseline), optionally averaged over noisy copies (SmoothGrad,
Smilkov et al. 2017) or along a straight path (integrated gradients, Sundararajan
et al. 2017).
"""

from __future__ import annotations

__all__ = ["implicit_maps", "input_gradients"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conceptlab.errors import InputError, unknown_name
from conceptlab.maps.coefficients import CodeOf
from conceptlab.maps.upsample import enlarged
from conceptlab.models.joined import Joined
from conceptlab.seeds import torch_generator

LEVELS = ("layer", "input")
REDUCTIONS = ("positive", "absolute", "signed")


def implicit_maps(
    code: CodeOf,
    x: Any,
    size: tuple[int, ...] | None,
    *,
    level: str = "layer",
    smooth: int = 0,
    noise: float = 0.1,
    steps: int = 1,
    baseline: float = 0.0,
    reduce: str | None = None,
    seeds: Sequence[int] | None = None,
) -> torch.Tensor:
    """Compute maps of the gradient of each coefficient.

    Parameters
    ----------
    code : CodeOf
        The coefficients; the extractor must be differentiable.
    x : inputs of `split.g`
        A batch.
    size : tuple of int or None
        (height, width) of the images, (frames, height, width) of video; None for text.
    level : {"layer", "input"}
        Where to stop the chain rule.
    smooth : int
        Number of noisy copies to average over (level ``"input"``); 0 for none.
    noise : float
        Standard deviation of the noise, relative to the range of each image.
    steps : int
        Points on the path from `baseline` to the image; 1 is the gradient at
        the image.
    baseline : float
        Value of an empty image, in units of `x`.
    reduce : {"positive", "absolute", "signed"}, optional
        What to do with the sum over channels. By default its positive part at
        the layer, as in the paper, and its absolute value at the input.
    seeds : sequence of int, optional
        One for each image, for its noise, which then does not depend on the batch.

    Returns
    -------
    torch.Tensor of shape (n, k, *size), or (n, tokens, k) for text
    """
    if not code.differentiable:
        raise InputError(
            f"{type(code.extractor).__name__} has no as_module(), so its coefficients have no "
            "gradient. Use method='occlusion', 'rise' or 'upsample', or another extractor.",
            code="CL-INPUT-OPTION",
        )
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    reduce = reduce or ("positive" if level == "layer" else "absolute")
    if reduce not in REDUCTIONS:
        raise unknown_name("reduce", reduce, REDUCTIONS)
    with torch.inference_mode(False), torch.enable_grad():
        if level == "layer":
            return enlarged(code, _reduced(_at_layer(code, x), reduce), size)
        whole, x = x, _plain(x)
        if size is None or x is None:
            raise InputError(
                "Maps at the input need images alone: words have no gradient. Use level='layer'.",
                code="CL-INPUT-OPTION",
            )
        if smooth < 0 or steps < 1 or noise < 0:
            raise InputError(
                f"smooth >= 0, noise >= 0 and steps >= 1 are needed, got smooth={smooth}, "
                f"noise={noise}, steps={steps}.",
                code="CL-INPUT-RANGE",
            )
        total = torch.zeros(
            (len(x), len(code.concepts), *x.shape[1:]), dtype=x.dtype, device=x.device
        )
        spread = noise * (
            x.amax(axes := tuple(range(1, x.ndim)), keepdim=True) - x.amin(axes, keepdim=True)
        )
        generators = [torch_generator(s) for s in (range(len(x)) if seeds is None else seeds)]
        for _ in range(max(smooth, 1)):
            copy = x.detach()
            if smooth:
                draws = [torch.randn(x.shape[1:], generator=source) for source in generators]
                copy = copy + spread * torch.stack(draws).to(x)
            for step in range(steps):
                # The middle of each piece of the path; with one step, the image itself.
                share = 1.0 if steps == 1 else (step + 0.5) / steps
                point = baseline + share * (copy - baseline)
                total += input_gradients(code, point, whole)
        total *= (x.detach() - baseline)[:, None] / (max(smooth, 1) * steps)
        return _reduced(total.sum(2), reduce)


def input_gradients(code: CodeOf, x: torch.Tensor, whole: Any = None) -> torch.Tensor:
    """Compute du_k/dx for every chosen concept by one graph and k products.

    Parameters
    ----------
    code : CodeOf
        The coefficients.
    x : torch.Tensor of shape (n, channels, *size)
        Inputs.
    whole : Joined or mapping, optional
        What they are part of, where the model takes more or takes them by name.

    Returns
    -------
    torch.Tensor of shape (n, k, channels, *size)
    """
    leaf = x.detach().clone().requires_grad_(True)
    if isinstance(whole, Joined):
        values = code(whole.of(leaf))
    else:
        values = code(dict.fromkeys(whole, leaf) if isinstance(whole, Mapping) else leaf)
    # Concepts that no image of the batch holds have gradient zero; their pass is saved.
    gradients = torch.zeros((len(x), values.shape[1], *x.shape[1:]), dtype=x.dtype, device=x.device)
    if not values.requires_grad:
        raise _no_gradient(code)
    active = [k for k in range(values.shape[1]) if bool((values[:, k] != 0).any())]
    for place, k in enumerate(active):
        (found,) = torch.autograd.grad(
            values[:, k].sum(), leaf, retain_graph=place + 1 < len(active), allow_unused=True
        )
        if found is not None:
            gradients[:, k] = found
    return gradients


def _at_layer(code: CodeOf, x: Any) -> torch.Tensor:
    """Sum over channels of du_k/dA times A: (n, *positions, k)."""
    with torch.no_grad():
        positions = code.split.to_positions(code.split.g(x))
        if code.pool == "coefficients" and code.homogeneous:
            # Euler: the sum over channels of a du/da is u. No adjoint needs to be solved.
            return code.at_positions(positions) / math.prod(positions.shape[1:-1])
    leaf = positions.detach().clone().requires_grad_(True)
    values = code.of(leaf)
    if not values.requires_grad:
        raise _no_gradient(code)
    parts = []
    for k in range(values.shape[1]):
        (found,) = torch.autograd.grad(values[:, k].sum(), leaf, retain_graph=True)
        parts.append((found * leaf.detach()).sum(-1))
    return torch.stack(parts, dim=-1)


def _plain(x: Any) -> torch.Tensor | None:
    """Give the images of `x`, or its one tensor; None where it is more, or words."""
    if isinstance(x, torch.Tensor | Joined):
        return x if isinstance(x, torch.Tensor) else x.images
    value, *more = x.values()
    return None if more or not value.is_floating_point() else value


def _reduced(values: torch.Tensor, reduce: str) -> torch.Tensor:
    values = values.detach()
    if reduce == "positive":
        return values.clamp(min=0)
    return values.abs() if reduce == "absolute" else values


def _no_gradient(code: CodeOf) -> InputError:
    return InputError(
        f"The coefficients of {code.extractor!r} have no gradient: hard assignments have none, "
        "nor does what comes before if a preprocess leaves torch. Use method='upsample', "
        "'occlusion' or 'rise', or another extractor.",
        code="CL-INPUT-OPTION",
    )
