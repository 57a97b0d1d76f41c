"""Evaluation, its report, and splits that cannot overlap."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from word_encoder import WordEncoder

from bottlenecks import (
    ConceptMatrixSearch,
    PostHocCBM,
    check_disjoint,
    completeness,
    evaluate,
    name_fidelity,
    number_of_contributing_concepts,
    random_bank,
    split_rows,
)
from bottlenecks.controls import CONTROLS
from bottlenecks.intervals import auc_intervals, wilson_interval
from conceptlab import ConceptBank
from conceptlab.errors import InputError


def planted(n=900, d=20, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 5)) < 0.5
    rest = rng.random((n, d - 5)) < 0.5
    X = np.hstack([truth, rest]) + 0.25 * rng.normal(size=(n, d))
    y = np.array(["ant", "bee", "cow", "dog"])[truth[:, 0] + 2 * truth[:, 1]]
    bank = ConceptBank(np.eye(d)[:5], ["red", "round", "<b>", "tall", "wide"], space=None)
    return X, y, truth, bank


@pytest.fixture(scope="module")
def judged():
    X, y, truth, bank = planted()
    model = PostHocCBM(bank, nec=2).fit(X[:450], y[:450])
    options = {"train": (X[:450], y[:450]), "n_permutations": 3, "n_random": 3}
    return (
        model,
        X[450:],
        y[450:],
        truth[450:],
        evaluate(model, X[450:], y[450:], truth[450:], **options),
    )


def test_figures_are_those_of_the_parts(judged):
    model, X, y, truth, report = judged
    A = model.predict_concepts(X)
    assert report.accuracy == model.score(X, y)
    assert report.nec == model.nec_ == report.control_nec == 2.0
    assert report.ncc == number_of_contributing_concepts(A, model.coef_)
    np.testing.assert_allclose(report.fidelity.auc, name_fidelity(A, truth))
    np.testing.assert_allclose(report.fidelity.raw_auc, report.fidelity.auc)  # a monotone map
    X0, y0, *_ = planted()
    mean, sd = X0[:450].mean(0), X0[:450].std(0)
    probe = LogisticRegression(max_iter=1000).fit((X0[:450] - mean) / sd, y0[:450])
    assert report.probe_accuracy == probe.score((X - mean) / sd, y)
    assert report.chance == pd.Series(y).value_counts(normalize=True).max()
    assert report.completeness == pytest.approx(
        completeness(report.accuracy, report.probe_accuracy, report.chance)
    )
    assert report.refitted_accuracy == pytest.approx(report.accuracy, abs=0.01)
    low, high = report.intervals["accuracy"]
    assert low < report.accuracy < high
    assert list(report.controls) == ["isotropic", "covariance"]
    assert report.random_accuracy.mean() == max(c.mean() for c in report.controls.values())
    assert report.p_value == 1 / 4
    assert report.leakage["CTL"].value < 0.05


def test_random_concepts_at_the_same_nec_are_worse_than_named_ones(judged):
    *_, report = judged
    assert report.random_accuracy.shape == (3,)
    assert report.accuracy > report.random_accuracy.max() + 0.2


def test_the_strongest_control_is_the_baseline():
    """Where the features move in the directions of the classes, random ones that follow them win.

    Isotropic directions in 60 columns hardly see the one that moves; those with the covariance
    of the features are that column but for a scale, so they are as good as the named concept.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = 0.5 * rng.normal(size=(400, 60))
    X[:, 0] += 8.0 * y
    bank = ConceptBank(np.eye(60)[:1], ["named"], space=None)
    model = PostHocCBM(bank, nec=1).fit(X[:200], y[:200])
    report = evaluate(model, X[200:], y[200:], train=(X[:200], y[:200]), n_random=19)
    assert report.control == "covariance"
    assert report.accuracy == 1.0
    assert report.controls["isotropic"].mean() < 0.8 < report.controls["covariance"].mean()
    assert report.gain < 0.05 < 0.2 < 1 - report.controls["isotropic"].mean()
    low, high = report.intervals["accuracy, refitted less random"]
    assert low <= report.gain <= high
    words = "above" if low > 0 and report.p_value <= 0.05 else "level with"
    assert words in report.to_html()


