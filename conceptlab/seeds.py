"""Seeds without global state.

``random_state`` follows scikit-learn (None, an int, a ``RandomState``) and also
takes a :class:`numpy.random.Generator`. None draws fresh entropy from the
operating system; NumPy's and torch's global generators are never used.
"""

from __future__ import annotations

__all__ = ["RandomState", "draw_seed", "numpy_generator", "torch_generator"]

import numpy as np
import torch

from conceptlab.errors import InputError

RandomState = int | np.integer | np.random.RandomState | np.random.Generator | None
_LIMIT = 2**31 - 1


def draw_seed(random_state: RandomState = None) -> int:
    """Draw one integer seed in ``[0, 2**31 - 1)``.

    An int is its own seed, so that equal ints give equal results; generators
    are advanced; None gives a new seed at each call. Estimators keep the number
    (``seed_``), so that any result can be had again.

    Examples
    --------
    >>> draw_seed(7)
    7
    """
    if random_state is None:
        return int(np.random.default_rng().integers(_LIMIT))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(_LIMIT))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(_LIMIT))
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        if random_state >= 0:
            return int(random_state)
        raise InputError(f"random_state must be >= 0, got {random_state}.", code="CL-INPUT-RANGE")
    raise InputError(
        "random_state must be None, an int, a numpy RandomState or a numpy Generator, "
        f"got {type(random_state).__name__}.",
        code="CL-INPUT-TYPE",
    )


def numpy_generator(random_state: RandomState = None) -> np.random.Generator:
    """Make a NumPy generator from `random_state`."""
    return np.random.default_rng(draw_seed(random_state))


def torch_generator(
    random_state: RandomState = None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Make a torch generator on `device` from `random_state`."""
    return torch.Generator(device=device).manual_seed(draw_seed(random_state))
