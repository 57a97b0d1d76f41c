"""Filters keep, drop, and say why."""

import numpy as np
import pytest

from bottlenecks.concept_filters import (
    activated,
    distinct,
    filter_concepts,
    learnable,
    readable,
    scored,
    unlike_classes,
)
from conceptlab import ConceptBank
from conceptlab.encoders import CallableEncoder
from conceptlab.errors import InputError

VECTORS = {
    "red": (1.0, 0.0, 0.0),
    "reddish": (0.99, 0.1, 0.0),
    "round": (0.0, 1.0, 0.0),
    "apple-like": (0.0, 0.3, 1.0),
    "apple": (0.0, 0.0, 1.0),
}


def encoder(**changes):
    table = {**VECTORS, **changes}
    return CallableEncoder(
        lambda x: x, lambda texts: [table[t] for t in texts], dim=3, fingerprint="words"
    )


def test_each_filter_gets_what_the_one_before_left():
    given = []

    def spy(names):
        given.append(list(names))
        return {}

    report = filter_concepts(
        ["red", "Red ", "an apple", "smells of rain", "round"], readable(["apple"]), spy
    )
    assert given == [["red", "round"]]
    assert report.kept == ("red", "round")
    assert report.dropped == (
        ("Red ", "readable", "same as 'red'"),
        ("an apple", "readable", "class name"),
        ("smells of rain", "readable", "not visual"),
    )
    assert report.reason("an apple") == "class name"
    assert report.reason("red") is None
    assert repr(report) == "FilterReport(2 kept; dropped: readable 3)"
    assert list(report.to_frame().columns) == ["concept", "filter", "reason"]
    assert report.to_dict()["kept"] == ["red", "round"]


def test_texts_like_a_class():
    report = filter_concepts(["red", "apple-like"], unlike_classes(["apple"], encoder()))
    assert report.kept == ("red",)
    assert report.reason("apple-like") == "0.96 like the class 'apple'"
    loose = unlike_classes(["apple"], encoder(), max_similarity=0.97)
    assert len(filter_concepts(["red", "apple-like"], loose).kept) == 2


def test_of_two_alike_the_one_less_like_all_goes():
    """Reddish leans to round, so the sum of its cosines is larger than that of red."""
    report = filter_concepts(["red", "reddish", "round"], distinct(encoder()))
    assert report.kept == ("reddish", "round")
    assert report.reason("red") == "0.99 like 'reddish'"
    twice = encoder(red=(1.0, 0.0, 0.0), reddish=(1.0, 0.0, 0.0))
    assert filter_concepts(["red", "reddish", "round"], distinct(twice)).kept == ("red", "round")
    assert (
        len(filter_concepts(["red", "reddish"], distinct(encoder(), max_similarity=1.0)).kept) == 2
    )


def test_several_encoders_are_averaged():
    other = encoder(**{"apple-like": (1.0, 0.0, 0.0), "apple": (0.0, 0.0, 1.0)})
    pair = [(encoder(), 3.0), (other, 1.0)]
    step = unlike_classes(["apple"], pair, max_similarity=0.5)
    report = filter_concepts(["apple-like", "red"], step)
    assert report.reason("apple-like") == f"{0.75 * 1 / np.sqrt(1.09):.2f} like the class 'apple'"


def test_scores_and_quality():
    S = np.array([[0.1, 0.5], [0.2, 0.1], [0.3, 0.1]])
    report = filter_concepts(["dim", "bright"], activated(S, ["dim", "bright"], top=2))
    assert report.kept == ("bright",)
    assert report.reason("dim") == "mean of the best scores 0.250, not above 0.250"
    step = scored("kept", ["a"], [np.nan], 0.0)
    assert filter_concepts(["a", "b"], step).kept == ("b",)


def test_a_bank_comes_back_as_a_bank_with_quality_of_its_directions():
    rng = np.random.default_rng(0)
    good = (rng.normal(2, 1, (40, 4)), rng.normal(0, 1, (40, 4)))
    chance = (rng.normal(0, 1, (40, 4)), rng.normal(0, 1, (40, 4)))
    bank = ConceptBank.from_examples(None, {"seen": good, "noise": chance}, random_state=0)
    report = filter_concepts(bank, learnable(bank))
    assert report.kept == ("seen",)
    assert report.bank.names == ("seen",)
    assert "cross-validated AUC" in report.reason("noise")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filter_concepts(["an apple"], readable(["apple"])), "No concept is left.*class"),
        (lambda: filter_concepts("red"), "sequence of strings"),
        (lambda: filter_concepts(["red"], lambda names: {"blue": "?"}), "not given"),
        (lambda: scored("x", ["a"], [1.0, 2.0], 0.0), "1 names for numbers of shape"),
        (lambda: learnable(ConceptBank(np.eye(2), ["a", "b"], space=None)), "n_folds"),
        (lambda: unlike_classes([], encoder()), "classes is empty"),
        (lambda: filter_concepts(["red"], distinct([])), "must be an Encoder"),
        (lambda: activated(np.ones((2, 2)), ["a", "b"], top=0), "top"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
