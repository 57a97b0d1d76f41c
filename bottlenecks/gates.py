"""Gates that are open or shut: binary Gumbel samples, their temperature, and a budget.

A gate with logit l is open with probability sigmoid(l). A sample is ``l + noise > 0`` with
logistic noise, the difference of two Gumbel variables; its relaxation at temperature T is
``sigmoid((l + noise) / T)``.

References
----------
Jang et al., Categorical Reparameterization with Gumbel-Softmax, ICLR 2017.
Maddison et al., The Concrete Distribution, ICLR 2017, section 3.3 (binary).
Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013 (straight
through).
"""

from __future__ import annotations

__all__ = ["budget_threshold", "gumbel", "sample_gates", "temperatures"]

from typing import Any

import numpy as np
import torch

from conceptlab.errors import InputError

_TINY = 1e-7


def gumbel(shape: Any, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Draw standard Gumbel noise.

    Parameters
    ----------
    shape : tuple of int
    generator : torch.Generator
        On the CPU or the device of `like`.
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    Tensor of `shape`
    """
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return -torch.log(-torch.log(uniform.clamp(_TINY, 1 - _TINY))).to(like)


def sample_gates(
    logits: torch.Tensor, temperature: float, generator: torch.Generator, *, hard: bool = True
) -> torch.Tensor:
    """Draw gates that have a gradient.

    Parameters
    ----------
    logits : Tensor
        Any shape; a gate is open with probability ``sigmoid(logits)``.
    temperature : float
        Of the relaxation, above 0.
    generator : torch.Generator
    hard : bool
        Exactly 0 or 1, with the gradient of the relaxation (straight through); otherwise the
        relaxation itself, in (0, 1).

    Returns
    -------
    Tensor, shape of `logits`

    Examples
    --------
    >>> draws = sample_gates(torch.zeros(1000), 0.5, torch.Generator().manual_seed(0))
    >>> sorted(set(draws.tolist())), 0.45 < float(draws.mean()) < 0.55
    ([0.0, 1.0], True)
    """
    noise = gumbel(logits.shape, generator, logits) - gumbel(logits.shape, generator, logits)
    noisy = logits + noise
    soft = torch.sigmoid(noisy / temperature)
    if not hard:
        return soft
    # (1 - soft) + soft would not be 1 in floats, so the zero is added, not the difference.
    return (noisy > 0).to(soft) + (soft - soft.detach())


def temperatures(schedule: Any, n: int) -> np.ndarray:
    """Lay a temperature out over n steps.

    Parameters
    ----------
    schedule : float, or (first, last)
        Constant, or falling geometrically.
    n : int

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    InputError
        Not one or two finite numbers above 0 (``CL-INPUT-RANGE``).

    Examples
    --------
    >>> temperatures((1.0, 0.25), 3).tolist()
    [1.0, 0.5, 0.25]
    """
    try:
        ends = np.atleast_1d(np.asarray(schedule, dtype=np.float64))
    except (TypeError, ValueError):
        ends = np.empty(0)
    if ends.shape not in ((1,), (2,)) or not np.isfinite(ends).all() or (ends <= 0).any():
        raise InputError(
            f"temperature must be a number above 0, or (first, last), got {schedule!r}.",
            code="CL-INPUT-RANGE",
        )
    return np.geomspace(ends[0], ends[-1], n)


def budget_threshold(margins: torch.Tensor, sparsity: float) -> float:
    """Find the threshold that shuts a given share of all gates.

    Parameters
    ----------
    margins : Tensor of shape (n, k)
        A gate is open where its margin lies above the threshold.
    sparsity : float
        Share that is to be shut, in [0, 1).

    Returns
    -------
    float
        At ``sparsity=0`` just below the least margin; otherwise a margin, so that exactly
        ``ceil(sparsity n k)`` gates are shut where no margins are equal.

    Examples
    --------
    >>> budget_threshold(torch.tensor([[3.0, 1.0], [2.0, 4.0]]), 0.5)
    2.0
    """
    flat = margins.detach().reshape(-1)
    rank = int(np.ceil(sparsity * flat.numel()))
    if rank == 0:
        least = flat.min()
        return float(torch.nextafter(least, least - 1))
    return float(torch.kthvalue(flat, rank).values)
