"""Seeds without global state, and a guard for code that draws from it.

``random_state`` follows scikit-learn (None, an int, a ``RandomState``) and also
takes a :class:`numpy.random.Generator`. None draws fresh entropy from the
operating system; NumPy's and torch's global generators are never used.
"""

from __future__ import annotations

__all__ = ["RandomState", "draw_seed", "numpy_generator", "quiet_randomness", "torch_generator"]

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch

from conceptlab.errors import InputError

RandomState = int | np.integer | np.random.RandomState | np.random.Generator | None
_LIMIT = 2**31 - 1
_ONE_AT_A_TIME = threading.RLock()


def draw_seed(random_state: RandomState = None) -> int:
    """Draw one integer seed in ``[0, 2**31 - 1)``.

    An int is its own seed, so that equal ints give equal results; generators
    are advanced; None gives a new seed at each call. Estimators keep the number
    (``seed_``), so that any result can be had again.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        See :data:`RandomState`.

    Returns
    -------
    int

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
    """Make a NumPy generator.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        See :func:`draw_seed`.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> bool(numpy_generator(0).random() == numpy_generator(0).random())
    True
    """
    return np.random.default_rng(draw_seed(random_state))


def torch_generator(
    random_state: RandomState = None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Make a torch generator.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        See :func:`draw_seed`.
    device : torch.device or str
        Where it draws.

    Returns
    -------
    torch.Generator

    Examples
    --------
    >>> torch.rand(2, generator=torch_generator(0)).round(decimals=2)
    tensor([0.5000, 0.7700])
    """
    return torch.Generator(device=device).manual_seed(draw_seed(random_state))


@contextlib.contextmanager
def quiet_randomness(seed: int | None = None) -> Iterator[None]:
    """Give Python's, NumPy's and torch's global generators back as they were.

    For code of others that draws from them, such as layers that are initialised or
    dropout. One thread at a time: two that save and restore in turn would each bring
    back what the other had made of the state.

    Parameters
    ----------
    seed : int, optional
        What the three start from inside; by default they go on from where
        they are.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with quiet_randomness(0):
    ...     first = torch.rand(3)
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    with _ONE_AT_A_TIME:
        state = random.getstate()
        numpy_state = np.random.get_state()  # noqa: NPY002 - saved, so that it can be restored
        # A device that was never used has no state to lose, and waking it takes time.
        used = torch.cuda.is_initialized() or (seed is not None and torch.cuda.is_available())
        try:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if used else []):
                if seed is not None:
                    random.seed(seed)
                    np.random.seed(seed % 2**32)  # noqa: NPY002 - inside the guard
                    torch.manual_seed(seed)
                yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - restored
