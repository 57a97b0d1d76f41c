"""What is in the wheel and the source archive, and that they work away from the sources."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("attribution", "bottlenecks", "conceptlab", "unlearning")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def sources():
    """Every file of the packages that a user needs, by its path from the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy, so that building leaves nothing in the folder that is tested."""
    copy = tmp_path_factory.mktemp("checkout") / "conceptlab with space"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", "_build", "_generated", "*_execute")
    for name in (*PACKAGES, "docs", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=junk)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """Built offline, by the setuptools that is here."""
    pytest.importorskip("setuptools", minversion="77")
    out = tmp_path_factory.mktemp("dist")
    build = f"import setuptools.build_meta as b; b.build_wheel({str(out)!r})"
    run(sys.executable, "-c", build, cwd=checkout)
    (path,) = out.glob("*.whl")
    return path


def content(path):
    """Give the members with their bytes, without the folder of the distribution's own facts."""
    with zipfile.ZipFile(path) as archive:
        return {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}


def facts(path, name):
    with zipfile.ZipFile(path) as archive:
        (member,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(member).decode()


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    members = content(wheel)
    assert set(members) == sources()
    for package in PACKAGES:
        assert f"{package}/py.typed" in members
    for model in ("classifier", "encoder", "generator", "judge"):
        name = f"conceptlab/assets/{model}/tensors.safetensors"
        assert members[name] == (ROOT / name).read_bytes()
    assert "conceptlab/vocabulary/terms.json" in members


def test_the_wheel_says_what_the_project_says(wheel):
    points = configparser.ConfigParser(delimiters=("=",))
    points.read_string(facts(wheel, "entry_points.txt"))
    assert dict(points["console_scripts"]) == PROJECT["scripts"]
    for group, entries in PROJECT["entry-points"].items():
        assert dict(points[group]) == entries
    metadata = facts(wheel, "METADATA")
    assert f"Version: {PROJECT['version']}\n" in metadata
    assert "License-Expression: MIT\n" in metadata
    for line in PROJECT["dependencies"]:
        assert f"Requires-Dist: {line}\n" in metadata
    assert "# conceptlab\n" in metadata  # the README
    assert "MIT License" in facts(wheel, "licenses/docs/LICENSE")


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel(checkout, wheel, tmp_path):
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, checkout, cwd="/")
    (archive,) = tmp_path.glob("*.tar.gz")
    (built,) = tmp_path.glob("*.whl")
    assert content(built) == content(wheel)  # python -m build makes it from the archive
    with tarfile.open(archive) as members:
        names = {name.split("/", 1)[1] for name in members.getnames() if "/" in name}
    assert sources() <= names
    assert {"docs/LICENSE", "README.md", "pyproject.toml"} <= names


@pytest.mark.slow
def test_the_wheel_works_in_a_fresh_environment(wheel, tmp_path):
    """Our packages come from the wheel; what they need is reached through a path file."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    installed = Path(run(python, "-c", ask, cwd=tmp_path).strip())
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (installed / "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n")

    elsewhere = tmp_path / "a folder of ünrelated work"
    elsewhere.mkdir()
    clean = {"PYTHONPATH": "", "CONCEPTLAB_PROGRESS": "0", "COLUMNS": "200"}
    for package in PACKAGES:
        place = run(python, "-c", f"import {package}; print({package}.__file__)", cwd=elsewhere)
        assert Path(place.strip()) == installed / package / "__init__.py"
    command = environment / "bin" / "conceptlab"
    assert f"conceptlab from {installed}" in run(command, "doctor", cwd=elsewhere, **clean)
    job = ("explain", "--max-images", "24", "--concepts", "4", "--depth", "0")
    shown = run(command, *job, cwd=elsewhere, **clean)
    assert "Concepts of layer4" in shown
    report = elsewhere / "conceptlab-report" / "explain.html"
    assert report.stat().st_size > 50_000
    for name in ("zeroshot", "bottleneck", "removal", "unlearn", "unlearn-gan", "audit"):
        assert "Usage" in run(command, name, "--help", cwd=elsewhere, **clean)
    loads = (
        "from conceptlab import load_encoder; from conceptlab import datasets as d; "
        "load_encoder('embedded').encode_text(['red']); d.load_embedded_gan(); "
        "d.load_embedded_judge()"
    )
    run(python, "-c", loads, cwd=elsewhere)
