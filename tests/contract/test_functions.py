"""Every public function, and the methods that answer: kinds of arrays, bits, models, threads."""

import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass

import cases_bottlenecks  # noqa: F401
import cases_conceptlab  # noqa: F401
import cases_unlearning  # noqa: F401
import pytest
import torch
from answers import arrays, bits, differences, facts, far, leaves
from cases import CASES, KINDS, Broke, breaking, models_in
from discovery import estimators, offered_objects
from exceptions import CHANGES, CLASSES, DTYPES, FUNCTIONS, THREADS, UNBROKEN
from reports import REPORTS, SAVED

from conceptlab.errors import ConceptlabError

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = sorted(CASES)
TAKE_ARRAYS = [name for name in NAMES if CASES[name].answers != "none"]


def without_variant(name):
    return name.split("[")[0]


# ------------------------------------------------------------------- coverage
def test_every_public_function_is_under_contract():
    functions = {n for n, value in offered_objects().items() if inspect.isfunction(value)}
    covered = {without_variant(name) for name in NAMES}
    assert sorted(functions - covered - set(FUNCTIONS)) == [], "add them to a table of cases"
    assert sorted(set(FUNCTIONS) - functions) == [], "an exception for what is not there"
    assert sorted(set(FUNCTIONS) & covered) == [], "an exception that is none"
    for table in (CHANGES, DTYPES, THREADS, UNBROKEN):
        assert sorted(set(table) - set(NAMES) - covered) == []


def test_every_public_class_is_under_contract():
    """By a method in the tables, as an estimator, a view or a folder, or as an answer's record."""
    held = {without_variant(name).rpartition(".")[0] for name in NAMES}
    known = {*estimators().values(), *REPORTS, *SAVED}
    missing = [
        name
        for name, value in offered_objects().items()
        if inspect.isclass(value)
        and not issubclass(value, Exception)
        and value not in known
        and not is_dataclass(value)  # what functions of the tables answer with, and settings
        and not held & {f"{c.__module__}.{c.__qualname__}" for c in value.__mro__}
    ]
    assert sorted(set(missing) - set(CLASSES)) == [], "add a case for one of its methods"
    assert sorted(set(CLASSES) - set(missing)) == [], "an exception that is none"


def test_the_tables_hold_what_they_say():
    """Cases name the public function itself, not a double of it."""
    for name, case in CASES.items():
        owner = sys.modules[case.function.__module__]
        for part in case.function.__qualname__.split("."):
            owner = inspect.getattr_static(owner, part)
            owner = getattr(owner, "fn", owner)  # what scikit-learn's available_if holds
        own, given = (
            inspect.unwrap(getattr(found, "__func__", found)) for found in (owner, case.function)
        )
        assert own is given, name


# ----------------------------------------------------- bits, arguments, state
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_twice_and_arguments_unchanged(name, global_state_untouched):
    case = CASES[name]
    first = case.call()
    models = models_in(first)
    before, of_models = arguments(first), [facts(model) for model in models]
    kept = bits(first())
    if not may_change(case):
        assert differences(before, arguments(first)) == [], "changed its arguments"
    assert of_models == [facts(model) for model in models], "changed the model"
    assert differences(kept, bits(case.call()())) == [], "answers differ"


def may_change(case):
    return case.answers == "self" or without_variant(case.name) in CHANGES


def arguments(call):
    """Bits of the arrays, texts and numbers among the arguments."""
    plain = {n: v for n, v in enumerate(call.args) if not isinstance(v, torch.nn.Module)}
    return bits({**plain, **call.kwargs})


# ------------------------------------------------------------- kinds of arrays
@pytest.mark.parametrize("name", TAKE_ARRAYS)
def test_every_kind_of_array(name):
    case = CASES[name]
    expected = case.call()()
    for kind, (dtype, tolerance) in KINDS.items():
        call = case.call(kind)
        before = arguments(call)
        if kind in DTYPES.get(without_variant(name), {}):
            with pytest.raises(ConceptlabError):
                call()
            continue
        found = call()
        if not may_change(case):
            assert differences(before, arguments(call)) == [], f"{kind}: changed its arguments"
        check_kind(case, kind, found, dtype)
        assert far(found, expected, case.tolerance * tolerance) == [], kind


def check_kind(case, kind, found, dtype):
    tensors = {type(a) is torch.Tensor for a in arrays(found)}
    if case.answers in ("numpy", "self"):
        held = [path for path, leaf in leaves(found) if isinstance(leaf, torch.Tensor)]
        assert case.answers == "self" or held == [], f"{kind}: tensors at {held}"
    elif case.answers == "array":
        return
    elif case.answers == "tensor":
        assert tensors <= {True}, kind
    else:
        assert tensors == {kind.startswith("torch")}, f"{kind}: answers in another library"
    if case.answers == "like":
        expected = str(dtype).removeprefix("torch.")
        assert {str(a.dtype).removeprefix("torch.") for a in arrays(found)} == {expected}, kind


# --------------------------------------------------------------- exceptions
def breakable():
    found = []
    for name in NAMES:
        built = inspect.getsource(CASES[name].build)
        if any(word in built for word in ("model()", "split()", "breakable", "fitted_craft")):
            found.append(name)
    return found


@pytest.mark.parametrize("name", breakable())
def test_a_model_that_breaks_comes_back_as_it_was(name, global_state_untouched):
    case = CASES[name]
    call = case.call()
    with breaking() as seen:
        call()
        passes = seen.passes
    if without_variant(name) in UNBROKEN:
        assert passes == 0, "it does run the model"
        return
    assert passes > 0
    for at in sorted({1, (passes + 1) // 2, passes}):
        call = case.call()
        models, before = models_in(call), arguments(call)
        of_models = [facts(model) for model in models]
        with breaking(at), pytest.raises(Exception, match="the model broke") as caught:
            call()
        assert isinstance(caught.value, Broke | ConceptlabError)
        assert of_models == [facts(model) for model in models], f"pass {at} of {passes}"
        if not may_change(case):
            assert differences(before, arguments(call)) == [], f"pass {at} of {passes}"


# ------------------------------------------------------------------- threads
N_THREADS = 8


@pytest.fixture
def hasty_threads():
    """Let threads take turns as often as they can."""
    kept = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(kept)


def on_one_thread(call):
    torch.set_num_threads(1)
    return bits(call())


@pytest.mark.parametrize("name", [n for n in NAMES if without_variant(n) not in THREADS])
def test_eight_threads_get_the_bits_of_one(name, hasty_threads, global_state_untouched):
    case = CASES[name]
    with ThreadPoolExecutor(1) as one:  # as many threads of torch's as below, in a thread too
        alone = one.submit(on_one_thread, case.call()).result()
    shared = case.call()
    draws = any(isinstance(v, torch.Generator) for v in (*shared.args, *shared.kwargs.values()))
    calls = [case.call() if draws else shared for _ in range(N_THREADS)]
    models = models_in(shared)
    of_models = [facts(model) for model in models]
    together = threading.Barrier(N_THREADS)

    def run(call):
        together.wait()
        return on_one_thread(call)

    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(run, calls))
    for number, answer in enumerate(found):
        assert differences(alone, answer) == [], f"thread {number}"
    assert of_models == [facts(model) for model in models], "changed the model"
