"""Public functions that map arrays to arrays: like in, like out, same bits, nothing changed."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from instances import features, images, small_encoder, small_split


@dataclass(frozen=True)
class Case:
    """A call with one array argument, and the dtypes in which it must answer in kind."""

    name: str
    call: Any
    array: np.ndarray
    follows: bool = True  # the answer has the input's library and dtype
    narrow: bool = True  # takes bfloat16


def _nnls(A):
    from conceptlab.extractors.coding import nnls

    return nnls(A, features(3, 6))


def _h(a):
    return small_split().h(a)


def _bank(X):
    from conceptlab import ConceptBank

    return ConceptBank(np.eye(6)[:3], ["a", "b", "c"], space=None).score(X)


def _maps(x):
    from conceptlab import NMFConcepts
    from conceptlab.maps import concept_maps

    extractor = NMFConcepts(n_concepts=2, random_state=0).fit(features(60, 6))
    return concept_maps(small_split(), extractor, x, method="upsample")


def _pointing(maps):
    from conceptlab.maps import energy_pointing

    return energy_pointing(maps, np.arange(16 * 16).reshape(16, 16) % 3 == 0)


def _sobol(U):
    from conceptlab import SobolImportance

    head = torch.tensor(features(6, 4))
    estimator = SobolImportance(n_design=16, n_bootstrap=0, random_state=0)
    return estimator(lambda V: V.double() @ head, U, target=0).values


CASES = [
    Case("nnls", _nnls, features()),
    Case("SplitModel.g", lambda x: small_split().g(x), images(), narrow=False),
    Case(
        "SplitModel.h", _h, np.abs(np.random.default_rng(0).normal(size=(4, 6, 7, 7))), narrow=False
    ),
    Case("SplitModel.f", lambda x: small_split().f(x), images(), narrow=False),
    Case("ConceptBank.score", _bank, features()),
    Case("encode_image", lambda x: small_encoder().encode_image(x), images(), narrow=False),
    Case("concept_maps", _maps, images(2), follows=False),
    Case("energy_pointing", _pointing, images(2)[:, 0], follows=False),
    Case("SobolImportance", _sobol, features(5, 6), follows=False),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each
def test_same_bits_and_nothing_changed(case, global_state_untouched):
    for array in (case.array, torch.tensor(case.array)):
        kept = copy.deepcopy(array)
        first, second = case.call(array), case.call(array)
        assert type(first) is type(second)
        assert bool((first == second).all())
        assert bool((array == kept).all())


@each
def test_like_in_like_out(case):
    expected = case.call(case.array)
    found = case.call(torch.tensor(case.array))
    if not case.follows:
        assert isinstance(expected, np.ndarray)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        return
    assert isinstance(expected, np.ndarray)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-7)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtype_follows(case, dtype):
    if not case.follows or (dtype == "bfloat16" and not case.narrow):
        pytest.skip("answers in its own dtype, which its docstring names")
    tensor = torch.tensor(case.array).to(getattr(torch, dtype))
    found = case.call(tensor)
    if case.narrow:
        assert found.dtype == tensor.dtype
    else:
        assert found.dtype in (torch.float32, torch.float64)
