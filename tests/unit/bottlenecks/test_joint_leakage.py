"""Leakage that only all outputs together show, and p-values that can be small."""

import numpy as np
import pytest

from bottlenecks import interconcept_leakage, joint_leakage, measure_leakage
from bottlenecks.information import pairwise_information
from conceptlab.errors import InputError


def world(kind, n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    C = rng.random((n, 12 if kind == "weak" else 3)) < 0.5
    A = C + 0.3 * rng.normal(size=C.shape)
    if kind == "weak":
        A += 0.25 * (2 * y - 1)[:, None]
    if kind == "pairs":
        s = rng.choice([-1, 1], n)
        A = C + 0.05 * rng.normal(size=C.shape)
        A[:, 0] += 0.2 * s
        A[:, 1] += 0.2 * s * (2 * y - 1)
    if kind == "none":
        y = (C.sum(axis=1) >= 2).astype(int)
    return A, C, y


def test_many_weak_leaks_are_seen_together():
    found = joint_leakage(*world("weak"), n_copies=4)
    assert found.p_value < 0.01
    assert found.accuracy["linear"]["outputs"] > found.accuracy["linear"]["concepts"]
    assert "on the outputs" in repr(found)
    low, high = found.interval["linear"]
    assert 0 < low < found.gain["linear"] < high


def test_a_leak_in_pairs_is_seen_by_trees_alone():
    found = joint_leakage(*world("pairs"), n_copies=4)
    assert found.p_values["boosted"] < 0.01 < 0.05 < found.p_values["linear"]


def test_outputs_that_tell_their_concept_only_are_clean():
    """y is a function of c that a head learns imperfectly: more numbers help, and none leaks."""
    found = joint_leakage(*world("none"), n_copies=4)
    assert found.p_value > 0.05
    exact = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (20, 1))
    assert joint_leakage(exact, exact, exact[:, 0], n_copies=3).p_value > 0.5


@pytest.mark.parametrize("seed", [2, 5])
def test_a_class_that_the_concepts_tell_fully_leaves_nothing_to_leak(seed):
    """An output holds another concept too, so its copies differ from it in the fifth digit."""
    rng = np.random.default_rng(seed)
    C = rng.random((1500, 5)) < 0.5
    A = C + 0.2 * rng.normal(size=C.shape)
    A[:, 0] += 0.5 * C[:, 1]
    found = joint_leakage(A, C, C[:, 0], random_state=seed)
    assert found.p_value > 0.05
    for head, (low, high) in found.interval.items():
        assert low < 0 < high, head
        assert found.p_values[head] >= np.exp(-1500 * max(found.gain[head], 0)) > 0.5, head


def test_a_noisy_output_that_leaks_is_not_called_clean():
    """CTL is cut off at zero; what is compared with shuffled copies is not."""
    rng = np.random.default_rng(0)
    c = rng.random(1500) < 0.5
    y = np.where(rng.random(1500) < 0.9, c, ~c) * 1
    a = (c + 0.3 * (2 * y - 1) + 0.8 * rng.normal(size=1500))[:, None]
    score = measure_leakage(a, c[:, None], y, measures=("CTL",), n_permutations=19)["CTL"]
    assert score.value == 0.0
    assert score.statistic < 0
    assert score.p_value == 1 / 20
    assert score.excess > 0.05


def test_no_copies_no_test():
    scores = measure_leakage(*world("weak", 120), measures=("JTL",), n_permutations=0)
    assert np.isnan(scores["JTL"].p_value)
    assert scores["JTL"].joint.accuracy["linear"]["both"] > 0.6


def test_blocks_of_columns_give_what_the_whole_gives(monkeypatch):
    rng = np.random.default_rng(0)
    A = np.hstack([rng.normal(size=(80, 3)), rng.integers(0, 3, (80, 4)), np.ones((80, 1))])
    whole = pairwise_information(A, 8)
    monkeypatch.setattr("bottlenecks.information._COLUMNS", 3)
    np.testing.assert_allclose(pairwise_information(A, 8), whole, atol=1e-15)
    for i, j in ((0, 1), (2, 5), (4, 6)):
        one = pairwise_information(A[:, [i, j]], 8)[0, 1]
        assert whole[i, j] == whole[j, i] == pytest.approx(one, abs=1e-15)
    assert (np.diag(whole) == 0).all()
    assert interconcept_leakage(A, A).max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(40, int)}, "two classes"),
        ({"y": np.arange(40) < 1}, "n_folds=2 rows of each"),
        ({"y": np.zeros(5, int)}, "5 labels for 40 rows"),
        ({"n_folds": 1}, "n_folds must be a whole number of at least 2"),
        ({"concepts": np.zeros((40, 2))}, "one column a concept in both"),
    ],
)
def test_bad_input(change, message):
    A, C, y = world("weak", 40)
    with pytest.raises(InputError, match=message):
        joint_leakage(**{"activations": A, "concepts": C, "y": y, **change})
