"""Published concept files: read as they are, written as they were, refused with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.errors import InputError
from conceptlab.vocabulary import ClassConcepts, from_pairs, read_concepts, write_concepts

CGBC = {"apple_pie": ["a golden crust", "lattice top"], "Tree Frog": ["sticky toes"]}
DCLIP = {"hen": ["a red comb", "two legs", "often brown feathers", "used for eggs"]}
CUPL = {"hen": ["A hen is a female chicken.", "Hens have feathers."]}


def write(tmp_path, value, name="file.json"):
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_cgbc_file(tmp_path):
    made = read_concepts(write(tmp_path, CGBC), prompt="cgbc")
    assert made.texts == CGBC
    assert made.classes == ("apple_pie", "Tree Frog")  # labels letter by letter
    assert made.counts.tolist() == [2, 1]  # ragged
    assert made.prompts() == [
        "a photo of a apple pie with a golden crust.",
        "a photo of a apple pie with lattice top.",
        "a photo of a Tree Frog with sticky toes.",
    ]
    assert made.prompts(underscores=True)[0] == "a photo of a apple_pie with a golden crust."
    assert made.prompts("cgbc-satellite")[2] == "a satellite photo of Tree Frog with sticky toes."


def test_dclip_and_cupl_files(tmp_path):
    assert read_concepts(write(tmp_path, DCLIP), prompt="dclip").prompts() == [
        "hen, which is a red comb",
        "hen, which has two legs",
        "hen, which often brown feathers",
        "hen, which is used for eggs",
    ]
    made = read_concepts(write(tmp_path, CUPL), prompt="cupl")
    assert made.prompts() == CUPL["hen"]
    assert made.plain_prompts() == ["a photo of a hen."]


def test_ragged_repeated_and_blank_entries(tmp_path):
    path = write(tmp_path, {"a": ["x y", "X  Y", " ", "z "], "b": [], "c": ["w"]})
    made = read_concepts(path)
    assert made.texts == {"a": ["x y", "z"], "b": [], "c": ["w"]}
    assert made.meta["dropped"] == {"blank": 1, "duplicate": 1}
    assert read_concepts(path, duplicates="keep")["a"] == ["x y", "X  Y", "z"]


def test_keys_that_come_twice_are_joined(tmp_path):
    path = write(tmp_path, '{"crane": ["a long neck"], "owl": ["big eyes"], "crane": ["a hook"]}')
    assert read_concepts(path).texts == {"crane": ["a long neck", "a hook"], "owl": ["big eyes"]}


def test_classes_of_a_data_set_that_names_one_twice(tmp_path):
    path = write(tmp_path, CGBC)
    made = read_concepts(path, classes=["tree_frog", "Apple Pie", "tree_frog"])
    assert made.classes == ("tree_frog", "Apple Pie")
    assert made.index(["tree_frog", "Apple Pie", "tree_frog"]).tolist() == [0, 1, 0]
    with pytest.raises(InputError, match=r"Unknown class 'apple_pi'\. Did you mean 'apple_pie'"):
        read_concepts(path, classes=["apple_pi"])


def test_byte_order_mark_and_other_alphabets(tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes("﻿".encode() + json.dumps({"Luční kobylka": ["zelená"]}).encode())
    assert read_concepts(path).texts == {"Luční kobylka": ["zelená"]}


label = st.text(min_size=1, max_size=12).filter(lambda t: t.strip())
concept = st.text(min_size=1, max_size=20).map(str.strip).filter(bool)


@given(st.dictionaries(label, st.lists(concept, max_size=5), min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("f") / "x.json"
    concepts = ClassConcepts(texts)
    try:
        write_concepts(concepts, path)
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    assert read_concepts(path, duplicates="keep") == concepts
    assert list(json.loads(path.read_text("utf-8"))) == list(texts)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": ["x",]}', r"no JSON: .* at line 1, column 1\d"),
        ('{"a": ["x"]', "no JSON: .* at line 1"),
        ("", "no JSON: Expecting value at line 1, column 1"),
        ('["a", "b"]', "holds a list; expected an object"),
        ('"a"', "holds a str; expected an object"),
        ("{}", "holds no classes"),
        ('{"a": "x"}', "concepts of class 'a' must be a list of texts, got 'x'"),
        ('{"a": null}', "concepts of class 'a' must be a list of texts, got None"),
        ('{"a": {"b": ["x"]}}', "must be a list of texts, got an object"),
        ('{"a": ["x", 3]}', "concept 1 of class 'a' must be a text, got 3"),
        ('{"a": [["x"]]}', r"concept 0 of class 'a' must be a text, got \['x'\]"),
        ('{" ": ["x"]}', "a class without a name"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_files_of_another_form(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read_concepts(write(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*nothing\.json"):
        read_concepts(tmp_path / "nothing.json")
    (tmp_path / "latin.json").write_bytes('{"á": ["x"]}'.encode("latin-1"))
    with pytest.raises(InputError, match="not readable as text in UTF-8"):
        read_concepts(tmp_path / "latin.json")
    with pytest.raises(InputError, match="not readable"):
        read_concepts(tmp_path)
    path = write(tmp_path, CGBC)
    with pytest.raises(InputError, match=r"Unknown prompt 'cgcb'\. Did you mean 'cgbc'"):
        read_concepts(path, prompt="cgcb")
    with pytest.raises(InputError, match="Unknown way with duplicates 'both'"):
        read_concepts(path, duplicates="both")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write(tmp_path, CGBC)
    with pytest.raises(InputError, match="concepts of class 'a' must be a list"):
        write_concepts({"a": "x"}, path)
    assert json.loads(path.read_text()) == CGBC
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_pairs_and_frames():
    import pandas

    frame = pandas.DataFrame({"concept": ["x", "y", "x"], "class": ["a", "b", "a"]})
    assert from_pairs(frame).texts == {"a": ["x"], "b": ["y"]}
    assert from_pairs(frame, duplicates="keep").texts == {"a": ["x", "x"], "b": ["y"]}
    assert from_pairs(ClassConcepts(CGBC).to_frame()).texts == CGBC
    with pytest.raises(InputError, match=r"Pair 0 must be \(class, concept\)"):
        from_pairs(["ab"])
    with pytest.raises(InputError, match="needs the columns"):
        from_pairs(frame.assign(third=1)[["class", "third", "third"]].set_axis(list("xyz"), axis=1))
