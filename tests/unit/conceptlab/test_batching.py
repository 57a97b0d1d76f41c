"""Batches cover every row once, and give way when memory runs out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.batching import BatchMemory, iter_batches, run_batched
from conceptlab.errors import InputError

pytestmark = pytest.mark.usefixtures("light_heap")


@given(st.integers(1, 40), st.integers(1, 50) | st.just("auto"), st.integers(1, 12))
def test_rows_are_covered_once_whatever_fits(n, batch_size, fits):
    seen = []

    def fn(start, stop):
        if batch_size == "auto" and stop - start > fits:
            raise torch.OutOfMemoryError("out of memory")
        seen.extend(range(start, stop))
        return stop - start

    memory = BatchMemory()
    parts = list(iter_batches(fn, n, batch_size=batch_size, memory=memory))
    assert seen == list(range(n))
    assert [start for start, _, _ in parts] == np.cumsum([0] + [v for *_, v in parts])[:-1].tolist()
    if batch_size == "auto" and n > fits:
        assert memory.fitted <= fits


@given(st.integers(1, 30), st.integers(1, 31))
def test_answer_does_not_depend_on_the_batch(n, batch_size):
    x = torch.arange(3.0 * n).view(n, 3)
    found = run_batched(lambda b: b.cumsum(1), x, batch_size=batch_size, device="cpu")
    assert torch.equal(found, x.cumsum(1))


def test_other_errors_and_the_last_row_pass_through():
    def broken(start, stop):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(iter_batches(broken, 4))

    def never(start, stop):
        raise MemoryError

    memory = BatchMemory()
    with pytest.raises(MemoryError):
        list(iter_batches(never, 4, memory=memory))
    assert memory.fitted == 1
    allocator = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"

    def old(start, stop):
        if stop - start > 1:
            raise RuntimeError(allocator)
        return start

    assert [value for *_, value in iter_batches(old, 3)] == [0, 1, 2]


def test_run_batched_gathers_where_asked():
    x = np.ones((5, 2), np.float32)
    found = run_batched(lambda b: b.sum(1), x, device="cpu", out_device="cpu")
    assert found.tolist() == [2.0] * 5
    with pytest.raises(InputError, match="no rows"):
        run_batched(lambda b: b, x[:0])
    with pytest.raises(InputError, match="batch_size must be 'auto'"):
        run_batched(lambda b: b, x, batch_size=0)


def test_progress_keeps_its_total_when_batches_shrink():
    steps = []

    def fn(start, stop):
        if stop - start > 4:
            raise torch.OutOfMemoryError("out of memory")

    list(iter_batches(fn, 200, progress=lambda done, total: steps.append((done, total))))
    assert steps[-1] == (4, 4)
