"""Docstrings fit their signatures, say what comes back, and show how."""

import doctest
import inspect
import re
from functools import cache

import pytest
from discovery import PACKAGES, offered_objects, public_objects
from exceptions import DOCSTRINGS, EXAMPLES
from numpydoc.validate import Validator, get_doc_object  # type: ignore[import-untyped]
from sklearn.base import BaseEstimator

CALLABLE = {name: value for name, value in public_objects().items() if callable(value)}
FUNCTIONS = sorted(name for name, value in CALLABLE.items() if inspect.isfunction(value))
CLASSES = sorted(name for name, value in CALLABLE.items() if inspect.isclass(value))


def exported(name):
    """Whether a package offers it, or the reference tells of it."""
    return any(value is CALLABLE[name] for value in offered_objects().values())


@cache
def document(name):
    return Validator(get_doc_object(Validator._load_obj(name)))


def parameters(name):
    """Documented and real parameters; both without the stars."""
    doc = document(name)
    return [p.lstrip("*") for p in doc.doc_all_parameters], [
        p.lstrip("*") for p in doc.signature_parameters
    ]


def positional_of(name):
    """Parameters whose order a caller can see."""
    value = document(name).obj
    kinds = inspect.signature(value).parameters.values()
    return {p.name for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)}


def faults_of(name, *, complete):
    doc = document(name)
    if not doc.raw_doc:
        return ["has no docstring"]
    if not doc.summary or not doc.summary.rstrip().endswith((".", ")", "!", ":")):
        return ["the summary is no sentence"]
    documented, real = parameters(name)
    documented = [part.strip().lstrip("*") for entry in documented for part in entry.split(",")]
    found = []
    if unknown := [p for p in documented if p not in real]:
        found.append(f"documents {unknown}, which the signature does not have")
    missing = [p for p in real if p not in documented]
    if missing and (complete or documented):
        found.append(f"does not document {missing}")
    positional = [p for p in real if p in positional_of(name)]
    if documented and not unknown and [p for p in documented if p in positional] != positional:
        found.append(f"documents parameters in the order {documented}, not {positional}")
    return found


def allowed(name):
    return [fault for key, fault in DOCSTRINGS.items() if key == name]


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if exported(n)])
def test_exported_function(name):
    found = faults_of(name, complete=True)
    function = CALLABLE[name]
    back = inspect.signature(function).return_annotation
    doc = document(name)
    if back not in (None, "None") and not (
        doc.returns or doc.yields or "give" in doc.summary.lower()
    ):
        found.append(f"answers {back} and has no Returns section")
    assert not found or allowed(name), found


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if not exported(n)])
def test_function_of_a_module(name):
    found = faults_of(name, complete=False)
    assert not found or allowed(name), found


ELSEWHERE = re.compile(r":(?:func|meth|class|mod|data):`|[Ss]ee ``")


def unexplained(cls, key, function):
    """Parameters that neither a section nor a sentence names, here or in a base class."""
    bases = [getattr(base, key, None) for base in cls.__mro__[1:]]
    text = "\n".join(inspect.cleandoc(f.__doc__ or "") for f in (function, *bases) if f)
    names = [p for p in list(inspect.signature(function).parameters) if p not in ("self", "cls")]
    if len(names) < 2 or ELSEWHERE.search(text):
        return []  # one argument is what the sentence speaks of
    usual = {"X", "y", "ax"} if issubclass(cls, BaseEstimator) else {"ax"}
    return [n for n in names if n not in usual and not re.search(rf"\b{n}\b", text)]


@pytest.mark.parametrize("name", [n for n in CLASSES if exported(n)])
def test_methods_explain_their_parameters(name):
    cls, found = CALLABLE[name], {}
    for key, member in vars(cls).items():
        function = getattr(member, "__func__", member)
        if key[0] != "_" and inspect.isfunction(function) and _is_own(function):
            found |= {key: names} if (names := unexplained(cls, key, function)) else {}
    assert not found or allowed(name), found


def _is_own(member):
    return (getattr(member, "__module__", "") or "").split(".")[0] in PACKAGES


@pytest.mark.parametrize("name", CLASSES)
def test_class_and_its_methods(name):
    cls = CALLABLE[name]
    found = []
    if not (cls.__doc__ or "").strip():
        found.append("has no docstring")
    if exported(name) and not issubclass(cls, Exception):
        documented = document(name).doc_all_parameters or "Attributes" in (cls.__doc__ or "")
        has_parameters = any(
            p.kind is not p.VAR_KEYWORD
            for p in list(inspect.signature(cls.__init__).parameters.values())[1:]
        )
        if has_parameters and not documented:
            found.append("documents neither parameters nor attributes")
        if document(name).doc_all_parameters:
            found += faults_of(name, complete=True)
    for key, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if key.startswith("_") or not inspect.isfunction(function) or not _is_own(function):
            continue
        if not function.__doc__ and not any(
            getattr(getattr(base, key, None), "__doc__", None) for base in cls.__mro__[1:]
        ):
            found.append(f"{key} has no docstring")
        elif function.__doc__:
            found += [f"{key} {fault}" for fault in faults_of(f"{name}.{key}", complete=False)]
    assert not found or allowed(name), found


def shown(value):
    """Whether an example of the docstring is run, not only read."""
    examples = doctest.DocTestParser().get_examples(value.__doc__ or "")
    return any(
        not example.options.get(doctest.SKIP)
        and not example.source.startswith(("import ", "from "))
        for example in examples
    )


def test_everything_that_is_offered_has_an_example_that_runs():
    """tests/docs/test_doctests.py runs them."""
    without = {
        name
        for name, value in offered_objects().items()
        if not (inspect.isclass(value) and issubclass(value, Exception)) and not shown(value)
    }
    assert sorted(without - set(EXAMPLES)) == [], "show how it is used"
    assert sorted(set(EXAMPLES) - without) == [], "an exception that is none"
