import numpy as np
import pytest

from conceptlab.errors import InputError
from conceptlab.explanation.mixing import mixing_test


def patterns(n, mix, seed, p=32, noise=0.15):
    """Non-negative patches that show one pattern, or one of two."""
    rng = np.random.default_rng(seed)
    bases = np.abs(rng.normal(size=(2, p))) * (rng.random((2, p)) < 0.5)
    which = (np.arange(n) % 2 if mix else np.zeros(n)).astype(int)
    strength = rng.uniform(0.5, 2.0, (n, 1))
    return np.maximum(bases[which] * strength + noise * rng.normal(size=(n, p)), 0), which


def test_two_patterns_are_found():
    found = 0
    for seed in range(10):
        A, which = patterns(60, True, seed)
        test = mixing_test(A, random_state=seed)
        same = (test.labels == which).mean()
        found += test.mixes() and max(same, 1 - same) > 0.95
    assert found >= 9


def test_one_pattern_is_left_alone():
    refused = sum(mixing_test(patterns(60, False, s)[0], random_state=s).mixes() for s in range(10))
    assert refused <= 1


def test_strength_alone_is_no_second_thing():
    A, _ = patterns(60, False, 0, noise=0.02)
    A[::2] *= 10
    assert not mixing_test(A, random_state=0).mixes()


def test_a_handful_of_outliers_is_no_second_thing():
    A, _ = patterns(60, False, 0)
    A[:3] = A[:3, ::-1]
    assert not mixing_test(A, random_state=0).mixes()


def test_constant_rows_give_an_answer():
    test = mixing_test(np.ones((10, 3)), random_state=0)
    assert not test.mixes()
    assert test.cluster_index == 1.0


def test_seeds():
    A, _ = patterns(40, True, 0)
    a, b = mixing_test(A, random_state=1), mixing_test(A, random_state=1)
    assert a.p_value == b.p_value
    assert a.null_index == b.null_index


def test_too_few_patches():
    with pytest.raises(InputError, match="at least 4 patches"):
        mixing_test(np.ones((3, 4)))
