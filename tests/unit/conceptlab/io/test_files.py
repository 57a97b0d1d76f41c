import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conceptlab.errors import CheckpointError
from conceptlab.io import swap
from conceptlab.io.files import Bundle, atomic_write, read_bundle, write_bundle

BUNDLE = Bundle(
    "Thing", {"name": "α <b>", "n": 3}, {"W": np.arange(6.0).reshape(2, 3)}, {"card.md": b"hi"}
)


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "a folder with ünïcode" / "thing", BUNDLE)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(1, 4)),
        elements=st.floats(-1, 1, width=32),
    ),
    st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4),
)
def test_round_trip(tmp_path_factory, array, data):
    path = tmp_path_factory.mktemp("bundle") / "x"
    write_bundle(path, Bundle("Thing", data, {"a": array}))
    back = read_bundle(path, "Thing")
    assert back.data == data
    assert back.tensors["a"].tobytes() == array.tobytes()


def test_everything_comes_back(folder):
    back = read_bundle(folder, "Thing")
    assert back.data == BUNDLE.data
    assert back.files == BUNDLE.files
    assert np.array_equal(back.tensors["W"], BUNDLE.tensors["W"])


@pytest.mark.parametrize("name", ["data.json", "tensors.safetensors", "card.md"])
@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_damage_is_found(folder, name, harm):
    path = folder / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
    else:
        del content[-1]
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=f"{name} was changed or truncated.*manifest says"
    ) as info:
        read_bundle(folder, "Thing")
    assert info.value.code == "CL-CHECKPOINT-DAMAGED"


def _edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"format_version": 99}, "CL-CHECKPOINT-NEWER", "format version 99.*pip install -U"),
        ({"kind": "Other"}, "CL-CHECKPOINT-KIND", "holds a 'Other', expected a 'Thing'"),
        ({"format": "else"}, "CL-CHECKPOINT-DAMAGED", "not a manifest of conceptlab"),
        ({"sha256": {}}, "CL-CHECKPOINT-DAMAGED", "lists no files"),
    ],
)
def test_wrong_manifests(folder, changes, code, text):
    _edit_manifest(folder, **changes)
    with pytest.raises(CheckpointError, match=text) as info:
        read_bundle(folder, "Thing")
    assert info.value.code == code


def test_a_manifest_cannot_reach_outside(folder):
    hashes = json.loads((folder / "manifest.json").read_text())["sha256"]
    _edit_manifest(folder, sha256={**hashes, "../../secret": "0"})
    with pytest.raises(CheckpointError, match="lies outside the folder"):
        read_bundle(folder, "Thing")


def test_missing_things(folder, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_bundle(tmp_path / "nothing", "Thing")
    (folder / "data.json").unlink()
    with pytest.raises(CheckpointError, match="data.json cannot be read"):
        read_bundle(folder, "Thing")


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CheckpointError, match="never read, because they can run code") as info:
        read_bundle(path, "Thing")
    assert info.value.code == "CL-CHECKPOINT-UNSAFE"


def test_a_foreign_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    with pytest.raises(CheckpointError, match="was not written by conceptlab"):
        write_bundle(tmp_path / "mine", BUNDLE)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "dear"


def test_a_failed_write_keeps_the_old_state(folder, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_bundle(folder, Bundle("Thing", {"new": True}))
    with pytest.raises(CheckpointError, match="No space left on device"):
        atomic_write(folder / "card.md", "new")
    monkeypatch.undo()
    assert read_bundle(folder, "Thing").data == BUNDLE.data
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], (
        "left-overs beside the folder"
    )


def test_a_bundle_is_replaced_whole(folder):
    write_bundle(folder, Bundle("Thing", {"new": True}))
    back = read_bundle(folder, "Thing")
    assert back.data == {"new": True}
    assert not back.files
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_nan_in_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_bundle(tmp_path / "x", Bundle("Thing", {"x": float("nan")}))
    assert not (tmp_path / "x").exists()


def test_parts_come_into_place_together_or_not_at_all(tmp_path):
    target = tmp_path / "whole"

    def part(number):
        return lambda path: write_bundle(path, Bundle("Part", {"number": number}))

    write_bundle(target, Bundle("Whole", {"age": 1}), parts={"part": part(1)})
    assert read_bundle(target / "part", "Part").data == {"number": 1}

    def fails(path):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_bundle(target, Bundle("Whole", {"age": 2}), parts={"part": part(2), "other": fails})
    assert read_bundle(target, "Whole").data == {"age": 1}
    assert read_bundle(target / "part", "Part").data == {"number": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]


def test_a_part_of_another_bundle_is_found(tmp_path):
    """Each part is sound by itself; only together they are not what was written."""
    target = tmp_path / "whole"
    part = {"part": lambda path: write_bundle(path, Bundle("Part", {"number": 1}))}
    write_bundle(target, Bundle("Whole"), parts=part)
    write_bundle(target / "part", Bundle("Part", {"number": 2}))
    with pytest.raises(CheckpointError, match="changed or truncated"):
        read_bundle(target, "Whole")


def test_a_part_needs_a_plain_name(tmp_path):
    with pytest.raises(CheckpointError, match="no plain file name"):
        write_bundle(tmp_path / "whole", Bundle("Whole"), parts={"../out": lambda path: None})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_removed_is_whole_or_gone(tmp_path, monkeypatch):
    """A process may be killed at any file of it; half a folder could not be read again."""
    place = tmp_path / "run"
    write_bundle(place, Bundle("Kind", {"a": 1}))
    seen = []
    rmtree = swap.shutil.rmtree

    def watched(folder, **options):
        seen.append((place.exists(), sorted(p.name for p in folder.rglob("*.json"))))
        rmtree(folder, **options)

    monkeypatch.setattr(swap.shutil, "rmtree", watched)
    swap.remove_folder(place)
    assert seen == [(False, ["data.json", "manifest.json"])]
    assert list(tmp_path.iterdir()) == []
    swap.remove_folder(place)  # nothing there is no error
    assert list(tmp_path.iterdir()) == []
