"""Nested values as JSON and arrays: what is packed comes back, in both dialects."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.bank import ConceptBank
from conceptlab.bank.form import BANK_FORM
from conceptlab.errors import CheckpointError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.trees import pack, unpack

KEYS = st.one_of(
    st.text(max_size=4),
    st.sampled_from(["$array", "$tuple", "__dict__", "__tensor__", "a/b", "0"]),
    st.integers(-3, 3),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from([(), (2,), (0, 3), (2, 1)]).map(lambda s: np.ones(s, np.float32)),
    st.sampled_from([torch.float16, torch.bfloat16, torch.int64, torch.bool]).map(
        lambda kind: torch.ones(2, 2, dtype=kind).T
    ),
    st.just(torch.tensor(2.5)),
    st.just(np.array(["a", "bc"])),
    st.just(np.array(["a", "bc"], dtype=object)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)


def equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        assert [type(key) for key in a] == [type(key) for key in b]
        return all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@given(TREES)
def test_what_is_packed_comes_back(tree):
    values, arrays = pack(tree)
    assert equal(tree, unpack(json.loads(json.dumps(values, allow_nan=False)), arrays))


def test_it_comes_back_through_a_file(tmp_path):
    tree = {"a/b": torch.tensor(1.5), "a": {"b": np.array(2)}, 3: (None, float("nan"))}
    values, arrays = pack(tree, "state")
    assert len(arrays) == 3
    write_bundle(tmp_path / "x", Bundle("X", {"tree": values}, arrays))
    read = read_bundle(tmp_path / "x", "X")
    assert equal(tree, unpack(read.data["tree"], read.tensors))


def test_the_dialect_of_old_states_is_read():
    arrays = {"t0": np.zeros(1), "t1": np.array([16320], np.int16)}
    old = {
        "__dict__": [
            [0, {"__tuple__": [{"__tensor__": ["t0", "float64", []]}, {"__float__": "-inf"}]}],
            ["n", [{"__tensor__": ["t0", "numpy", [1]]}, {"__tensor__": ["t1", "bfloat16", [1]]}]],
        ]
    }
    found = unpack(old, arrays)
    half = torch.tensor([1.5], dtype=torch.bfloat16)
    expected = {
        0: (torch.tensor(0.0, dtype=torch.float64), -math.inf),
        "n": [np.zeros(1), half],
    }
    assert equal(found, expected)


def test_further_classes_have_forms_and_all_else_is_refused():
    bank = ConceptBank(np.eye(2), ["a", "b"], space=None, parents=[None, 0], meta={"n": 1})
    values, arrays = pack([bank], forms=[BANK_FORM])
    found = unpack(values, arrays, [BANK_FORM])[0]
    assert (found, found.meta) == (bank, bank.meta)
    for value in (bank, print, {"a": {1, 2}}, np.array([None]), np.array([["a"]])):
        with pytest.raises(CheckpointError, match="cannot be saved"):
            pack(value)
