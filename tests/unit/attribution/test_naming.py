"""Names of concepts: planted words are found, noise gets none, photos are not named in silence."""

import numpy as np
import pytest
from planted import ColorNet, color_images

from attribution.explain import explain
from attribution.naming import NamingWarning, knows, vocabulary_for, words_of
from conceptlab.datasets import load_embedded_classifier, load_scenes
from conceptlab.encoders import load_encoder
from conceptlab.errors import InputError
from conceptlab.extractors.naming import name_coefficients

WORDS = ["red", "blue", "circle", "star", "striped", "plain"]


@pytest.fixture(scope="module")
def scenes():
    return load_scenes("test", 80, seed=3, n_objects=1)


@pytest.fixture(scope="module")
def planted(scenes):
    columns = [list(scenes.attribute_names).index(word) for word in WORDS]
    return scenes.attributes[:, columns].astype(float)


def test_planted_words_are_found_and_noise_is_not(scenes, planted):
    noise = np.random.default_rng(0).random((len(scenes), 40))
    found = name_coefficients(
        np.c_[planted, noise], scenes.images, load_encoder(), WORDS, random_state=0
    )
    assert [found.words(i)[0][0] for i in range(6)] == WORDS
    assert found.named[:6].all()
    # A level of 1 in 20: more than 7 of 40 has a chance below 0.2 %.
    assert found.named[6:].sum() <= 7
    for i in np.flatnonzero(~found.named):
        assert found.names[i] == f"concept {i}"
        assert found.words(i) == []
        assert found.told(i) == "no name"


def test_the_score_is_the_correlation_with_the_cosine(scenes):
    encoder, rng = load_encoder(), np.random.default_rng(1)
    U = rng.random((len(scenes), 2))
    found = name_coefficients(U, scenes.images, encoder, WORDS, random_state=0)
    cosine = (
        np.asarray(encoder.encode_image(scenes.images)) @ np.asarray(encoder.encode_text(WORDS)).T
    )
    expected = [[np.corrcoef(u, s)[0, 1] for s in cosine.T] for u in U.T]
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)


def test_a_word_that_serves_twice_gets_its_second_beside_it(scenes, planted):
    U = np.c_[planted[:, 0] + 0.3 * planted[:, 2], planted[:, 0] + 0.3 * planted[:, 4]]
    found = name_coefficients(U, scenes.images, load_encoder(), WORDS, random_state=0)
    assert all(name.startswith("red, ") for name in found.names)
    assert len(set(found.names)) == 2


def test_a_constant_coefficient_has_no_name(scenes):
    U = np.ones((len(scenes), 1))
    found = name_coefficients(U, scenes.images, load_encoder(), WORDS, random_state=0)
    assert not found.named.any()
    assert np.isfinite(found.scores).all()


def test_the_embedded_encoder_knows_scenes_and_says_so_of_others(scenes):
    encoder = load_encoder()
    rng = np.random.default_rng(0)
    rough = rng.random((6, 3, 4, 4), dtype=np.float32).repeat(16, 2).repeat(16, 3)
    assert knows(encoder, scenes.images)
    assert not knows(encoder, rough)
    assert set(vocabulary_for(encoder)) < set(scenes.attribute_names)
    assert len(vocabulary_for(object())) > 400


def settings(**more):
    return {"n_concepts": 2, "depth": 0, "n_refits": 0, "maps": None, "faithfulness": False,
            "remedies": False, "random_state": 0, **more}  # fmt: skip


def test_scenes_are_named_without_being_asked(scenes):
    found = explain(load_embedded_classifier(), scenes.images, layer="layer4", **settings())
    assert found.naming is not None
    assert found.naming.encoder == "embedded"
    assert found.names == found.naming.names
    assert [root.name for root in found.tree.roots] == found.names
    assert "words" in found.to_frame()
    data = found.to_dict()["names"]
    assert [entry["name"] for entry in data["concepts"]] == found.names
    assert "Words" in found.to_html() or "words" in found.to_html()


def test_other_images_are_not_named_in_silence():
    images = color_images(n=8)[0]
    plain = explain(ColorNet(), images, layer="late", **settings())
    assert plain.naming is None
    assert plain.names == ["concept 0", "concept 1"]
    with pytest.warns(NamingWarning, match=r"no names.*rendered scenes only.*--name-with"):
        asked = explain(ColorNet(), images, layer="late", names=["red", "blue"], **settings())
    assert asked.naming is None
    with pytest.warns(NamingWarning, match=r"may mean nothing.*rendered scenes only"):
        told = explain(
            ColorNet(), images, layer="late", names="red,blue", name_with="embedded", **settings()
        )
    assert told.naming is not None


class Uneven:
    """An encoder whose texts live in another space than its images."""

    name = "uneven"

    def encode_image(self, images, **options):
        return np.ones((len(images), 4), np.float32)

    def encode_text(self, texts, **options):
        return np.ones((len(texts), 3), np.float32)


def test_bad_words(tmp_path, scenes):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    one = tmp_path / "one.txt"
    one.write_text("red\nred\n")
    image = tmp_path / "image.txt"
    image.write_bytes(b"\xff\xfe\x00\x81")
    for given, text in (
        (["red"], r"at least two different words.*\['red'\].*\[CL-INPUT-FEW\]$"),
        ("red", r"at least two different words.*\[CL-INPUT-FEW\]$"),
        (" , ", r"at least two different words.*\[\].*\[CL-INPUT-FEW\]$"),
        (one, r"at least two different words.*\[CL-INPUT-FEW\]$"),
        (empty, r"empty.txt holds no words.*\[CL-INPUT-FILE\]$"),
        (str(empty), r"empty.txt holds no words.*\[CL-INPUT-FILE\]$"),
        (image, r"not readable as text in UTF-8.*\[CL-INPUT-FILE\]$"),
        (tmp_path / "nothing.txt", r"no file with words.*\[CL-INPUT-FILE\]$"),
    ):
        with pytest.raises(InputError, match=text):
            explain(ColorNet(), scenes.images[:4], names=given)
    assert words_of(" red ,striped,") == ["red", "striped"]


def test_an_encoder_of_another_size(scenes):
    with pytest.raises(InputError, match=r"4 numbers for images and 3.*\[CL-INPUT-SHAPE\]$"):
        name_coefficients(np.ones((4, 1)), scenes.images[:4], Uneven(), WORDS)
    with pytest.raises(InputError, match=r"one row for each image.*\[CL-INPUT-SHAPE\]$"):
        name_coefficients(np.ones((3, 1)), scenes.images[:4], load_encoder(), WORDS)