def test_a_lead_needs_the_rank_among_draws_too(judged):
    """An interval above zero is of these rows; single random draws may still do as well."""
    *_, report = judged
    ends = {**report.intervals, "accuracy, refitted less random": (0.02, 0.08)}
    ranked = {p: replace(report, intervals=ends, p_value=p).to_html() for p in (0.025, 0.175)}
    assert "above the best random ones" in ranked[0.025]
    assert "level with the best random ones" in ranked[0.175]
    assert "single draws reach as much (p 0.17" in ranked[0.175]


def test_a_concept_that_never_moves_among_the_rows_stops_nothing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    X[:, 1] = -0.13341
    X[:7, 1] = 1.0
    y = (X[:, 0] > 0) * 1 + (X[:, 2] > 0)
    model = PostHocCBM(nec=1).fit(X, y)
    rest = rng.normal(size=(200, 3))
    rest[:, 1] = -0.13341
    report = evaluate(model, rest, (rest[:, 0] > 0) * 1 + (rest[:, 2] > 0), n_random=1)
    assert 0.4 < report.refitted_accuracy <= 1


def test_random_banks():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)) * [5, 1, 1, 1, 1, 0]
    isotropic, covariance = (random_bank(X, 400, kind).vectors for kind in CONTROLS[:2])
    for V in (isotropic, covariance):
        np.testing.assert_allclose(np.linalg.norm(V, axis=1), 1)
    np.testing.assert_allclose((isotropic**2).mean(0), np.full(6, 1 / 6), atol=0.03)
    assert (covariance[:, 5] == 0).all()
    assert (covariance[:, 0] ** 2).mean() > 0.6
    assert np.array_equal(random_bank(X, 4).vectors, random_bank(X, 4).vectors)
    encoder = WordEncoder(dim=6)
    words = random_bank(X, 3, "words", encoder=encoder)
    assert words.space == encoder.fingerprint
    assert len(set(words.names)) == 3
    for options, message in (
        ({"kind": "word"}, "Did you mean 'words'"),
        ({"kind": "words"}, "needs an encoder"),
        ({"kind": "words", "encoder": encoder, "words": ["a", "b", "b"]}, "2 different words"),
        (
            {"kind": "words", "encoder": WordEncoder(dim=5)},
            "have length 5, but the features have 6",
        ),
    ):
        with pytest.raises(InputError, match=message):
            random_bank(X, 3, **options)
    with pytest.raises(InputError, match="no covariance"):
        random_bank(np.ones((4, 2)), 1)


@pytest.mark.slow
def test_intervals_of_areas_hold_their_level():
    rng = np.random.default_rng(0)
    hits, together = 0, 0
    truth = norm.cdf(1 / np.sqrt(2))
    for _ in range(400):
        c = rng.random((120, 3)) < 0.3
        shared = rng.normal(size=(120, 1))  # noise that the scores share
        each, mean = auc_intervals(c + 0.6 * rng.normal(size=c.shape) + 0.8 * shared, c)
        hits += ((each[:, 0] < truth) & (truth < each[:, 1])).mean()
        together += mean[0] < truth < mean[1]
    assert 0.91 < hits / 400 < 0.98
    assert 0.91 < together / 400 < 0.98


def test_intervals_are_those_of_the_books():
    low, high = wilson_interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)  # Agresti and Coull 1998
    assert wilson_interval(0, 10)[0] == 0
    rng = np.random.default_rng(0)
    c = np.arange(50) < 20
    s = rng.normal(size=50) + c
    pairs = (s[c][:, None] > s[~c][None]) + 0.5 * (s[c][:, None] == s[~c][None])
    variance = pairs.mean(1).var(ddof=1) / 20 + pairs.mean(0).var(ddof=1) / 30
    each, mean = auc_intervals(s[:, None], c[:, None])
    half = 1.959964 * np.sqrt(variance)
    np.testing.assert_allclose(each[0], [pairs.mean() - half, pairs.mean() + half], atol=1e-6)
    np.testing.assert_allclose(mean, each[0])


