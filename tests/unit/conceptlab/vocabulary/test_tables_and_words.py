"""Concepts from tables, triples, our vocabulary and random words."""

import numpy as np
import pandas
import pytest
from word_encoder import WordEncoder

from conceptlab.errors import InputError
from conceptlab.vocabulary import (
    ClassConcepts,
    from_attributes,
    from_random_words,
    from_triples,
    from_vocabulary,
    load_vocabulary,
)

# Species with planted attributes; the encoder knows a name by its attributes.
PLANTED = {
    "arvo": ["red", "striped", "circle"],
    "belu": ["red", "dotted", "star"],
    "cindo": ["blue", "checked", "heart"],
    "dorla": ["green", "woven", "ring"],
}


def test_shipped_vocabulary():
    groups = load_vocabulary()
    assert set(groups) == {"colours", "shapes", "textures", "materials", "parts", "scenes"}
    terms = [term for values in groups.values() for term in values]
    assert len(terms) >= 400
    assert len({term.casefold() for term in terms}) == len(terms)
    assert all(term == term.strip() and term for term in terms)
    from conceptlab.datasets.world import BACKGROUNDS, COLOURS, SHAPES, TEXTURES

    assert set(COLOURS) <= set(groups["colours"])
    assert set(SHAPES) <= set(groups["shapes"])
    assert set(TEXTURES) <= set(groups["textures"])
    assert set(BACKGROUNDS) <= set(groups["scenes"])
    assert load_vocabulary(["shapes"], phrased=True)["shapes"][1] == "a square shape"
    with pytest.raises(InputError, match=r"Unknown group of terms 'colors'\. Did you mean 'col"):
        load_vocabulary(["colors"])


def test_the_margin_finds_the_planted_attributes():
    encoder = WordEncoder(PLANTED, dim=512)
    made = from_vocabulary(list(PLANTED), encoder, 2, groups=["colours", "shapes", "textures"])
    for label, planted in PLANTED.items():
        own = [a for a in planted if a != "red"]  # red is shared, so it tells nothing apart
        assert set(made[label]) == set(own[:2]) or set(made[label]) <= set(own)
    assert made.meta["margins"]["cindo"] == sorted(made.meta["margins"]["cindo"], reverse=True)
    # By the definition, one by one.
    centres = encoder.encode_text([f"a photo of a {label}." for label in PLANTED])
    term = encoder.encode_text(made["dorla"][:1])[0]
    margin = term @ centres[3] - max(term @ centres[j] for j in range(3))
    assert made.meta["margins"]["dorla"][0] == pytest.approx(margin, abs=1e-5)


def test_prototypes_stand_for_names_that_say_nothing():
    blind = WordEncoder(dim=512)
    centres = WordEncoder(PLANTED, dim=512).encode_text(list(PLANTED))
    made = from_vocabulary(list(PLANTED), blind, 1, prototypes=centres)
    for label, planted in PLANTED.items():
        assert made[label][0] in planted
    with pytest.raises(InputError, match=r"shape \(classes, d\) = \(4, 512\), got \(3, 512\)"):
        from_vocabulary(list(PLANTED), blind, 1, prototypes=centres[:3])
    with pytest.raises(InputError, match="prototype of 'belu' is zero"):
        from_vocabulary(list(PLANTED), blind, 1, prototypes=centres * [[1], [0], [1], [1]])


