"""Where the four packages come from, and what importing them costs."""

import importlib.metadata
import importlib.resources
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from discovery import FAILURES, PACKAGES, ROOT, exported_objects, public_objects

# Not pandas: scikit-learn imports it where it is installed.
HEAVY = ("torchvision", "open_clip", "transformers", "captum", "matplotlib", "typer")


def test_every_module_imports_and_every_public_name_is_there():
    assert public_objects()
    assert exported_objects()
    assert FAILURES == {}


@pytest.mark.parametrize("name", PACKAGES)
def test_name_resolves_to_our_distribution(name):
    spec = importlib.util.find_spec(name)
    assert Path(spec.origin).resolve() == ROOT / name / "__init__.py"
    owners = importlib.metadata.packages_distributions().get(name, [])
    assert set(owners) <= {"conceptlab"}, "another distribution owns the name"


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_typed(name):
    assert (importlib.resources.files(name) / "py.typed").is_file()


def run(code: str):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_conceptlab_takes_nothing_heavy():
    """Also not torch: public names are imported on first use."""
    loaded = run(
        "import sys, json; before = set(sys.modules); import conceptlab; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    assert [name for name in loaded if name.split(".")[0] in {*HEAVY, "torch", "sklearn"}] == []
    assert len(loaded) < 150  # as a measure of time that does not depend on the machine


def test_asking_for_help_takes_no_torch():
    loaded = run(
        "import sys, json, io, contextlib\n"
        "from conceptlab import cli\n"
        "sys.argv = ['conceptlab', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    cli.main()\n"
        "print(json.dumps([m for m in ('torch', 'scipy', 'sklearn') if m in sys.modules]))"
    )
    assert loaded == []


def test_using_public_names_takes_nothing_heavy():
    loaded = run(
        "import sys, json, conceptlab\n"
        "for name in conceptlab.__all__: getattr(conceptlab, name)\n"
        "import attribution.explain\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    assert loaded == []


def test_public_names_of_conceptlab_are_there_and_listed():
    import conceptlab

    for name in conceptlab.__all__:
        assert getattr(conceptlab, name) is not None
        assert name in dir(conceptlab)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        conceptlab.nothing  # noqa: B018


def test_version_is_the_distribution_s():
    import conceptlab

    assert conceptlab.__version__ == importlib.metadata.version("conceptlab")


def test_entry_points_lead_to_functions():
    for group in ("conceptlab.commands", "conceptlab.benchmarks"):
        for entry in importlib.metadata.entry_points(group=group):
            assert callable(entry.load()), entry
