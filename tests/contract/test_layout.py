"""Where tests lie: kinds on top, packages mirrored below, worlds apart, no test in a test."""

import ast

import pytest
from discovery import ROOT

MIRRORS = [ROOT / "tests" / kind for kind in ("unit", "oracle", "property")]


def test_folders_mirror_the_packages():
    """So that the tests of a file are in the folder of the same name."""
    folders = [
        path.parent.relative_to(kind) for kind in MIRRORS for path in kind.rglob("test_*.py")
    ]
    assert len(set(folders)) > 20
    assert [str(folder) for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("kind", MIRRORS, ids=lambda kind: kind.name)
def test_only_tests_lie_between_them(kind):
    assert [str(p) for p in kind.rglob("*.py") if not p.name.startswith("test_")] == []


def test_no_test_imports_a_test():
    found = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            found += [(path.name, name) for name in names if name.split(".")[-1][:5] == "test_"]
    assert found == []