def test_random_concepts_in_number_are_accurate(judged):
    """VLG-CBM's point: as many random concepts as features, all used, are nearly as good."""
    X, y, *_ = planted()
    every = PostHocCBM(lam=0.001).fit(X[:450], y[:450])
    given = {"train": (X[:450], y[:450]), "n_random": 3, "nec": 20}
    report = evaluate(every, X[450:], y[450:], **given)
    assert report.random_accuracy.min() > judged[-1].random_accuracy.max() + 0.2
    assert report.random_accuracy.mean() > report.probe_accuracy - 0.1
    assert report.fidelity is None
    assert report.leakage is None


def test_halves_are_cut_where_no_training_rows_are_given(judged):
    model, X, y, truth, _ = judged
    names = dict(zip(["wide", "red"], truth[:, [4, 0]].T, strict=True))
    one, two = (evaluate(model, X, y, names, n_random=1, n_permutations=0) for _ in range(2))
    assert one.to_dict()["measures"] == two.to_dict()["measures"]
    assert one.fidelity.names == ["red", "wide"]
    assert one.settings["controls"] == "fitted on one half, 224 rows"
    # The model saw twice as many rows: it is set against nothing, its concepts refitted are.
    frame = one.to_frame()
    assert np.isnan(frame.loc["accuracy", "baseline"])
    assert frame.loc["accuracy, concepts refitted", "baseline"] == one.random_accuracy.mean()
    assert one.completeness == pytest.approx(
        completeness(one.refitted_accuracy, one.probe_accuracy, one.chance)
    )
    assert "give train=" in one.to_html()
    frame = pd.DataFrame(names)
    assert evaluate(model, X, y, frame, n_random=1, n_permutations=0).fidelity.mean == (
        one.fidelity.mean
    )


def test_a_classifier_without_weights_is_judged_too(judged):
    _, X, y, truth, _ = judged
    bank = planted()[3]
    search = ConceptMatrixSearch(bank).fit(X, y)
    report = evaluate(search, X, y, truth, n_random=1, n_permutations=0)
    assert report.nec is None
    assert report.control_nec == 5
    assert "NEC" not in repr(report)
    assert np.isnan(report.to_frame().loc["NEC", "value"])


def test_constant_truth_is_left_out_and_told(judged):
    model, X, y, truth, _ = judged
    given = {"red": truth[:, 0], "tall": np.ones(len(X), dtype=bool)}
    report = evaluate(model, X, y, given, n_random=1, n_permutations=0)
    assert report.skipped == {"tall": "the same in all rows"}
    assert "the same in all rows" in report.to_html()


