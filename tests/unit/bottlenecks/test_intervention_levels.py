"""What presence becomes when true concepts are set, and curves that say where that harms."""

import numpy as np
import pytest

from bottlenecks import PostHocCBM
from bottlenecks.intervals import mean_interval, wilson_interval
from conceptlab.errors import InputError


def world(seed=0, n=600):
    rng = np.random.default_rng(seed)
    C = rng.random((n, 3)) < [0.5, 0.5, 0.1]
    X = C + 0.5 * rng.normal(size=C.shape)
    return X, C, C[:, 0] * 1 + C[:, 1]


def test_presence_becomes_the_mean_of_rows_that_have_the_concept():
    X, C, y = world()
    model = PostHocCBM(nec=2).fit(X[:300], y[:300])
    A, coef = model.predict_concepts(X[300:]), model.coef_
    shown = C[300:]
    plain = {"realign": False}
    curve = model.intervention_curve(X[300:], shown, y[300:], levels="rows", **plain)
    for j in range(3):
        A[:, j] = np.where(shown[:, j], A[shown[:, j], j].mean(), A[~shown[:, j], j].mean())
    last = (A @ coef.T + model.intercept_).argmax(axis=1)
    assert curve.accuracy[-1] == (model.classes_[last] == y[300:]).mean()
    named = dict(zip(model.concept_names_, shown.T, strict=True))
    again = model.intervention_curve(X[300:], named, y[300:], levels="rows", **plain)
    np.testing.assert_array_equal(again.accuracy, curve.accuracy)
    other = model.intervention_curve(X[300:], shown, y[300:], levels="fit", **plain)
    assert not np.array_equal(other.log_loss, curve.log_loss)
    with pytest.raises(InputError, match="Did you mean 'rows'"):
        model.intervention_curve(X, C, y, levels="row")


def test_a_curve_has_intervals_and_tells_where_true_concepts_harm():
    X, C, y = world()
    model = PostHocCBM(nec=2).fit(X[:300], y[:300])
    good = model.intervention_curve(X[300:], C[300:], y[300:])
    assert good.accuracy[-1] > good.accuracy[0]
    np.testing.assert_allclose(
        good.interval[0], wilson_interval(round(300 * good.accuracy[0]), 300)
    )
    assert len(good.harmful) == 0
    wrong = model.intervention_curve(  # "truth" that is none
        X[300:], ~C[300:], y[300:], levels="fit", realign=False
    )
    assert wrong.harmful.tolist() == [s for s in wrong.steps if wrong.change[s, 1] < 0]
    assert wrong.harmful[0] == 1
    assert "true concepts lower it" in repr(wrong)
    assert list(wrong.to_frame().columns) == [
        "concepts set",
        "accuracy",
        "low",
        "high",
        "log-loss",
    ]
    assert mean_interval(np.zeros(5)) == (0.0, 0.0)
