"""Shapes that docstrings promise, checked by jaxtyping and beartype as the functions are called.

A line such as ``A : array-like of shape (n, p)`` binds ``n`` and ``p``; all arrays of the call and
its answer must agree. In tests only: the packages check what a user gives in their own words.
"""

import inspect
import re
import types
from itertools import pairwise
from typing import Any

import cases_bottlenecks  # noqa: F401
import cases_conceptlab  # noqa: F401
import cases_unlearning  # noqa: F401
import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from cases import CASES
from jaxtyping import Float64, Shaped, TypeCheckError, jaxtyped

pytestmark = pytest.mark.filterwarnings("ignore")
ENTRY = re.compile(r"^(?P<names>[\w, ]+) : .*?of shape \((?P<shape>[^()]*)\)")
ANSWER = re.compile(r"^.*?of shape \((?P<shape>[^()]*)\)(?P<rest>.*)$")
OTHER = re.compile(r" or |[Mm]apping|dict|[Ss]equence")
AXIS = re.compile(r"[A-Za-z]\w*|\d+|\.\.\.")


def hint(shape: str, *, exact: bool = False, optional: bool = False) -> Any:
    """Give the type of arrays of a shape as docstrings write it; None for one that is not plain."""
    axes = [axis.strip() for axis in shape.split(",") if axis.strip()]
    if not axes or not all(AXIS.fullmatch(axis) for axis in axes):
        return None
    dims = " ".join(axes)
    if exact:
        return Float64[np.ndarray, dims]
    found = Shaped[np.ndarray, dims] | Shaped[torch.Tensor, dims] | list  # lists are array-like
    return found | None if optional else found


def sections(text: str) -> dict[str, list[str]]:
    """Split a numpydoc docstring; the lines of a section that are not indented."""
    lines = inspect.cleandoc(text).splitlines()
    found: dict[str, list[str]] = {}
    name = ""
    for line, under in pairwise([*lines, ""]):
        if under and set(under) == {"-"} and len(under) == len(line):
            name = line
        elif name and line and not line.startswith((" ", "-")):
            found.setdefault(name, []).append(line)
    return found


def hints_of(function: Any) -> dict[str, Any]:
    """Read the shapes of a function's arguments and answer out of its docstring."""
    parts = sections(function.__doc__ or "")
    found: dict[str, Any] = {}
    for line in parts.get("Parameters", ()):
        if (match := ENTRY.match(line)) and not OTHER.search(line):
            made = hint(match["shape"], optional="optional" in line or "None" in line)
            found |= {name.strip(): made for name in match["names"].split(",")}
    answers = parts.get("Returns", [])
    if len(answers) == 1 and (match := ANSWER.match(answers[0])) and " or " not in answers[0]:
        named = answers[0].split(" : ")[-1]
        exact = named.startswith("ndarray") and match["rest"].strip(" .") == ", float64"
        found["return"] = hint(match["shape"], exact=exact)
    return {name: made for name, made in found.items() if made is not None}


def checked(function: types.FunctionType, hints: dict[str, Any]) -> Any:
    """Copy a function, with shapes as its annotations, checked together in each call."""
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = hints
    return jaxtyped(copy, typechecker=beartype)


SHAPED = {
    name: hints
    for name, case in CASES.items()
    if isinstance(case.function, types.FunctionType) and (hints := hints_of(case.function))
}


def test_most_cases_with_arrays_say_their_shapes():
    assert len(SHAPED) > 80


@pytest.mark.parametrize("kind", ["numpy float64", "torch float32"])
@pytest.mark.parametrize("name", SHAPED)
def test_shapes_are_as_the_docstring_says(name, kind):
    call = CASES[name].call(kind)
    checked(call.function, SHAPED[name])(*call.args, **call.kwargs)


def test_a_wrong_word_is_noticed():
    def turned(X, Y):
        """Turn round.

        Parameters
        ----------
        X : array-like of shape (n, p)
            Rows.
        Y : array-like of shape (n, q)
            More.

        Returns
        -------
        ndarray of shape (n, p), float64
        """
        return X.T

    hints = hints_of(turned)
    assert set(hints) == {"X", "Y", "return"}
    rows, wrong = np.zeros((3, 2)), np.zeros((4, 2))
    for X, Y in ((rows, rows), (rows, wrong), (np.zeros((3, 3), np.float32), rows)):
        with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
            checked(turned, hints)(X, Y)
    assert checked(turned, hints)(np.eye(3), rows).shape == (3, 3)
