"""Shared set-up: one torch thread, and guards over global state."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CONCEPTLAB_PROGRESS", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
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
    """Fail when the test changed NumPy's or torch's global random state."""
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_before = torch.get_rng_state().clone()
    yield
    numpy_after = np.random.get_state()[1]  # noqa: NPY002
    assert np.array_equal(numpy_before, numpy_after), "numpy's global state moved"
    assert torch.equal(torch_before, torch.get_rng_state()), "torch's global state moved"


@pytest.fixture
def light_heap():
    """Let collections of garbage pass over what was there before: they take long otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
