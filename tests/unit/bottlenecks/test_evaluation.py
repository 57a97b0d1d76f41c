"""Evaluation, its report, and splits that cannot overlap."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from bottlenecks import (
    ConceptMatrixSearch,
    PostHocCBM,
    check_disjoint,
    completeness,
    evaluate,
    name_fidelity,
    number_of_contributing_concepts,
    split_rows,
)
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
    assert report.leakage["CTL"].value < 0.05


def test_random_concepts_at_the_same_nec_are_worse_than_named_ones(judged):
    *_, report = judged
    assert report.random_accuracy.shape == (3,)
    assert report.accuracy > report.random_accuracy.max() + 0.2


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
    assert one.settings["controls"] == "fitted on one half"
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
    assert list(frame.columns) == ["value", "baseline", "baseline_sd", "p_value", "better"]
    assert {"accuracy", "NEC", "NCC", "completeness", "leakage, NIS"} <= set(frame.index)
    concepts = report.concept_frame()
    assert concepts["auc"].is_monotonic_increasing
    for kind in ("accuracy", "fidelity", "leakage"):
        assert report.plot(kind).get_figure() is not None
    page = report.save(tmp_path / "report.html").read_text("utf-8")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("<img") == 3
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
