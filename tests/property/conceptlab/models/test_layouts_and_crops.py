"""Layouts are permutations; crops stay inside; the answer does not depend on batches."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.maps import energy_pointing
from conceptlab.models import ActivationStore, Patches
from conceptlab.models.layout import find_layout

sizes = st.integers(1, 7)


@given(axes=st.sampled_from(["nc", "nchw", "nhwc", "ntc", "tnc", "nct", "ncdhw"]), data=st.data())
def test_from_positions_undoes_to_positions(axes, data):
    shape = tuple(data.draw(sizes) for _ in axes)
    layout = find_layout(shape, axes.index("n"), image_size=None, axes=axes)
    a = torch.arange(float(np.prod(shape))).reshape(shape)
    rows = layout.to_positions(a)
    assert rows.shape[0] == shape[axes.index("n")]
    assert rows.shape[-1] == shape[axes.index("c")]
    assert torch.equal(layout.from_positions(rows), a)


@given(rows=st.integers(1, 14), columns=st.integers(1, 14), prefix=st.integers(0, 5))
def test_token_grids_from_a_seen_map(rows, columns, prefix):
    tokens = prefix + rows * columns
    layout = find_layout(
        (2, tokens, 8),
        0,
        image_size=(rows * 4, columns * 4),
        seen_grids=[(rows, columns)],
        moved=lambda: {1: prefix + 4 * rows * columns},
    )
    assert (layout.n_prefix, layout.grid) == (prefix, (rows, columns))
    values = torch.arange(2 * tokens * 3).reshape(2, tokens, 3)
    plane = layout.spatial(values)
    assert plane.shape == (2, rows, columns, 3)
    assert torch.equal(plane[1, rows - 1, columns - 1], values[1, -1])


@given(
    mode=st.sampled_from(["grid", "random"]),
    side=st.integers(1, 20),
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    seed=st.integers(0, 2**31 - 1),
)
def test_crops_lie_inside_the_image(mode, side, height, width, seed):
    places = Patches(mode, side, n_crops=5, seed=seed).places(2, height, width)
    assert len(places) >= 1
    _, y, x, sides = places.T
    assert (y >= 0).all()
    assert (x >= 0).all()
    assert (y + sides <= height).all()
    assert (x + sides <= width).all()
    if mode == "grid":
        step = max(int(0.8 * side), 1)
        assert len(places) == ((height - side) // step + 1) * ((width - side) // step + 1)


@given(
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    batch=st.integers(1, 12),
    shard=st.integers(1, 200),
    limit=st.sampled_from([1, 100, 10**9]),
)
def test_a_store_is_its_rows(pieces, batch, shard, limit):
    rows = np.random.default_rng(0).random((sum(pieces), 3)).astype(np.float32)
    store = ActivationStore(memory_limit=limit, shard_size=shard)
    start = 0
    for count in pieces:
        store.append(rows[start : start + count])
        start += count
    np.testing.assert_array_equal(np.concatenate(list(store.batches(batch))), rows)
    np.testing.assert_array_equal(store[:], rows)
    store.finish()
    shuffled = np.concatenate(list(store.batches(batch, shuffle=True, seed=0)))
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(rows, axis=0))


@given(seed=st.integers(0, 10**6))
def test_energy_is_shared_between_a_mask_and_the_rest(seed):
    draw = np.random.default_rng(seed)
    maps, mask = draw.normal(size=(3, 2, 5, 5)), draw.random((3, 5, 5)) < 0.5
    inside, outside = energy_pointing(maps, mask), energy_pointing(maps, ~mask)
    np.testing.assert_allclose(inside + outside, 1)
