"""What is deprecated works and says so; what is overdue fails here."""

import ast
import inspect
import warnings
from importlib.metadata import version

import pytest
from discovery import source_files
from sklearn.base import BaseEstimator, clone

from conceptlab.deprecation import KEPT, deprecated, renamed_parameters, warn_deprecated
from conceptlab.errors import InputError


def numbers(text):
    return tuple(int(part) for part in text.split(".")[:2])


def test_nothing_is_kept_longer_than_was_said():
    """Two minor versions, and it is gone."""
    major, minor = numbers(version("conceptlab"))
    calls = [
        (path.name, node.lineno, numbers(keyword.value.value))
        for path in source_files()
        if path.name != "deprecation.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1]
        in ("deprecated", "renamed_parameters", "warn_deprecated")
        for keyword in node.keywords
        if keyword.arg == "since"
    ]
    assert [c for c in calls if c[2][0] < major or c[2][1] + KEPT <= minor] == []


def test_a_function_works_and_warns_at_the_line_that_called_it():
    @deprecated(since="1.9", instead="double")
    def twice(x):
        """Give x two times."""
        return 2 * x

    with pytest.warns(FutureWarning, match=r"twice is .* since 1.9 .* 1.11: use double") as told:
        assert twice(4) == 8
    assert told[0].filename == __file__
    assert twice.__doc__ == "Give x two times."


def test_the_line_that_is_named_can_be_further_up():
    def mean(rows, kinds=None):
        if kinds is not None:
            warn_deprecated("mean(kinds=...)", since="0.3", instead="nothing")
        return sum(rows) / len(rows)

    with pytest.warns(FutureWarning, match="gone in 0.5") as told:
        mean([1, 2], kinds="x")
    assert told[0].lineno == inspect.currentframe().f_lineno - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean([1, 2])


class Doubled(BaseEstimator):
    @renamed_parameters(since="0.2", n_parts="n_shards", seed="random_state")
    def __init__(self, n_shards=2, *, random_state=None):
        self.n_shards = n_shards
        self.random_state = random_state


def test_an_estimator_takes_old_names_and_has_new_ones_only():
    with pytest.warns(FutureWarning, match=r"n_parts=\.\.\.\) is .*: use n_shards"):
        found = Doubled(n_parts=5, random_state=1)
    assert found.get_params() == {"n_shards": 5, "random_state": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clone(found).n_shards == Doubled(5).n_shards == 5


def test_both_names_at_once_are_refused():
    with pytest.raises(InputError, match=r"both are given. Give random_state") as caught:
        Doubled(seed=1, random_state=2)
    assert caught.value.code == "CL-INPUT-OPTION"
