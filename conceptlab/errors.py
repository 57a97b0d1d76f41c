"""The errors that conceptlab raises.

Every message says what was expected, what came and how to mend it, and ends with
a code such as ``[CL-INPUT-NONFINITE]``. The code has a page in ``docs/errors/``.
All errors derive from :class:`ConceptlabError` and from the built-in type that
a caller would expect (``ValueError``, ``ImportError``, ...).
"""

from __future__ import annotations

__all__ = [
    "CODES",
    "CheckpointError",
    "ConceptlabError",
    "DependencyError",
    "DistributedError",
    "GeneratorError",
    "InputError",
    "RemoverError",
    "SpaceMismatchError",
    "SplitError",
    "unknown_name",
]

import difflib
from collections.abc import Iterable

CODES: dict[str, str] = {
    "CL-INPUT-NONFINITE": "An array holds NaN or infinity",
    "CL-INPUT-NEGATIVE": "A method for non-negative data got negative values",
    "CL-INPUT-RANK": "An array has the wrong number of axes",
    "CL-INPUT-SHAPE": "The shapes of arrays do not fit together",
    "CL-INPUT-TYPE": "An argument has the wrong type",
    "CL-INPUT-LAYOUT": "Images are not channels-first RGB",
    "CL-INPUT-RANGE": "Values lie outside the expected range",
    "CL-INPUT-EMPTY": "An argument that must hold something is empty",
    "CL-INPUT-FEW": "Too few samples, classes or positions",
    "CL-INPUT-MANY": "More concepts asked for than the data can carry",
    "CL-INPUT-FEATURES": "The number of features differs from the fit",
    "CL-INPUT-NAMES": "Concept names are duplicate, empty or not strings",
    "CL-INPUT-ZERO": "A vector has length zero",
    "CL-INPUT-TEXT": "A text is longer than the encoder's context",
    "CL-INPUT-TARGET": "A target is not an output of the model",
    "CL-INPUT-LABELS": "Labels do not fit the task",
    "CL-INPUT-OPTION": "A name or option is not known",
    "CL-INPUT-DEVICE": "A device is not available",
    "CL-INPUT-FILE": "A file cannot be read as what it should be",
    "CL-GENERATOR-FAILED": "A text generator raised, or gave no usable texts",
    "CL-REMOVER-FAILED": "An object remover raised, or gave no usable images",
    "CL-RANK-LOST": "A process of a distributed job ended, or cannot be reached",
    "CL-SPLIT-LAYER": "The layer does not exist in the model",
    "CL-SPLIT-RUNS": "The layer runs more than once, or never",
    "CL-SPLIT-MISMATCH": "h(g(x)) differs from f(x)",
    "CL-SPLIT-BATCH": "The answer for a sample depends on its batch",
    "CL-SPLIT-OUTPUT": "The model or the layer does not return one tensor",
    "CL-SPLIT-LAYOUT": "The layer's activations have an unknown layout",
    "CL-SPACE-MISMATCH": "A bank or vector comes from another encoder",
    "CL-DEPENDENCY-MISSING": "An optional package is missing",
    "CL-DEPENDENCY-BROKEN": "An installed package cannot be imported",
    "CL-CHECKPOINT-MISSING": "A checkpoint or one of its files is not there",
    "CL-CHECKPOINT-DAMAGED": "A checkpoint was truncated or changed",
    "CL-CHECKPOINT-NEWER": "A checkpoint was written by a newer version",
    "CL-CHECKPOINT-KIND": "A checkpoint holds another kind of object",
    "CL-CHECKPOINT-UNSAFE": "A file could run code when it is loaded",
    "CL-CHECKPOINT-TARGET": "A checkpoint cannot be written there",
}
"""Every code with its title; ``docs/errors/<code>.md`` explains each."""


class ConceptlabError(Exception):
    """Base of all errors of the package.

    Parameters
    ----------
    message : str
        What was expected, what came, and how to mend it.
    code : str
        A key of :data:`CODES`; it is appended to the message in brackets.

    Attributes
    ----------
    code : str
        The code, for programs that react to one kind of error.
    """

    default_code = "CL-INPUT-TYPE"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        code = code or self.default_code
        if code not in CODES:
            raise KeyError(f"{code!r} is not an error code of conceptlab")
        self.code = code
        super().__init__(f"{message} [{code}]")


class InputError(ConceptlabError, ValueError):
    """An argument does not fit: wrong shape, range, name or type."""


class SplitError(ConceptlabError, ValueError):
    """A model cannot be cut at the layer that was asked for."""

    default_code = "CL-SPLIT-LAYER"


class SpaceMismatchError(InputError):
    """A bank, vector or feature matrix comes from another encoder."""

    default_code = "CL-SPACE-MISMATCH"


class DependencyError(ConceptlabError, ImportError):
    """A package is missing, or is installed in a version that cannot work."""

    default_code = "CL-DEPENDENCY-MISSING"


class GeneratorError(ConceptlabError, RuntimeError):
    """A text generator raised an error, or returned no usable texts."""

    default_code = "CL-GENERATOR-FAILED"


class RemoverError(ConceptlabError, RuntimeError):
    """An object remover raised an error, or returned no usable images."""

    default_code = "CL-REMOVER-FAILED"


class DistributedError(ConceptlabError, RuntimeError):
    """A process of a distributed job ended, or cannot be reached."""

    default_code = "CL-RANK-LOST"


class CheckpointError(ConceptlabError, OSError):
    """A file is missing, damaged, unsafe, or of a newer format."""

    default_code = "CL-CHECKPOINT-DAMAGED"


def unknown_name(
    kind: str,
    name: object,
    options: Iterable[str],
    *,
    code: str = "CL-INPUT-OPTION",
    hint: str = "",
) -> InputError:
    """Build the error for a name that is not one of `options`.

    Parameters
    ----------
    kind : str
        What the name stands for, such as ``"estimator"``.
    name : object
        What the user gave.
    options : iterable of str
        The names that exist.
    code : str
        Code of the error.
    hint : str
        A last sentence, such as where to see all names.

    Returns
    -------
    InputError
        To be raised by the caller; names the nearest options first.

    Examples
    --------
    >>> print(unknown_name("rule", "tirm", ["trim", "mean"]))
    Unknown rule 'tirm'. Did you mean 'trim'? Known: trim, mean. [CL-INPUT-OPTION]
    """
    known = list(options)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    listing = f" Known: {shown}." if known else ""
    return InputError(
        f"Unknown {kind} {name!r}.{guess}{listing}{' ' + hint if hint else ''}", code=code
    )
