import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from conceptlab.arrays import (
    ArrayKind,
    as_floats,
    as_numpy,
    as_tensor,
    check_features,
    check_finite,
    like_input,
    real_array,
    resolve_device,
)
from conceptlab.errors import InputError

KINDS = {
    "float32 array": np.ones((3, 2), np.float32),
    "float64 array": np.ones((3, 2)),
    "float32 tensor": torch.ones(3, 2),
    "float64 tensor": torch.ones(3, 2, dtype=torch.float64),
    "bfloat16 tensor": torch.ones(3, 2, dtype=torch.bfloat16),
}


class Doubler(BaseEstimator):
    @like_input
    def transform(self, X):
        return as_tensor(X) * 2, as_numpy(X).argmax(axis=1)


@pytest.mark.parametrize("name", KINDS)
def test_like_in_like_out(name):
    X = KINDS[name]
    doubled, labels = Doubler().transform(X)
    assert type(doubled) is type(X)
    assert doubled.dtype == X.dtype
    assert float(doubled.sum()) == 12.0
    assert isinstance(labels, type(X))


def test_integers_compute_in_double_precision():
    assert ArrayKind.of(np.arange(3)).compute_dtype == torch.float64
    assert as_tensor([1, 2]).dtype == torch.float64


def test_bfloat16_computes_in_single_precision():
    assert as_tensor(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert as_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32


def test_read_only_and_reversed_arrays_are_taken():
    X = np.arange(4.0)
    X.flags.writeable = False
    assert as_tensor(X)[::1].tolist() == [0, 1, 2, 3]
    assert as_tensor(np.arange(4.0)[::-1]).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "got None. Give an array"),
        ("red", "got 'red'. Give an array"),
        ("r" * 200, "got a str. Give an array"),
        ({"a": 1}, "got {'a': 1}. Give an array"),
        ({1.0, 2.0}, "Give an array"),
        ([[1], [1, 2]], "rows of different lengths"),
        (np.array(["1", "2"]), "values of dtype <U1. Numbers convert by .astype(float)"),
        (np.array([[object()]]), "values of dtype object"),
        (np.ones(2) * 1j, "complex ones"),
        (torch.ones(2) * 1j, "complex ones"),
    ],
)
def test_what_is_no_array_of_numbers_is_told(given, words):
    takers = [as_tensor, as_floats, *([] if isinstance(given, torch.Tensor) else [real_array])]
    for take in takers:
        with pytest.raises(InputError) as caught:
            take(given, name="U")
        assert str(caught.value).startswith("U must hold real numbers")
        assert words in str(caught.value)
        assert caught.value.code == "CL-INPUT-TYPE"


def test_floats_are_a_copy_and_numbers_are_not():
    X = np.ones((2, 2))
    assert not np.shares_memory(as_floats(X), X)
    assert np.shares_memory(real_array(X), X)
    assert as_floats(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float64
    assert as_floats([True, False]).tolist() == [1.0, 0.0]


@given(st.integers(0, 5), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_the_first_bad_entry_is_named(place, value):
    X = np.zeros((2, 3))
    X.flat[place] = value
    where = np.unravel_index(place, X.shape)
    with pytest.raises(InputError, match=rf"the first at index \({where[0]}, {where[1]}\)") as info:
        check_finite(X)
    assert info.value.code == "CL-INPUT-NONFINITE"


def test_an_overflowing_sum_is_no_error():
    check_finite(np.full(4, np.finfo(np.float32).max, dtype=np.float32))


class TestCheckFeatures:
    @pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
    def test_counts_features(self, make):
        estimator = BaseEstimator()
        check_features(estimator, make(np.ones((4, 3))), reset=True)
        assert estimator.n_features_in_ == 3
        with pytest.raises(
            InputError, match="X has 2 features, but BaseEstimator is expecting 3"
        ) as info:
            check_features(estimator, make(np.ones((4, 2))), reset=False)
        assert info.value.code == "CL-INPUT-FEATURES"

    @pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
    @pytest.mark.parametrize(
        ("X", "code", "text"),
        [
            (np.ones(3), "CL-INPUT-RANK", "Reshape your data"),
            (np.ones((2, 2, 2)), "CL-INPUT-RANK", "got 3D array"),
            (np.ones((1, 3)), "CL-INPUT-FEW", "1 sample"),
            (np.array([[1.0, -2.0], [0, 0]]), "CL-INPUT-NEGATIVE", "the smallest is -2.*SemiNMF"),
            (np.array([[1.0, np.nan], [0, 0]]), "CL-INPUT-NONFINITE", r"index \(0, 1\)"),
        ],
    )
    def test_bad_matrices(self, make, X, code, text):
        with pytest.raises(InputError, match=text) as info:
            check_features(BaseEstimator(), make(X), reset=True, min_samples=2, non_negative=True)
        assert info.value.code == code


class TestDevice:
    def test_auto_follows_the_data(self):
        assert resolve_device("auto", like=torch.ones(1)) == torch.device("cpu")

    def test_unknown_device(self):
        with pytest.raises(InputError, match="device must be 'auto'"):
            resolve_device("gpu!")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
    def test_absent_device(self):
        with pytest.raises(InputError, match="sees 0 CUDA device.*device='auto'"):
            resolve_device("cuda")
