"""Laws that Sobol importance keeps for any function."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.importance import SobolImportance
from conceptlab.importance.estimators import ESTIMATORS


def head(seed, k):
    rng = np.random.default_rng(seed)
    first = torch.from_numpy(rng.normal(size=(k, 8)))
    second = torch.from_numpy(rng.normal(size=8))
    return first, second


def coefficients(seed, n, k):
    return np.random.default_rng(seed + 1).random((n, k)) * (
        np.random.default_rng(seed + 2).random((n, k)) > 0.2
    )


seeds = st.integers(0, 2**20)
sizes = st.integers(1, 6)


@given(seeds, sizes, st.sampled_from(sorted(ESTIMATORS)), st.sampled_from(["linear", None]))
def test_permuting_concepts_permutes_indices(seed, k, estimator, control):
    first, second = head(seed, k)
    order = np.random.default_rng(seed).permutation(k)
    U = coefficients(seed, 3, k)
    importance = SobolImportance(16, estimator, control=control, n_bootstrap=20, random_state=seed)
    one = importance(lambda u: torch.relu(u @ first) @ second, U)
    two = importance(lambda u: torch.relu(u @ first[order]) @ second, U[:, order])
    for name in ("values", "first_order", "signed", "local_interval"):
        np.testing.assert_allclose(
            getattr(two, name), getattr(one, name)[:, order], atol=1e-9, err_msg=name
        )


@given(seeds, sizes, st.floats(-5, 5), st.sampled_from([-3.0, -0.5, 0.1, 7.0]))
def test_shift_and_scale_of_the_output_change_nothing(seed, k, shift, scale):
    first, second = head(seed, k)
    U = coefficients(seed, 2, k)
    importance = SobolImportance(16, n_bootstrap=0, exact=False, random_state=seed)
    one = importance(lambda u: torch.relu(u @ first) @ second, U)
    two = importance(lambda u: shift + scale * (torch.relu(u @ first) @ second), U)
    np.testing.assert_allclose(two.values, one.values, atol=1e-8)
    np.testing.assert_allclose(two.first_order, one.first_order, atol=1e-8)
    np.testing.assert_allclose(two.signed, one.signed * np.sign(scale), atol=1e-8)


@given(seeds, sizes)
def test_jansen_is_never_negative_and_additive_functions_add_up(seed, k):
    rng = np.random.default_rng(seed)
    weights = torch.from_numpy(rng.normal(size=k))
    U = coefficients(seed, 3, k)
    found = SobolImportance(32, exact=False, n_bootstrap=0, random_state=seed)(
        lambda u: torch.tanh(u) @ weights, U
    )
    assert (found.values >= 0).all()
    dead = ~(found.variance > 0)
    assert not found.values[dead].any()
    np.testing.assert_allclose(found.values[~dead].sum(1), 1, atol=0.05)
    np.testing.assert_allclose(found.values, found.first_order, atol=0.05)


@given(seeds, st.integers(2, 6))
def test_linear_functions_are_found_and_exact(seed, k):
    rng = np.random.default_rng(seed)
    weights = torch.from_numpy(rng.normal(size=(k, 2)))
    U = rng.random((4, 2, 3, k))
    found = SobolImportance(random_state=seed)(lambda u: u.mean((1, 2)) @ weights + 1, U, target=1)
    c = U.mean((1, 2)) * weights[:, 1].numpy()
    assert found.exact
    np.testing.assert_allclose(found.values, c**2 / (c**2).sum(1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(found.mean, found.values.mean(0))
    assert (found.interval[:, 0] <= found.mean + 1e-12).all()
    assert (found.mean <= found.interval[:, 1] + 1e-12).all()
