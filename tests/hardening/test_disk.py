"""Places that cannot be written: full, read-only, taken, or no places at all."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from damage import listing
from writers import RESUME, SLOW_TO_DRAW, WRITERS

from conceptlab.errors import CheckpointError
from conceptlab.training import checkpoint

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def at_every_chance(monkeypatch):
    """Checkpoints are written at once."""
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)


def refused(write, place, folder):
    """Writing must fail with a message, and leave the folder as it was; give the code."""
    before = listing(folder)
    with pytest.raises(CheckpointError) as caught:
        write(place)
    assert listing(folder) == before
    return caught.value.code


# --------------------------------------------------------------------- a full disk
@contextlib.contextmanager
def no_room(most=32):
    """Files cannot grow beyond a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_files_that_cannot_grow(name, tmp_path):
    def write(place):
        with no_room():
            WRITERS[name](place)

    WRITERS[name](tmp_path / "warm")  # what the first use imports or caches is not meant
    for made in (tmp_path / "sub", tmp_path):
        made.mkdir(exist_ok=True)
        with pytest.raises(CheckpointError) as caught:
            write(made / "x")
        assert caught.value.code == "CL-CHECKPOINT-TARGET"
        left = [p for p in made.rglob("*") if p.is_file() and "warm" not in p.parts]
        assert left == [], "a part of a file is left"


@pytest.mark.parametrize("name", [n for n in WRITERS if n.startswith(("saved", "page", "a text"))])
def test_what_stood_there_before_stays(name, tmp_path):
    WRITERS[name](tmp_path / "x")

    def write(place):
        with no_room():
            WRITERS[name](place)

    assert refused(write, tmp_path / "x", tmp_path) == "CL-CHECKPOINT-TARGET"


FULL = """
import os, sys
sys.path += {path!r}
os.chdir("/")
import writers
from conceptlab.errors import CheckpointError
from conceptlab.training import checkpoint
from pathlib import Path
place = Path({place!r})
checkpoint.EVERY_SECONDS = 0.0
for number, (name, write) in enumerate(writers.WRITERS.items()):
    try:
        write(place / str(number))
    except CheckpointError as error:
        assert error.code == "CL-CHECKPOINT-TARGET", error
        assert "No space left" in str(error), error
    else:
        print("written:", name)
    left = [str(p) for p in place.rglob("*") if p.is_file() and p.name != "filler"]
    if left:
        print("left:", name, left)
"""


def test_a_disk_that_is_full(tmp_path):
    """A file system of its own, filled to the last byte."""
    code = FULL.format(path=[p for p in sys.path if p], place=str(tmp_path))
    filled = f"""
set -e
mount -t tmpfs -o size=64k none {tmp_path}
head -c 100000 /dev/zero > {tmp_path}/filler 2> /dev/null || true
exec {sys.executable} -W ignore -c "$CODE"
"""
    run = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    may = (
        shutil.which("unshare")
        and not subprocess.run(
            [*run, f"mount -t tmpfs none {tmp_path}"], capture_output=True, check=False
        ).returncode
    )
    if not may:
        pytest.skip("needs the right to mount a file system in a namespace")
    done = subprocess.run(
        [*run, filled],
        env={**os.environ, "CODE": code},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""


# --------------------------------------------------------------------- read-only
@pytest.fixture
def read_only():
    """Give a folder that this process may look into, and not write; also to root."""
    folder = Path(tempfile.mkdtemp(prefix="conceptlab-test-"))
    (folder / "file").write_text("here")
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def as_nobody():
    """Give up root's right to write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_read_only(name, tmp_path, read_only):
    WRITERS[name](tmp_path / "warm")

    def write(place):
        with as_nobody():
            with pytest.raises(PermissionError):
                (place.parent / "probe").write_text("x")
            WRITERS[name](place)

    assert refused(write, read_only / "x", read_only) == "CL-CHECKPOINT-TARGET"
    assert stat.S_IMODE(read_only.stat().st_mode) == 0o555


# ------------------------------------------------------------------ no such places
@pytest.mark.parametrize("name", [n for n in WRITERS if n not in SLOW_TO_DRAW])
def test_no_places(name, tmp_path):
    (tmp_path / "file").write_text("here")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.txt").write_text("years of work")
    taken = ["file", "others"]
    if name.startswith(("page", "a text", "concepts")):
        taken = ["others"]  # a file is replaced by a file, as everywhere
    if name in ("embeddings", "removed images"):
        taken = ["file"]  # these add to a folder
    for place in (*taken, "file/x", "x" * 300, "zero\0byte"):
        code = refused(WRITERS[name], tmp_path / place, tmp_path)
        # What would go on from a checkpoint reads it first, and says what is there instead.
        assert code == "CL-CHECKPOINT-TARGET" or name in RESUME


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_any_step_of_writing_may_fail(step, error, tmp_path, monkeypatch):
    """Quotas, broken disks and network folders fail late."""
    for name in ("a text", "saved ConceptBank", "activations", "removed images"):
        place = tmp_path / name
        with monkeypatch.context() as patch:
            broken = _raising(error, {"open": open, "fsync": os.fsync, "replace": os.replace}[step])
            if step == "open":
                patch.setattr("conceptlab.io.files.open", broken, raising=False)
            else:
                patch.setattr(os, step, broken)
                patch.setattr(os, "rename", broken if step == "replace" else os.rename)
            if step == "fsync" and name == "removed images":
                continue  # a cache that does not wait for the disk
            with pytest.raises(CheckpointError, match=os.strerror(error)):
                WRITERS[name](place)
        left = [p for p in place.rglob("*") if p.is_file()]
        assert left == []


def _raising(error, function):
    def broken(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    return broken