def test_vocabulary_options():
    encoder = WordEncoder({**PLANTED, "crimson": ["red"], "scarlet": ["red"]}, dim=512)
    one = from_vocabulary(["arvo"], encoder, 3, terms=["crimson", "scarlet", "red", "circle"])
    assert len({"red", "crimson", "scarlet"} & set(one["arvo"])) == 1  # three words of one meaning
    loose = from_vocabulary(
        ["arvo"], encoder, 4, max_cosine=None, terms=["crimson", "scarlet", "red", "circle"]
    )
    assert loose.counts.tolist() == [4]
    strict = from_vocabulary(list(PLANTED), encoder, 20, min_margin=0.2)
    assert 1 <= strict.counts.min() <= strict.counts.max() < 20
    assert all(margin >= 0.2 for values in strict.meta["margins"].values() for margin in values)
    named = from_vocabulary(["red", "blue"], encoder, 60, groups=["colours"], max_cosine=None)
    assert "red" not in named["red"]  # no class name as a concept
    assert "red and white" not in named["blue"]
    assert "orange" in named["red"]
    for bad, words in (
        ({"terms": []}, "There are no terms"),
        ({"terms": ["x", ""]}, "Term 1 must be a text"),
        ({"n_concepts": 0}, "n_concepts must be a whole number of at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            from_vocabulary(["a1"], encoder, **bad)


def test_attribute_tables():
    table = np.array([[0.9, 0.2, 0.5], [0.1, 1.0, 0.7]])
    names = ["has_wing_color::blue", "spotted", "has_bill_shape::hooked_(hawk)"]
    made = from_attributes(table, ["jay", "owl"], names)
    assert made.texts == {
        "jay": ["blue wing color", "hooked (hawk) bill shape"],
        "owl": ["spotted", "hooked (hawk) bill shape"],
    }
    frame = pandas.DataFrame(table, index=["jay", "owl"], columns=names)
    assert from_attributes(frame) == made
    assert from_attributes(frame, threshold=0.1, max_concepts=1).texts == {
        "jay": ["blue wing color"],
        "owl": ["spotted"],
    }
    worded = from_attributes(frame, phrases={"has_wing_color": "{} wings", "": "a {} coat"})
    assert worded["jay"][0] == "blue wings"
    assert worded["owl"][0] == "a spotted coat"
    assert from_attributes(table > 0.8, ["jay", "owl"], names).counts.tolist() == [1, 1]
    assert from_attributes(np.zeros((1, 1)), ["jay"], ["spotted"]).counts.tolist() == [0]


def test_attributes_of_the_rendered_world():
    from conceptlab.datasets import load_scenes

    scenes = load_scenes("test", 4, seed=0)
    made = from_attributes(scenes.class_attributes, scenes.class_names, scenes.attribute_names)
    assert made["arvo"] == ["red", "circle", "striped"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[1.0, np.nan]], ["a1"], ["x", "y"]), "attribute table contains NaN"),
        (([[1.0]], ["a1"], ["x", "y"]), r"\(classes, attributes\) = \(1, 2\), got \(1, 1\)"),
        (([["yes"]], ["a1"], ["x"]), "must hold numbers or booleans"),
        (([[1.0]],), "An array has no names"),
        (([[1.0, 1.0]], ["a1"], ["x_y", "x y"]), "Two attributes have the same words 'x y'"),
        (([[1.0]], ["a1"], [""]), "attribute's name must be a text"),
    ],
)
def test_bad_tables(arguments, words):
    with pytest.raises(InputError, match=words):
        from_attributes(*arguments)


def test_triples():
    triples = [
        ("newt", "has part", "a flat tail"),
        ("chair", "Made_Of", "wood"),
        ("newt", "found at", "pond"),
        ("newt", "has part", "a flat tail"),
        ("newt", "eats", "flies"),
    ]
    made = from_triples(triples, relations={"eats": "eating {}"})
    assert made.texts == {
        "newt": ["with a flat tail", "in a pond", "eating flies"],
        "chair": ["made of wood"],
    }
    assert made.prompts()[-1] == "a photo of a chair made of wood."
    assert from_triples(pandas.DataFrame(triples[:3])).classes == ("newt", "chair")
    assert from_triples(triples[:3], classes=["chair", "newt", "owl"]).counts.tolist() == [1, 2, 0]
    for bad, options, words in (
        (triples, {}, "Triple 4 has the relation 'eats', which has no phrase"),
        (["abc"], {}, r"Triple 0 must be \(class, relation, value\)"),
        ([("a", "is", " ")], {}, "Triple 0 has a blank value"),
        (triples[:1], {"classes": ["owl"]}, "is about 'newt', which is not among"),
        ([], {"relations": {"x": "no place"}}, "needs {} once"),
        ([], {}, "There are no classes"),
        (pandas.DataFrame({"a": [1]}), {}, "needs three columns"),
    ):
        with pytest.raises(InputError, match=words):
            from_triples(bad, **options)


def test_random_words_are_a_fair_control(global_state_untouched):
    like = ClassConcepts({"a": ["x", "y", "z"], "b": ["w"], "c": []})
    made = from_random_words(like, random_state=1)
    assert made.counts.tolist() == [3, 1, 0]
    assert made == from_random_words(like, random_state=1)
    assert made != from_random_words(like, random_state=2)
    assert made["a"][0] == made["b"][0]
    apart = from_random_words(["a", "b"], 8, shared=False, random_state=0)
    assert not set(apart["a"]) & set(apart["b"])
    assert len(set(apart["a"])) == 8
    mixed = from_random_words(["a"], 6, kind="both", random_state=0)["a"]
    known = set(load_words())
    assert [set(text.split()) <= known for text in mixed] == [True, False] * 3
    visual = {w for terms in load_vocabulary().values() for term in terms for w in term.split()}
    assert not known & visual
    from_random_words(["a"], 2)  # without a seed
    for bad, words in (
        ({"kind": "word"}, "Unknown kind 'word'"),
        ({"words": ["x", "y"], "n_concepts": 5}, "5 different concepts of 2 words cannot be made"),
        ({"n_concepts": 0}, "n_concepts must be a whole number of at least 1"),
        ({"n_words": 0}, "n_words must be a whole number of at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            from_random_words(["a"], **bad)


def load_words():
    from conceptlab.vocabulary.words import _data

    return _data()["words"]
