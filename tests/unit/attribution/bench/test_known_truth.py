"""The measures of the known-truth table, on matrices and maps whose answer is plain."""

import numpy as np
import pytest

from attribution.bench.known_truth import (
    EXTRACTORS,
    _candidates,
    _held_out,
    _pointing,
    _size,
    match_attributes,
)


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    presence = rng.random((400, 4)) < 0.4
    order = np.array([2, 0, 3, 1])
    signs = np.array([1, -1, 1, -1])
    U = presence[:, order] * signs + 0.1 * rng.normal(size=(400, 4))
    return U, presence, order, signs


def test_attributes_are_matched_with_their_concepts(planted):
    U, presence, order, signs = planted
    concepts, attributes, score = match_attributes(U * signs, presence)
    np.testing.assert_array_equal(order[concepts], attributes)
    assert score.min() > 0.95


def test_a_sign_counts_only_where_a_direction_is_two_candidates(planted):
    U, presence, order, signs = planted
    candidates, attributes, score = match_attributes(np.c_[U, -U], presence)
    np.testing.assert_array_equal(order[candidates % 4], attributes)
    np.testing.assert_array_equal(candidates < 4, signs[candidates % 4] > 0)
    assert score.min() > 0.95
    _, _, score = match_attributes(U, presence)
    assert score.mean() < 0.8


def test_scores_are_of_other_rows_than_the_matching(planted):
    U, presence, order, signs = planted
    concepts, attributes, score = _held_out(U * signs, presence)
    np.testing.assert_array_equal(order[concepts], attributes)
    assert score > 0.95
    noise = np.random.default_rng(1).normal(size=U.shape)
    assert abs(_held_out(noise, presence)[2]) < 0.15


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_extractor_has_as_many_signed_candidates(name):
    U = np.random.default_rng(0).random((3, _size(name, 32)))
    found = _candidates(name, U)
    assert found.shape == (3, 32)
    assert (found < 0).any() == (name in ("PCA", "random directions"))


class Maps:
    """A CRAFT that has its maps already."""

    def __init__(self, values):
        self.values = values

    def maps(self, images, *, method, **options):
        return self.values


@pytest.mark.parametrize("zero", [0.0, 5.0, -5.0])
def test_contrast_does_not_hang_on_the_zero_of_a_map(zero):
    masks = np.zeros((3, 1, 8, 8), bool)
    masks[:, 0, :2, :2] = True
    values = np.where(masks, 1.0, 0.0) + zero
    pairs = ([0], [0], [1.0])
    found = _pointing(Maps(values), np.empty((3, 3, 8, 8)), masks, *pairs)
    assert found["contrast"] == found["implicit contrast"] == 1.0
    assert found["area"] == 1 / 16
    expected = {0.0: 1.0, 5.0: 4 * 6 / (4 * 6 + 60 * 5), -5.0: 0.0}[zero]
    assert found["pointing"] == pytest.approx(expected)
