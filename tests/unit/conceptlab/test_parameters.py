"""The one checker of parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.errors import InputError
from conceptlab.parameters import Flag, OneOf, Real, Rules, Whole


@pytest.mark.parametrize("value", [2.0, True, "2", None, np.float64(3), np.bool_(True), 1 + 0j])
def test_what_is_no_whole_number(value):
    with pytest.raises(InputError, match=r"epochs must be a whole number.*\[CL-INPUT-TYPE\]"):
        Whole(1).check("epochs", value)


@given(value=st.integers(-5, 5), least=st.integers(-5, 5), span=st.integers(0, 5))
def test_whole_numbers_pass_if_and_only_if_they_are_in_range(value, least, span):
    rule = Whole(least, least + span)
    if least <= value <= least + span:
        assert rule.check("n", np.int16(value)) == value
        assert type(rule.check("n", np.int16(value))) is int
    else:
        with pytest.raises(InputError, match="CL-INPUT-RANGE"):
            rule.check("n", value)


@pytest.mark.parametrize(
    ("rule", "good", "bad", "words"),
    [
        (Real(), -1e300, float("nan"), "a number, got nan"),
        (Real(least=0), 0, -1e-300, "a number of at least 0, got"),
        (Real(above=0), 1e-300, 0, "a number above 0, got 0"),
        (Real(most=2), 2, 2.5, "a number of at most 2, got"),
        (Real(below=2), 1.5, 2, "a number below 2, got"),
        (Real(above=0, most=1, hint="a share"), 1, np.inf, r"above 0 and at most 1 \(a share\)"),
        (Real(least=0, below=1), np.float32(0), 1, "of at least 0 and below 1"),
    ],
)
def test_bounds_of_numbers(rule, good, bad, words):
    assert rule.check("share", good) == good
    with pytest.raises(InputError, match=f"share must be .*{words}|share must be {words}"):
        rule.check("share", bad)
    for other in (True, "1", None):
        with pytest.raises(InputError, match="CL-INPUT-TYPE"):
            rule.check("share", other)


def test_either_rule_and_none():
    rule = OneOf("auto") | Whole(1) | None
    assert [rule.check("n", v) for v in ("auto", 3, None)] == ["auto", 3, None]
    with pytest.raises(InputError, match="Unknown n 'aut'.*Or a whole number of at least 1"):
        rule.check("n", "aut")
    with pytest.raises(InputError, match="'auto', or a whole number of at least 1, or None"):
        rule.check("n", 2.5)
    with pytest.raises(InputError, match="CL-INPUT-RANGE"):
        rule.check("n", 0)
    assert (Flag() | OneOf("auto")).check("exact", np.True_) is True
    with pytest.raises(InputError, match="True or False"):
        Flag().check("exact", 1)


def test_a_table_reads_objects_and_mappings_in_its_order():
    class Estimator:
        def __init__(self, **parameters):
            self.__dict__.update(parameters)

    rules = Rules(a=Whole(0), b=Real(above=0, code="CL-INPUT-FEW"))
    rules.check(Estimator(a=0, b=0.5, c="not looked at"))
    with pytest.raises(InputError, match="^a must be"):
        rules.check({"a": -1, "b": -1})
    with pytest.raises(InputError, match="CL-INPUT-FEW"):
        rules.check(Estimator(a=1, b=0))
    with pytest.raises(KeyError):  # a table that names what an estimator lacks is a fault of ours
        rules.check(Estimator(a=1))
    rules.check(Estimator(a=1), absent=True)
