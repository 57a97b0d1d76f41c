"""Shared set-up: as many torch threads as OMP_NUM_THREADS says, and guards over global state."""

import gc
import os
import random
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CONCEPTLAB_PROGRESS", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import rich.style  # noqa: F401 (its first import, by scikit-learn, draws from Python's state)
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# A runner in the background may have set it to be ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile(
    # The same examples in every run, so that a change is judged by what it changed.
    "conceptlab",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("conceptlab")


@pytest.fixture
def global_state_untouched():
    """Fail when the test changed Python's, NumPy's or torch's global random state."""
    python_before = random.getstate()
    # With the place in it: the numbers themselves change after 624 draws only.
    numpy_before = repr(np.random.get_state(legacy=False))  # noqa: NPY002
    torch_before = torch.get_rng_state().clone()
    yield
    assert random.getstate() == python_before, "Python's global state moved"
    assert repr(np.random.get_state(legacy=False)) == numpy_before, (  # noqa: NPY002
        "numpy's global state moved"
    )
    assert torch.equal(torch_before, torch.get_rng_state()), "torch's global state moved"


@pytest.fixture
def light_heap():
    """Let collections of garbage pass over what was there before: they take long otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
