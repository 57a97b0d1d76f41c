"""What becomes of the part of an activation that the concepts do not code.

With A = U W + R, an output under masks m of the concepts is

- ``"drop"``: h((m∘U) W), the published form: the rest R is taken away. It is a function of
  the concepts alone, and at m = 1 another one than the model wherever R matters;
- ``"hold"``: h(R + (m∘U) W): the rest stays. At m = 1 it is the model's own output, at m = 0
  what the model says of the rest;
- ``"player"``: h(r R + (m∘U) W) with one more mask r, so that the rest has an importance of
  its own. All masks at zero give h(0) for every extractor.

An extractor's offset (PCA's mean) belongs to the rest wherever that is kept.
"""

from __future__ import annotations

__all__ = ["REMAINDERS", "rest_of"]

from typing import Any

import torch

from conceptlab.arrays import ArrayLike, as_tensor, check_finite
from conceptlab.errors import InputError
from conceptlab.parameters import OneOf

REMAINDERS = ("drop", "hold", "player")


def rest_of(
    fn: Any, U: torch.Tensor, activations: ArrayLike, remainder: str
) -> torch.Tensor | None:
    """Compute R = A - U W, or None where it is dropped.

    Parameters
    ----------
    fn : HeadOnCoefficients
        Has the bank; any callable where the rest is dropped.
    U : torch.Tensor of shape (n, *positions, k)
        Coefficients.
    activations : array-like of shape (n, *positions, p), or None
        A, channels last.
    remainder : {"drop", "hold", "player"}
        What becomes of R.

    Returns
    -------
    torch.Tensor of shape (n, *positions, p), or None

    Raises
    ------
    InputError
        Unknown `remainder`, no activations, or a function without a bank.
    """
    OneOf(*REMAINDERS).check("remainder", remainder)
    if remainder == "drop":
        return None
    if activations is None:
        raise InputError(
            f"remainder={remainder!r} needs activations=, the layer's activations (n, *positions, "
            "p) that U codes: what the concepts leave of them is kept. They were not given. Use "
            "remainder='drop' to go without.",
            code="CL-INPUT-OPTION",
        )
    if not hasattr(fn, "rest"):
        raise InputError(
            f"remainder={remainder!r} needs a function that knows its bank, such as "
            f"HeadOnCoefficients; got {type(fn).__name__}. Use remainder='drop' to go without.",
            code="CL-INPUT-TYPE",
        )
    A = as_tensor(activations).detach()
    check_finite(A, "activations")
    if A.shape[:-1] != U.shape[:-1]:
        raise InputError(
            f"activations must have shape (n, *positions, p) with (n, *positions) = "
            f"{tuple(U.shape[:-1])} as U has, got {tuple(A.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    found: torch.Tensor = fn.rest(U, A)
    return found
