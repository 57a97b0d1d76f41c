import pytest

from conceptlab.errors import (
    CODES,
    CheckpointError,
    ConceptlabError,
    DependencyError,
    InputError,
    SpaceMismatchError,
    SplitError,
    unknown_name,
)


def test_the_code_ends_the_message():
    error = InputError("x must be 2, got 3.", code="CL-INPUT-RANGE")
    assert str(error) == "x must be 2, got 3. [CL-INPUT-RANGE]"
    assert error.code == "CL-INPUT-RANGE"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InputError, ValueError),
        (SplitError, ValueError),
        (SpaceMismatchError, ValueError),
        (DependencyError, ImportError),
        (CheckpointError, OSError),
    ],
)
def test_each_error_is_also_the_built_in_one(kind, builtin):
    error = kind("broken")
    assert isinstance(error, builtin)
    assert isinstance(error, ConceptlabError)
    assert error.code in CODES


def test_an_unknown_code_is_a_bug_that_shows():
    with pytest.raises(KeyError, match="CL-NO-SUCH"):
        InputError("x", code="CL-NO-SUCH")


def test_unknown_name_guesses_the_nearest():
    error = unknown_name("estimator", "jansn", ["jansen", "glen"], hint="See the docs.")
    assert "Did you mean 'jansen'?" in str(error)
    assert "Known: jansen, glen." in str(error)
    assert "See the docs." in str(error)
