"""What is no array of numbers is answered by an error that says so, never by a wrong number."""

from dataclasses import replace

import cases_bottlenecks  # noqa: F401
import cases_conceptlab  # noqa: F401
import cases_unlearning  # noqa: F401
import numpy as np
import pytest
import torch
from cases import CASES
from exceptions import NO_ARRAYS

from conceptlab.errors import ConceptlabError

pytestmark = pytest.mark.filterwarnings("ignore")
JUNK: dict[str, object] = {
    "None": None,
    "a text": "red",
    "texts": np.array([["a", "b"]]),
    "a mapping": {},
    "rows of different lengths": [[1.0], [1.0, 2.0]],
    "complex numbers": np.full((3, 3), 1j),
}


def taken_as_it_is(name, place, what):
    return any(
        name.startswith(start) and place in (at, place if at is None else at) and kind in (what, "")
        for start, at, kind in NO_ARRAYS
    )


def places(name):
    args = CASES[name].call().args
    return [i for i, value in enumerate(args) if isinstance(value, np.ndarray | torch.Tensor)]


TAKE_ARRAYS = sorted(name for name, case in CASES.items() if case.answers != "none")


@pytest.mark.parametrize("name", TAKE_ARRAYS)
def test_answer(name):
    wrong = []
    for place in places(name):
        for what, junk in JUNK.items():
            if taken_as_it_is(name, place, what):
                continue
            call = CASES[name].call()
            args = [*call.args[:place], junk, *call.args[place + 1 :]]
            try:
                replace(call, args=tuple(args))()
            except ConceptlabError:
                continue
            except Exception as error:
                wrong.append((place, what, repr(error)[:100]))
            else:
                wrong.append((place, what, "was taken"))
    assert wrong == []


def test_no_exception_without_a_case():
    for start, _, kind in NO_ARRAYS:
        assert any(name.startswith(start) for name in TAKE_ARRAYS), start
        assert kind in ("", *JUNK)
