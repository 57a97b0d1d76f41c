"""The activation store: what goes in comes out, from memory and from disk."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conceptlab.errors import CheckpointError, InputError
from conceptlab.models import ActivationStore


@pytest.fixture
def rows():
    return np.random.default_rng(0).random((53, 6)).astype(np.float32)


def filled(store, rows, step=9):
    for start in range(0, len(rows), step):
        store.append(rows[start : start + step])
    return store.finish()


@pytest.mark.parametrize("where", ["memory", "spilled", "folder"])
def test_rows_come_back(where, rows, tmp_path):
    options = {
        "memory": {},
        "spilled": {"memory_limit": 200, "shard_size": 6 * 4 * 10},
        "folder": {"path": tmp_path / "a", "shard_size": 6 * 4 * 10},
    }[where]
    store = filled(ActivationStore(**options), rows)
    assert store.shape == (53, 6)
    assert store.on_disk == (where != "memory")
    np.testing.assert_array_equal(np.asarray(store), rows)
    np.testing.assert_array_equal(store[7:40:3], rows[7:40:3])
    np.testing.assert_array_equal(store[[52, 0, -2, 11]], rows[[52, 0, -2, 11]])
    np.testing.assert_array_equal(store[rows[:, 0] > 0.5], rows[rows[:, 0] > 0.5])
    np.testing.assert_array_equal(np.stack(list(store)), rows)
    assert store[5].shape == (6,)
    for _ in range(2):  # any number of times
        np.testing.assert_array_equal(np.concatenate(list(store.batches(8))), rows)
    assert [len(b) for b in store.batches(20)] == [20, 20, 13]
    with pytest.raises(IndexError):
        store[53]


@pytest.mark.parametrize("on_disk", [False, True])
def test_shuffled_batches_hold_each_row_once(on_disk, rows, tmp_path):
    path = tmp_path / "a" if on_disk else None
    store = filled(ActivationStore(path, shard_size=6 * 4 * 10), rows)
    first = np.concatenate(list(store.batches(8, shuffle=True, seed=1)))
    again = np.concatenate(list(store.batches(8, shuffle=True, seed=1)))
    other = np.concatenate(list(store.batches(8, shuffle=True, seed=2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, rows)
    order = np.lexsort(first.T)
    np.testing.assert_array_equal(first[order], rows[np.lexsort(rows.T)])


def test_batches_are_the_readers_own(rows):
    store = filled(ActivationStore(), rows, step=60)
    for batch in store.batches(8):
        batch[:] = 0
    np.testing.assert_array_equal(np.asarray(store), rows)
    mine = rows.copy()
    other = ActivationStore()
    other.append(mine)
    mine[:] = 0
    np.testing.assert_array_equal(np.asarray(other), rows)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_narrow_dtypes(dtype, error, rows, tmp_path):
    store = filled(ActivationStore(tmp_path / "a", dtype=dtype), rows)
    assert np.abs(store[:] - rows).max() < error
    assert store[:].dtype == np.float32
    size = sum(f.stat().st_size for f in (tmp_path / "a").glob("*.safetensors"))
    assert size < rows.nbytes / 2 + 200


def test_numbers_too_large_for_float16():
    with pytest.raises(InputError, match=r"too large for float16.*bfloat16"):
        ActivationStore(dtype="float16").append(np.full((1, 2), 1e6))
    with pytest.raises(InputError, match="NaN or infinity"):
        ActivationStore().append(np.array([[np.nan]]))


def test_reopened_after_a_kill(rows, tmp_path):
    store = ActivationStore(tmp_path / "a", shard_size=6 * 4 * 10, key="k")
    store.append(rows[:25])
    del store  # five rows were never durable
    again = ActivationStore(tmp_path / "a", shard_size=6 * 4 * 10, key="k")
    assert len(again) == 20
    assert not again.complete
    again.append(rows[20:])
    again.finish()
    final = ActivationStore(tmp_path / "a")
    assert final.complete
    np.testing.assert_array_equal(np.asarray(final), rows)
    with pytest.raises(InputError, match="complete"):
        final.append(rows)


def test_the_temporary_folder_vanishes(rows):
    store = filled(ActivationStore(memory_limit=1), rows)
    folder = store._folder
    assert folder.exists()
    np.testing.assert_array_equal(store[:], rows)
    del store
    gc.collect()
    assert not folder.exists()


def test_tensors_and_gradients(rows):
    store = ActivationStore()
    store.append(torch.as_tensor(rows).requires_grad_(True))
    np.testing.assert_array_equal(np.asarray(store), rows)


def test_refusals_by_message(rows, tmp_path):
    path = tmp_path / "a"
    filled(ActivationStore(path, key="one"), rows)
    with pytest.raises(CheckpointError, match=r"another model.*\[CL-CHECKPOINT-KIND\]"):
        ActivationStore(path, key="two")
    shard = next(path.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match="changed or truncated"):
        ActivationStore(path)[:]
    shard.unlink()
    with pytest.raises(CheckpointError, match="CL-CHECKPOINT-MISSING"):
        ActivationStore(path)[:]
    manifest = json.loads((path / "manifest.json").read_text())
    for change, message in (
        ({"format_version": 99}, "CL-CHECKPOINT-NEWER"),
        ({"kind": "Bank"}, "no activation store"),
        ({"shards": [{"name": "../x", "rows": 1, "sha256": ""}]}, "CL-CHECKPOINT-UNSAFE"),
        ({"shards": [3]}, "damaged"),
    ):
        (path / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(CheckpointError, match=message):
            ActivationStore(path)
    (tmp_path / "b").mkdir()
    Path(tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="CL-CHECKPOINT-TARGET"):
        ActivationStore(tmp_path / "b")
    store = ActivationStore()
    store.append(rows)
    for wrong, message in ((rows[:, :3], r"shape \(m, 6\)"), (rows[0], "CL-INPUT-RANK")):
        with pytest.raises(InputError, match=message):
            store.append(wrong)
    with pytest.raises(InputError, match="Unknown dtype"):
        ActivationStore(dtype="float64")
    with pytest.raises(InputError, match="batch_size"):
        next(store.batches(0))
    assert "53, 6" in repr(store)
