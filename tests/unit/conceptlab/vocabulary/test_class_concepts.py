"""Concepts by class: ranges, prompts, vectors, parts, files."""

import numpy as np
import pytest
from sklearn.base import clone
from word_encoder import WordEncoder

from conceptlab.encoders import load_encoder
from conceptlab.errors import CheckpointError, InputError, SpaceMismatchError
from conceptlab.vocabulary import ClassConcepts, fill_prompt

TEXTS = {
    "tree_frog": ["sticky toes", "green skin", "sticky toes"],
    "newt": ["a tail", "green skin"],
}


def test_rows_of_classes_and_vectors_agree():
    encoder = WordEncoder()
    made = ClassConcepts(TEXTS).embed(encoder)
    assert made.ranges.tolist() == [[0, 3], [3, 5]]
    assert made.labels.tolist() == [0, 0, 0, 1, 1]
    assert made.bank.space == encoder.fingerprint
    assert len(set(made.bank.names)) == 5
    assert made.bank.names[2] == "tree_frog: sticky toes (2)"
    expected = encoder.encode_text(made.prompts())
    np.testing.assert_allclose(made.bank.vectors, expected, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made.bank.vectors, axis=1), 1, rtol=1e-6)
    part = made.rows("newt")
    np.testing.assert_array_equal(made.bank.vectors[part], expected[3:])


def test_equal_prompts_are_read_once():
    encoder = WordEncoder()
    encoder.encode_text(["a tail", "green skin"])  # its first batch is read with care
    encoder.texts.clear()
    ClassConcepts(TEXTS).embed(encoder, "concept")
    assert sorted(encoder.texts) == ["a tail", "green skin", "sticky toes"]


def test_parts_keep_their_vectors():
    made = ClassConcepts(TEXTS, meta={"a": 1}).embed(WordEncoder())
    part = made.take({"tree_frog": [1, 0]})
    assert part.texts == {
        "tree_frog": ["green skin", "sticky toes"],
        "newt": ["a tail", "green skin"],
    }
    np.testing.assert_array_equal(part.bank.vectors, made.bank.vectors[[1, 0, 3, 4]])
    assert part.meta == {"a": 1}
    turned = made.select_classes(["newt", "tree_frog"])
    np.testing.assert_array_equal(turned.bank.vectors, made.bank.vectors[[3, 4, 0, 1, 2]])
    assert made.take({"tree_frog": []}).counts.tolist() == [0, 2]
    with pytest.raises(InputError, match="'newt' has 2 concepts, so there is no place 2"):
        made.take({"newt": [2]})
    with pytest.raises(InputError, match=r"Unknown class 'newts'\. Did you mean 'newt'"):
        made.select_classes(["newts"])


def test_nothing_given_can_change_it():
    texts = {"a": ["x"]}
    made = ClassConcepts(texts)
    texts["a"].append("y")
    made.texts["a"].append("z")
    made["a"].append("z")
    assert made.texts == {"a": ["x"]}
    with pytest.raises(ValueError, match="read-only"):
        made.offsets[0] = 3
    assert clone(made) is made


