"""What must be true of every source file, read from its syntax tree."""

import ast
from functools import cache

import pytest
from discovery import ROOT, source_files
from exceptions import ADAPTERS, NO_ALL, OPENS, PRINTS, PRIVATE_NAMES

from conceptlab.errors import CODES

FILES = source_files()
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
HEAVY = {"torchvision", "open_clip", "transformers", "captum", "matplotlib", "pandas"}


def where(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def walk():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            yield path, node


def test_the_packages_were_found():
    assert len(FILES) > 60


def test_no_file_is_over_600_lines():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := lines(path)) > 600}
    assert long == {}


def lines(path):
    return len(path.read_text("utf-8").splitlines())


def test_no_assert_in_package_code():
    found = [where(path, node) for path, node in walk() if isinstance(node, ast.Assert)]
    assert found == []


def test_no_print_in_package_code():
    found = [
        where(path, node)
        for path, node in walk()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and str(path.relative_to(ROOT)) not in PRINTS
    ]
    assert found == []


def imports(node):
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {(node.module or "").split(".")[0]}
    return set()


def test_no_pickle_and_no_unsafe_load():
    found = [where(path, node) for path, node in walk() if imports(node) & FORBIDDEN_IMPORTS]
    for path, node in walk():
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg: k.value for k in node.keywords}
        name = ast.unparse(node.func)
        safe = getattr(keywords.get("weights_only"), "value", None)
        if name == "torch.load" and safe is not True:
            found.append(where(path, node))
        if getattr(keywords.get("trust_remote_code"), "value", False) or (
            name in {"np.load", "numpy.load"}
            and getattr(keywords.get("allow_pickle"), "value", False)
        ):
            found.append(where(path, node))
        if name in {"eval", "exec"}:
            found.append(where(path, node))
    assert found == []


def test_files_are_opened_in_one_way():
    """A pipe, a device or a file without end is refused in one place: conceptlab.io."""
    names = {"open", "read_bytes", "read_text", "write_bytes", "write_text"}
    found = {
        where(path, node): str(path.relative_to(ROOT))
        for path, node in walk()
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "open")
            or (isinstance(node.func, ast.Attribute) and node.func.attr in names - {"open"})
        )
    }
    assert [place for place, file in found.items() if file not in OPENS] == []
    assert sorted(set(OPENS) - set(found.values())) == [], "an exception that is none"


def test_heavy_packages_are_imported_inside_functions():
    found = []
    for path, tree in TREES.items():
        if str(path.relative_to(ROOT)) in ADAPTERS:
            continue
        for node in tree.body:  # the top level only; TYPE_CHECKING blocks are no import
            if imports(node) & HEAVY:
                found.append(where(path, node))
    assert found == []


def test_matplotlib_is_imported_in_plot_only():
    allowed = (ROOT / "conceptlab" / "plot", ROOT / "conceptlab" / "doctor.py")
    found = []
    for path, tree in TREES.items():
        if path.is_relative_to(allowed[0]) or path == allowed[1]:
            continue
        checking = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        found += [
            where(path, node)
            for node in ast.walk(tree)
            if "matplotlib" in imports(node) and id(node) not in checking
        ]
    assert found == []


@cache
def code_literals():
    return [
        (where(path, node), node.value)
        for path, node in walk()
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("CL-")
        and node.value.isupper()
        and " " not in node.value
    ]


def test_every_code_that_is_raised_exists():
    assert [(place, code) for place, code in code_literals() if code not in CODES] == []


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_used(code):
    home = ROOT / "conceptlab" / "errors.py"
    uses = [place for place, value in code_literals() if value == code]
    outside = [place for place in uses if not place.startswith(str(home.relative_to(ROOT)))]
    inside = len(uses) - len(outside)
    assert outside or inside > 1, f"{code} is in CODES, and nothing raises it"


def test_every_module_says_what_it_offers_and_has_a_docstring():
    without_all, without_doc = [], []
    for path, tree in TREES.items():
        name = str(path.relative_to(ROOT))
        targets = [
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for part in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for target in ast.walk(part)
            if isinstance(target, ast.Name)
        ]
        if "__all__" not in targets and name not in NO_ALL:
            without_all.append(name)
        if tree.body and ast.get_docstring(tree) is None:
            without_doc.append(name)
    assert without_all == []
    assert without_doc == []


def test_no_path_of_a_machine_and_no_unfinished_mark():
    marks = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "/home/", "/work/")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if any(mark in line for mark in marks)
    ]
    assert found == []


def names_of_its_own(tree):
    """What a file defines, binds, or keeps on `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls"):
            yield node.attr


def private_uses(tree):
    """Private names that another file's code or object has."""
    own = set(names_of_its_own(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls", "super()") and node.attr not in own:
                yield node, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, alias.name) for alias in node.names)


def test_no_private_name_of_another_object_outside_its_file():
    found = [
        (where(path, node), name)
        for path, tree in TREES.items()
        for node, name in private_uses(tree)
        if name.startswith("_") and not name.startswith("__")
    ]
    assert [use for use in found if use[1] not in PRIVATE_NAMES] == []
    assert sorted(PRIVATE_NAMES - {name for _, name in found}) == [], "an exception that is none"
