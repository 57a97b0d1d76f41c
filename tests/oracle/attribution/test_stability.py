"""Stability on planted parts, on noise, and on fits that are the same."""

import json

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from attribution.stability import StabilityReport, _members, _resample, stability
from conceptlab import NMFConcepts
from conceptlab.errors import InputError
from conceptlab.extractors import PCAConcepts


class Fixed(BaseEstimator):
    """An extractor that answers with a permutation of rows chosen by its seed."""

    def __init__(self, directions, noise=0.0, random_state=None):
        self.directions = directions
        self.noise = noise
        self.random_state = random_state

    def fit(self, X):
        rng = np.random.default_rng(self.random_state)
        W = np.asarray(self.directions)
        self.n_rows_ = len(X)
        self.rows_ = np.asarray(X)
        self.components_ = W[rng.permutation(len(W))] + self.noise * rng.normal(size=W.shape)
        return self

    def transform(self, X):
        return np.asarray(X) @ self.components_.T


class Deterministic(Fixed):
    def __init__(self, directions):
        super().__init__(directions)

    @classmethod
    def _get_param_names(cls):
        return ["directions"]

    def fit(self, X):
        self.random_state, self.noise = 0, 0.0
        return super().fit(X)


def planted(seed=0, n=300, k=4, p=20):
    rng = np.random.default_rng(seed)
    U = rng.random((n, k)) * (rng.random((n, k)) > 0.6)
    return U @ (rng.random((k, p)) * (rng.random((k, p)) > 0.5)) + 0.01 * rng.random((n, p))


def test_permuted_fits_are_fully_stable():
    X = planted()
    report = stability(
        Fixed(np.eye(20)[:5]),
        X,
        n_repeats=4,
        random_state=0,
        importance=lambda fit: fit.components_.argmax(1),
    )
    for values in (report.cosine, report.coefficients, report.importances, report.per_concept):
        np.testing.assert_allclose(values, 1)
    assert report.cosine.shape == (6,)
    assert report.p_value == pytest.approx(1 / 201)


def test_planted_parts_are_stable_and_noise_is_not():
    found = stability(NMFConcepts(4), planted(), how="both", n_repeats=3, random_state=0)
    assert found.cosine.mean() > 0.97
    assert found.coefficients.mean() > 0.97
    assert found.p_value < 0.01
    noise = np.random.default_rng(0).random((300, 20))
    lost = stability(NMFConcepts(4), noise, how="both", n_repeats=3, random_state=0)
    assert lost.cosine.mean() < found.cosine.mean() - 0.02
    assert lost.coefficients.mean() < 0.8


def test_directions_drawn_like_the_null_are_not_significant():
    X = planted()

    class RandomRows(Fixed):
        def fit(self, X):
            super().fit(X)
            rng = np.random.default_rng(self.random_state)
            self.components_ = np.asarray(X)[rng.choice(len(X), 5, replace=False)]
            return self

    values = [
        stability(
            RandomRows(np.eye(20)[:5]), X, how="seeds", n_repeats=2, n_null=60, random_state=s
        ).p_value
        for s in range(12)
    ]
    assert np.mean(np.array(values) < 0.05) <= 0.2
    assert 0.2 < np.mean(values) < 0.8


def test_signs_count_or_do_not():
    class Flipping(Fixed):
        def fit(self, X):
            super().fit(X)
            self.components_ = self.components_ * (-1) ** (self.random_state % 2)
            return self

    X = planted()
    blind = stability(
        Flipping(np.eye(20)[:3]), X, how="seeds", signed=False, n_repeats=2, random_state=0
    )
    np.testing.assert_allclose(blind.cosine, 1)
    np.testing.assert_allclose(blind.coefficients, 1)
    seeing = stability(Flipping(np.eye(20)[:3]), X, how="seeds", n_repeats=2, random_state=0)
    assert seeing.cosine.mean() < 0.1


def test_groups_are_resampled_whole():
    groups = np.array([3, 1, 1, 3, 7, 7, 7])
    members = _members(groups, 7)
    assert [list(m) for m in members] == [[1, 2], [0, 3], [4, 5, 6]]
    drawn = _resample(members, np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=7)
    for label in (1, 3, 7):
        assert len(set(counts[groups == label])) == 1
    X = planted(n=60)
    report = stability(
        NMFConcepts(3), X, how="bootstrap", groups=np.arange(60) // 4, n_repeats=3, random_state=0
    )
    assert report.how == "bootstrap"


def test_bootstraps_without_a_seed_and_their_error():
    X = planted()
    report = stability(Deterministic(np.eye(20)[:3]), X, how="bootstrap", n_repeats=2)
    np.testing.assert_allclose(report.cosine, 1)
    with pytest.raises(InputError, match="how='bootstrap'"):
        stability(Deterministic(np.eye(20)[:3]), X, how="seeds")


def test_tables_files_and_seeds(tmp_path, global_state_untouched):
    X = planted(n=80)
    report = stability(NMFConcepts(3), X, n_repeats=3, random_state=5, n_null=20)
    frame = report.to_frame()
    assert list(frame.index) == ["matched cosine", "correlation of coefficients"]
    json.dumps(report.to_dict(), allow_nan=False)
    again = StabilityReport.load(report.save(tmp_path / "stability"))
    assert again.to_dict() == report.to_dict()
    assert again.seed == 5
    twice = stability(NMFConcepts(3), X, n_repeats=3, random_state=5, n_null=20)
    np.testing.assert_array_equal(twice.cosine, report.cosine)
    np.testing.assert_array_equal(twice.null_cosine, report.null_cosine)
    assert "nan" not in report._repr_html_()
    assert "3 fits" in repr(report)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"n_repeats": 1}, "CL-INPUT-FEW"),
        ({"n_null": 0}, "CL-INPUT-FEW"),
        ({"how": "folds"}, "CL-INPUT-OPTION"),
        ({"groups": [1, 2]}, "CL-INPUT-SHAPE"),
        ({"X": np.ones((2, 3, 4))}, "CL-INPUT-RANK"),
        ({"X": np.full((9, 20), np.nan)}, "CL-INPUT-NONFINITE"),
        ({"importance": lambda fit: [1.0]}, "CL-INPUT-SHAPE"),
    ],
)
def test_bad_input(settings, code):
    kwargs = {"X": planted(n=30), **settings}
    with pytest.raises(InputError) as info:
        stability(Fixed(np.eye(20)[:3]), random_state=0, **kwargs)
    assert info.value.code == code


def test_the_null_of_centred_directions_does_not_hang_on_the_zero_of_the_rows():
    X = np.random.default_rng(3).normal(size=(80, 6))
    near, far = (
        stability(PCAConcepts(2), rows, n_repeats=3, signed=False, n_null=40, random_state=0)
        for rows in (X, X + 100)
    )
    np.testing.assert_allclose(near.null_cosine, far.null_cosine, atol=1e-8)