def test_merge_and_map():
    made = ClassConcepts({"a": ["x"]}).merge(ClassConcepts({"a": ["x", "y"], "b": ["z"], "c": []}))
    assert made.texts == {"a": ["x", "y"], "b": ["z"], "c": []}
    assert made.map(lambda label, texts: [t + label for t in texts])["a"] == ["xa", "ya"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_saved_and_loaded(tmp_path, dtype):
    made = ClassConcepts(TEXTS, meta={"prompt": "cupl"}).embed(WordEncoder(), dtype=dtype)
    back = ClassConcepts.load(made.save(tmp_path / "bank"))
    assert back == made
    assert back.meta == made.meta
    assert back.bank.vectors.dtype == dtype
    assert back.bank.meta == made.bank.meta
    bare = ClassConcepts(TEXTS)
    assert ClassConcepts.load(bare.save(tmp_path / "bare")) == bare
    data = tmp_path / "bank" / "data.json"
    data.write_text(data.read_text().replace("sticky", "slimy"))
    with pytest.raises(CheckpointError, match="was changed or truncated"):
        ClassConcepts.load(tmp_path / "bank")


def test_the_embedded_encoder_reads_concepts():
    encoder = load_encoder("embedded", device="cpu")
    texts = {"circle": ["a red object", "a circle"], "star": ["a blue object", "a star"]}
    made = ClassConcepts(texts).embed(encoder, "concept")
    np.testing.assert_allclose(
        made.bank.vectors, encoder.encode_text([t for _, t in made.items()]), rtol=1e-6
    )
    assert made.bank.space == encoder.fingerprint
    named = ClassConcepts(texts).embed(encoder, dtype=np.float16)
    assert named.bank.vectors.dtype == np.float16
    assert named.bank.meta["prompt"] == "cgbc"
    expected = encoder.encode_text(["a photo of a circle with a red object."])[0]
    np.testing.assert_allclose(named.bank.vectors[0], expected, atol=1e-3)
    # Words that the encoder knows: a star is nearer to "a star" than to "a circle".
    image = encoder.encode_text(["this is a star"])[0]
    assert (made.bank.vectors @ image).argmax() == 3
    with pytest.raises(InputError, match="longer than the 40 tokens that embedded reads"):
        ClassConcepts({"circle": ["red " * 80]}).embed(encoder)
    cut = ClassConcepts({"circle": ["red " * 80]}).embed(encoder, truncate=True)
    assert cut.bank.vectors.shape == (1, encoder.dim)


def test_vectors_of_another_encoder_are_noticed():
    made = ClassConcepts(TEXTS).embed(WordEncoder())
    made.check_space(WordEncoder())
    with pytest.raises(SpaceMismatchError, match="made by another encoder"):
        made.check_space(WordEncoder(fingerprint="other"))


def test_a_prompt_over_the_context_is_refused():
    with pytest.raises(
        InputError, match=r"1 of these 2 texts are longer than the 9 tokens"
    ) as caught:
        ClassConcepts({"newt": ["red " * 20, "a tail"]}).embed(WordEncoder(context=9))
    assert caught.value.code == "CL-INPUT-TEXT"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, "There are no classes"),
        ([("a", "x")], "must be a mapping from class to texts, got list"),
        ({"a": "x"}, "concepts of class 'a' must be a list of texts, got 'x'"),
        ({"a": ["x", " "]}, "Concept 1 of class 'a' must be a text that is not blank"),
        ({"a": [3]}, "Concept 0 of class 'a' must be a text"),
        ({"": ["x"]}, "A class name must be a string"),
        ({3: ["x"]}, "A class name must be a string with letters in it, got 3"),
    ],
)
def test_what_is_no_set_of_concepts(texts, words):
    with pytest.raises(InputError, match=words):
        ClassConcepts(texts)


def test_a_bank_of_another_size_is_refused():
    bank = ClassConcepts(TEXTS).embed(WordEncoder()).bank
    with pytest.raises(InputError, match="5 vectors for 1 concepts"):
        ClassConcepts({"a": ["x"]}, bank=bank)


def test_braces_in_names_and_concepts_stay_text():
    assert fill_prompt("cgbc", "set {concept}", "{class} {}") == (
        "a photo of a set {concept} with {class} {}."
    )
    assert fill_prompt("{concept} on a {class}!", "a_b", "x_y") == "x y on a a b!"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("cgcb", "Unknown prompt 'cgcb'. Did you mean 'cgbc'"),
        ("a {class}", "needs {concept} once"),
        ("{concept} {concept}", "needs {concept} once"),
        (3, "Unknown prompt 3"),
    ],
)
def test_bad_prompts(template, words):
    with pytest.raises(InputError) as caught:
        ClassConcepts(TEXTS).prompts(template)
    assert words in str(caught.value)