def test_report_as_table_picture_page_and_file(judged, tmp_path):
    *_, report = judged
    frame = report.to_frame()
    columns = ["value", "low", "high", "baseline", "baseline_sd", "p_value", "better"]
    assert list(frame.columns) == columns
    told = frame[~frame["low"].isna()]
    assert (told["low"] <= told["value"]).all()
    assert (told["value"] <= told["high"]).all()
    assert {"accuracy", "name fidelity (AUC)", "completeness", "NCC"} <= set(told.index)
    assert {"accuracy", "NEC", "NCC", "completeness", "leakage, NIS"} <= set(frame.index)
    concepts = report.concept_frame()
    assert concepts["auc"].is_monotonic_increasing
    for kind in ("accuracy", "fidelity", "leakage"):
        assert report.plot(kind).get_figure() is not None
    page = report.save(tmp_path / "report.html").read_text("utf-8")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("class='drawn'") == 3
    values = json.loads(report.save(tmp_path / "report.json").read_text("utf-8"))
    assert values["measures"]["accuracy"]["value"] == report.accuracy
    assert "accuracy" in report._repr_html_()
    assert "random concepts" in repr(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {**a, "concepts": {"rde": a["concepts"][:, 0]}}, "Did you mean 'red'"),
        (lambda a: {**a, "concepts": a["concepts"][:, :2]}, r"expected \(450, 5\)"),
        (lambda a: {**a, "concepts": {"red": [1, 0]}}, "one value a row"),
        (lambda a: {**a, "concepts": {"red": np.linspace(0, 1, 450)}}, "expected two, absent"),
        (lambda a: {**a, "concepts": {"red": np.ones(450)}}, "All 1 true concepts are the same"),
        (lambda a: {**a, "train": (a["X"][:9], a["y"][:9])}, "9 of 450|also in part 0"),
        (lambda a: {**a, "y": np.full(450, "ant")}, "All rows are of one class"),
        (lambda a: {**a, "y": a["y"][:5]}, "inconsistent"),
        (lambda a: {**a, "n_random": 0}, "n_random must be a whole number of at least 1"),
        (lambda a: {**a, "n_permutations": "many"}, "n_permutations must be a whole number"),
        (lambda a: {**a, "nec": 6}, "nec must be a number above 0 and at most 5, got 6"),
        (lambda a: {**a, "train": a["X"]}, r"train must be \(X, y\), .* got ndarray"),
        (lambda a: {**a, "X": a["X"] * np.nan}, "NaN"),
        (lambda a: {**a, "concepts": {}}, "concepts is empty"),
    ],
)
def test_bad_input_is_named(judged, change, message):
    model, X, y, truth, _ = judged
    arguments = change({"X": X, "y": y, "concepts": truth, "n_random": 1, "n_permutations": 0})
    with pytest.raises(InputError, match=message):
        evaluate(model, **arguments)


def test_a_plot_that_needs_concepts_says_so(judged):
    model, X, y, *_ = judged
    report = evaluate(model, X, y, n_random=1)
    assert report.concept_frame().empty
    with pytest.raises(InputError, match=r"evaluate\(\.\.\., concepts\)"):
        report.plot("fidelity")


# ----------------------------------------------------------------------------- splits
@given(st.integers(0, 10**6), st.integers(20, 120), st.integers(1, 30), st.booleans())
def test_splits_are_disjoint_whatever_is_copied_or_grouped(seed, n, distinct, grouped):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))[rng.integers(0, max(distinct, n // 2), size=n) % n]
    groups = rng.integers(0, max(3, n // 3), size=n) if grouped else None
    try:
        parts = split_rows(X, groups=groups, random_state=seed)
    except InputError as error:
        assert "none is left" in str(error)  # noqa: PT017
        return
    assert sorted(np.concatenate(list(parts))) == list(range(n))
    check_disjoint(*(X[rows] for rows in parts))
    if grouped:
        seen = [set(groups[rows]) for rows in parts]
        assert all(not (seen[i] & seen[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_shares_of_classes_are_kept():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1000, 2)), np.repeat(["a", "b", "c"], [800, 150, 50])
    for rows, share in zip(split_rows(X, y, random_state=1), (0.6, 0.2, 0.2), strict=True):
        counts = pd.Series(y[rows]).value_counts()
        assert counts.to_dict() == {"a": 800 * share, "b": 150 * share, "c": 50 * share}
    assert repr(split_rows(X, y)) == repr(split_rows(X, y))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: split_rows(X, fractions=(0.5, 0.5)), "three numbers"),
        (lambda X: split_rows(X, fractions="most"), "three numbers"),  # type: ignore[arg-type]
        (lambda X: split_rows(X, fractions=(0.9, 0.2, -0.1)), "three numbers"),
        (lambda X: split_rows(X, groups=[1]), "one group for each"),
        (lambda X: split_rows(X[[0] * 9]), "none is left for"),
        (lambda X: check_disjoint(X, X[3:5]), "2 of 2 rows of part 1 are also in part 0"),
        (lambda X: check_disjoint(X, X[:, :1]), "features"),
    ],
)
def test_bad_splits_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call(np.random.default_rng(0).normal(size=(10, 2)))
