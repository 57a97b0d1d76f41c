"""What a set of concepts can tell before training, beside random ones."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import mutual_info_score
from word_encoder import WordEncoder

from bottlenecks import concept_entropy, random_bank, relevance
from conceptlab import ConceptBank
from conceptlab.errors import InputError, SpaceMismatchError


def named(V, **options):
    return ConceptBank(V, [f"c{j}" for j in range(len(V))], **{"space": None, **options})


def test_the_share_is_that_of_two_gaussians():
    """Classes N(-1, 1) and N(1, 1): H(y | x) by numerical integration."""

    def conditional(x):
        p = 1 / (1 + np.exp(-2 * x))
        return norm.pdf(x, 1) * -np.log(p)  # by symmetry that of one class is that of both

    truth = 1 - quad(conditional, -9, 11)[0] / np.log(2)
    y = np.arange(4000) % 2
    # Quantiles instead of draws, so that nothing is left to chance but the parts.
    X = np.zeros((4000, 2))
    for c in (0, 1):
        X[y == c, 0] = norm.ppf((np.arange(2000) + 0.5) / 2000, 2 * c - 1)
    found = relevance(named(np.eye(2)[:1]), X, np.array(["ant", "bee"])[y], n_random=1)
    assert found.value == pytest.approx(truth, abs=0.005)
    assert found.interval[0] < truth < found.interval[1]
    assert found.by_concept[0] == pytest.approx(truth, abs=0.05)  # eight bins lose a little
    assert found.entropy == pytest.approx(np.log(2))


def test_single_concepts_are_the_table_less_its_bias():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 200)
    X = np.stack([y, rng.integers(0, 4, 200), np.ones(200)], axis=1).astype(float)
    found = relevance(named(np.eye(3)), X, y, n_random=1)
    for j, r in enumerate((3, 4, 1)):
        share = mutual_info_score(X[:, j], y) - (r - 1) * 2 / 400
        assert found.by_concept[j] == pytest.approx(share / found.entropy)
    assert list(found.to_frame().index[:1]) == ["c0"]
    only = relevance(named(np.eye(3)[2:]), X, y, n_random=1)
    assert only.value == pytest.approx(0, abs=0.01)  # a concept that never moves


def test_random_concepts_are_nothing_special():
    """Features in which everything is told: named concepts lead, random ones do not."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 40))
    y = (X[:, 0] > 0) * 1 + (X[:, 1] > 0)
    found = relevance(named(np.eye(40)[:2]), X, y, n_random=19, n_folds=2)
    assert found.p_value == 1 / 20
    assert 0 < found.gain_interval[0] < found.gain < found.gain_interval[1]
    assert "more than as many random ones" in repr(found)
    near = np.where(np.arange(19) < 2, found.value + 0.01, found.controls[found.control])
    told = replace(found, controls={found.control: near})  # two of 19 draws do as well: p 0.15
    assert "not told apart" in repr(told)
    assert found.controls[found.control].mean() == max(v.mean() for v in found.controls.values())
    control = relevance(
        random_bank(X, 2, "isotropic", random_state=5), X, y, n_random=19, n_folds=2
    )
    assert control.p_value > 0.05
    assert control.gain_interval[0] < 0 < control.gain_interval[1]
    assert "not told apart from" in repr(control)


def test_what_only_covariance_holds_and_words():
    """Where the features move along the classes, random ones that follow them tell as much."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    X = 0.5 * rng.normal(size=(200, 60))
    X[:, 0] += 8.0 * y
    found = relevance(named(np.eye(60)[:1]), X, y, n_random=5)
    assert found.control == "covariance"
    assert found.gain < found.value - found.controls["isotropic"].mean()
    encoder = WordEncoder(dim=60)
    bank = named(np.eye(60)[:2], space=encoder.fingerprint)
    words = relevance(bank, X, y, n_random=2, encoder=encoder)
    assert list(words.controls) == ["isotropic", "covariance", "words"]
    with pytest.raises(SpaceMismatchError):
        relevance(named(np.eye(60)[:2], space="other"), X, y, encoder=encoder)


def test_the_entropy_of_cbm_suite_step_by_step():
    """The released steps, written out: one mean and deviation, class means, softmax, entropy."""
    rng = np.random.default_rng(0)
    S, y = rng.normal(0.2, 0.05, (30, 7)), np.repeat([4, 1, 2], 10)
    Z = (S - S.mean()) / S.std(ddof=1)
    for n_top in (7, 3):
        truth = []
        for c in (1, 2, 4):
            mean = Z[y == c].mean(axis=0)
            kept = sorted(mean, key=abs)[-n_top:]
            p = np.exp(kept) / np.exp(kept).sum()
            truth.append(-(p * np.log(p)).sum())
        np.testing.assert_allclose(concept_entropy(S, y, n_top=n_top), truth)
    assert concept_entropy(S).shape == (30,)
    np.testing.assert_allclose(concept_entropy(S[:, :1] * [1.0, 1.0]), np.log(2))
    np.testing.assert_allclose(concept_entropy(np.full((4, 3), 0.1)), np.log(3))
    with pytest.raises(InputError, match="n_top"):
        concept_entropy(S, n_top=0)


def test_a_concept_that_is_always_there_lowers_that_entropy_and_tells_nothing():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    X = np.concatenate([0.1 * rng.normal(size=(200, 6)), np.ones((200, 1))], axis=1)
    even = relevance(named(np.eye(7)[:6]), X, y, n_random=5)
    strong = relevance(named(np.eye(7)[1:]), X, y, n_random=5)  # the last is 1 in every row
    assert strong.concept_entropy < even.concept_entropy - 0.2
    assert strong.value == pytest.approx(even.value, abs=0.1)
    assert strong.random_concept_entropy.keys() == strong.controls.keys()


def test_same_seed_same_figures():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 2
    one, two, other = (
        relevance(named(np.eye(4)[:2]), X, y, n_random=2, random_state=s) for s in (0, 0, 1)
    )
    assert one.value == two.value != other.value
    assert one.gain_interval == two.gain_interval
    np.testing.assert_array_equal(one.random_by_concept, two.random_by_concept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(20, int)}, "two classes"),
        ({"y": np.arange(20) < 3}, "n_folds=5 rows of each"),
        ({"y": np.zeros(4, int)}, "one label"),
        ({"X": np.ones((20, 3))}, "vectors of this bank have length 4"),
        ({"X": np.full((20, 4), np.nan)}, "NaN"),
        ({"n_random": 0}, "n_random"),
        ({"n_folds": 1}, "n_folds"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_input(change, message):
    rng = np.random.default_rng(0)
    given = {"bank": named(np.eye(4)[:2]), "X": rng.normal(size=(20, 4)), "y": np.arange(20) % 2}
    with pytest.raises(InputError, match=message):
        relevance(**{**given, **change})
