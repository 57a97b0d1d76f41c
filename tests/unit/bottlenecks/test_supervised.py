"""Concept bottlenecks from labels: gaps, names, files, and what is wrong with labels."""

import numpy as np
import pandas as pd
import pytest

from bottlenecks import Bottleneck, ConceptBottleneck
from conceptlab import ConceptBank
from conceptlab.errors import InputError


def world(n=120, seed=0):
    rng = np.random.default_rng(seed)
    C = rng.random((n, 3)) < 0.5
    return C + 0.3 * rng.normal(size=C.shape), C, C[:, 0] + 2 * C[:, 1]


X, C, Y = world()


def fit(concepts=C, y=Y, **options):
    return ConceptBottleneck(random_state=0, **options).fit(X, y, concepts=concepts)


def gap(column):
    labels = C.astype(float)
    labels[:, column] = np.nan
    return labels


BAD = {
    "constant": (
        lambda: fit(np.c_[C[:, :2], np.ones(120)]), r"same label in all rows.*concept2.*INPUT-ZERO"
    ),
    "missing for all": (lambda: fit(gap(1)), r"no label in any row: \['concept1'\].*INPUT-EMPTY"),
    "another length": (lambda: fit(C[:50]), r"a row for each of the 120 rows.*\(50, 3\)"),
    "mapping of another length": (lambda: fit({"a": C[:5, 0]}), r"got lengths \[5\]"),
    "other values": (lambda: fit(C * 2), r"must be 0 and 1, or NaN.*INPUT-LABELS"),
    "text": (lambda: fit(np.full((120, 1), "yes")), r"must be numbers 0 and 1"),
    "level 1": (lambda: fit().conformal_sets(X, level=1.0), r"level must be.*above 0 and below 1"),
    "level 0": (lambda: fit().conformal_sets(X, level=0), r"level must be.*above 0"),
    "nothing held out": (
        lambda: fit(calibration_fraction=0).conformal_sets(X), r"No rows were held out.*INPUT-FEW"
    ),
    "mode": (lambda: fit(mode="together"), r"Unknown mode 'together'"),
    "bank of another size": (
        lambda: fit(bank=ConceptBank(np.eye(3)[:2], ["a", "b"], space=None)),
        r"but the bank 2 concepts",
    ),
    "class weights of numbers": (
        lambda: fit(target="values", class_weight="balanced"), r"class_weight is of classes"
    ),
    "labels in one column": (lambda: fit(target="labels"), r"needs y of shape \(n, labels\)"),
    "labels that are no bits": (
        lambda: fit(y=np.c_[Y, Y], target="labels"), r"target='labels' needs 0 and 1"
    ),
    "a label that never changes": (
        lambda: fit(y=np.c_[C[:, 0], np.ones(120)], target="labels"), r"the same in all rows"
    ),
    "weights below 0": (
        lambda: ConceptBottleneck().fit(X, Y, -np.ones(120), concepts=C), r"at least 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()


def test_no_labels_are_told():
    with pytest.warns(UserWarning, match="given no concept labels"):
        ConceptBottleneck(random_state=0).fit(X, Y)


@pytest.mark.parametrize("mode", ["independent", "sequential", "joint"])
def test_files_names_and_interventions(mode, tmp_path):
    frame = pd.DataFrame(C, columns=["red", "round", "big"]).astype(object)
    frame.iloc[::4, 2] = np.nan
    model = fit(frame, mode=mode)
    assert model.concept_names_ == ["red", "round", "big"]
    again = Bottleneck.load(model.save(tmp_path / "model"))
    assert type(again) is ConceptBottleneck
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.conformal_sets(X), model.conformal_sets(X))
    done = model.intervene(X, {"red": C[:, 0]})
    low, high = model.activation_levels_[0]
    np.testing.assert_array_equal(done.activations[:, 0], np.where(C[:, 0], high, low))
    assert model.intervention_curve(X, C, Y).accuracy[-1] > 0.95


def test_several_labels_and_numbers():
    both = fit(y=np.c_[C[:, 0], C[:, 1] & C[:, 2]], target="labels")
    assert both.predict(X).shape == both.predict_proba(X).shape == (120, 2)
    assert both.score(X, np.c_[C[:, 0], C[:, 1] & C[:, 2]]) > 0.8
    numbers = fit(y=pd.DataFrame({"a": C @ [1.0, 2, 3], "b": C @ [0.0, 1, 0]}), target="values")
    assert numbers.predict(X).shape == (120, 2)
    assert numbers.output_names_.tolist() == ["a", "b"]
    assert not hasattr(numbers, "predict_proba")
