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


def test_a_continuum_of_two_things_is_no_mixture():
    """Rows between two ends, most of them in the middle, with a long tail: one thing by degrees."""
    rng = np.random.default_rng(0)
    ends = np.abs(rng.normal(size=(2, 16)))
    refused = 0
    for seed in range(20):
        degree = np.random.default_rng(seed).exponential(0.3, (60, 1))
        rows = ends[0] + degree * ends[1]
        noise = 0.02 * np.random.default_rng(seed + 99).normal(size=(60, 16))
        refused += mixing_test(rows + noise, random_state=seed).mixes()
    assert refused <= 1


def test_kurtosis_along_the_means_is_that_of_two_humps():
    """Two equal humps at -d and d with deviation s have excess kurtosis -2 d^4 / (d^2 + s^2)^2."""
    rng = np.random.default_rng(0)
    rows = 1 + 0.05 * rng.normal(size=(400, 6))
    rows[::2, 0] += 0.4
    test = mixing_test(rows, random_state=0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    d = abs(unit[::2].mean(0) - unit[1::2].mean(0))
    along = unit @ (d / np.linalg.norm(d) * np.sign(unit[::2].mean(0) - unit[1::2].mean(0)))
    half = np.linalg.norm(d) / 2
    s = along[::2].std()
    assert test.kurtosis == pytest.approx(-2 * half**4 / (half**2 + s**2) ** 2, abs=0.06)
    assert test.null_kurtosis > test.kurtosis + 1


def heavy(n, apart, seed):
    """Rows with the tails of Student's t with 4 degrees of freedom, half of them moved."""
    rng = np.random.default_rng(seed)
    rows = 1 + 0.05 * rng.normal(size=(n, 24)) * np.sqrt(4 / rng.chisquare(4, (n, 1)))
    rows[::2, 0] += apart
    return rows


def test_heavy_tails_are_no_second_thing_and_hide_none():
    one = [mixing_test(heavy(60, 0.0, seed), random_state=seed).mixes() for seed in range(20)]
    two = [mixing_test(heavy(60, 0.5, seed), random_state=seed).mixes() for seed in range(20)]
    assert sum(one) == 0
    assert sum(two) >= 18


def test_two_means_are_those_of_another_library():
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    rows = heavy(60, 0.3, 1)
    test = mixing_test(rows, random_state=0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    unit -= unit.mean(0)
    first = PCA(1).fit_transform(unit)[:, 0]
    halves = first > np.median(first)
    start = np.stack([unit[~halves].mean(0), unit[halves].mean(0)])
    means = KMeans(2, init=start, n_init=1).fit(unit)
    assert test.cluster_index == pytest.approx(means.inertia_ / (unit**2).sum(), abs=1e-9)
    same = (means.labels_ == test.labels).mean()
    assert max(same, 1 - same) == 1.0


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
